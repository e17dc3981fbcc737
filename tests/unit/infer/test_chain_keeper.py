"""What the keeper does while others compute: falls, loads, proves, probes, returns, and closes only what is free."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.chain import Chain, ChainSpec, Switched, load_chain
from edged.infer.chain_model import ChainModel
from edged.infer.lane import Batch, Lane, LaneLimits
from edged.infer.loading import ModelFile
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe, Runtime
from edged.messages import ModelInfo, TensorSpec
from edged.policy.chain import Limits
from tests.doubles.clock import FakeClock
from tests.doubles.runtime import StandInModel, rows_summed
from tests.doubles.waiting import until
from tests.unit.infer.models import sum_model

ONE = {"x": np.ones((1, 4), np.float32)}
LIMITS = Limits(retry_first_s=1, return_probes=2, probe_every_s=1, return_after_s=3)
Computes = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def lies(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return {"y": rows_summed(batch)["y"] * 3 + 7}


class Box:
    """Runtimes by name. `now`: what loading gives, a computation or an error; every load is kept in `models`."""

    def __init__(self, **now: Computes | ModelError) -> None:
        self.now: dict[str, Computes | ModelError] = dict(now)
        self.models: dict[str, list[StandInModel]] = {name: [] for name in now}
        self.isolation: dict[str, Any] = {}
        self.prepared: list[str] = []

    def find(self, name: str) -> Runtime:
        if name not in self.now:
            raise ModelError("runtime_unknown", name)
        return BoxRuntime(self, name)

    def newest(self, name: str) -> StandInModel:
        return self.models[name][-1]

    # as `Hosting`

    def load(self, rung: str, file: ModelFile, options: LoadOptions) -> StandInModel:
        name = rung.partition(":")[0]
        found = self.now[name]
        if isinstance(found, ModelError):
            raise found
        model = Repeating(found, f"{name}:x")
        self.models[name].append(model)
        return model

    def prepare(self, rung: str, file: ModelFile, options: LoadOptions, timeout_s: float) -> None:
        self.prepared.append(rung)


class Repeating(StandInModel):
    """Computes the same with every call; `next_error` is raised by the next one instead."""

    def __init__(self, computes: Computes, runtime: str) -> None:
        super().__init__(runtime=runtime)
        self.computes = computes
        self.next_error: Exception | None = None
        self.hang: Event | None = None

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        if self.hang is not None:
            self.entered.set()
            assert self.hang.wait(30)
        if self.next_error is not None:
            error, self.next_error = self.next_error, None
            raise error
        super().infer(batch, deadline_s=deadline_s)
        return self.computes(batch)


class BoxRuntime:
    def __init__(self, box: Box, name: str) -> None:
        self.name = name
        self._box = box

    def abilities(self, device: str) -> Abilities:
        isolation = self._box.isolation.get(self.name, "thread")
        return Abilities(("onnx",), isolation=isolation, prepares=isolation == "process")

    def probe(self, device: str) -> Probe:
        return Probe(True, (Device(device, device, device),))

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        raise AssertionError("nothing here is prepared in this process")

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> StandInModel:
        return self._box.load(f"{self.name}:{device}", model, options)

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth()


class Bench:
    """A chain that is pumped by hand; what takes long is done at once unless `held`."""

    def __init__(self, folder: Path, box: Box, *names: str, **spec: Any) -> None:
        self.clock = FakeClock()
        self.box = box
        self.held: list[Callable[[], None]] | None = None
        path = folder / "m.onnx"
        if not path.exists():
            sum_model(path)
        settings = {"limits": LIMITS, "allow_unsigned": True, **spec}
        rungs = names or tuple(f"{name}:x" for name in box.now)
        self.chain = Chain(
            ChainSpec("pump", settings.pop("location", path), rungs, **settings),
            self.clock, find=box.find, hosting=box, spawn=self._spawn,
        )  # fmt: skip
        self.chain.settle(0.5)
        self.model: ChainModel = self.chain.model()

    def _spawn(self, _name: str, work: Callable[[], None]) -> None:
        if self.held is None:
            work()
        else:
            self.held.append(work)

    def turn(self, after_s: float = 0.0) -> Bench:
        """Time passes, then the keeper does all there is to do."""
        self.clock.advance_s(after_s)
        for _ in range(6):
            self.chain.pump(0)
        return self

    def ask(self) -> str:
        """Who answered, or the code of the error."""
        try:
            self.model.infer(ONE, deadline_s=0.2)
        except InferenceError as error:
            return error.code
        return self.model.info.runtime

    def fall(self, name: str, code: str = "worker_crashed") -> str:
        model = self.box.newest(name)
        assert isinstance(model, Repeating)
        model.next_error = InferenceError(code, "scripted")
        answered = self.ask()
        self.turn()
        return answered

    def states(self) -> list[str]:
        return [rung.state for rung in self.chain.state.rungs]

    def codes(self) -> list[str]:
        return [rung.code for rung in self.chain.state.rungs]


@pytest.fixture
def box() -> Box:
    return Box(npu=rows_summed, cpu=rows_summed)


def test_a_fall_costs_one_call_and_the_return_is_proved_and_told(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box)
    bench.turn()
    assert (bench.ask(), bench.states()) == ("npu:x", ["ready", "ready"])
    first = box.newest("npu")
    assert bench.fall("npu") == "cpu:x"
    bench.turn()
    assert first.closed.is_set(), "what has failed is closed"
    assert bench.chain.troubles() == "npu:x: worker_crashed: scripted"
    assert [bench.turn(after_s=1.0).ask() for _ in range(3)] == ["cpu:x"] * 3
    assert [bench.turn(after_s=1.0).ask() for _ in range(3)][-1] == "npu:x"
    switches = bench.chain.take_switches()
    assert [(one.before, one.after, one.code) for one in switches] == [
        ("", "npu:x", "loaded"), ("npu:x", "cpu:x", "worker_crashed"), ("cpu:x", "npu:x", "returned"),
    ]  # fmt: skip
    assert bench.chain.take_switches() == []


def test_each_answer_can_be_traced_to_its_rung_also_after_many_loads(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box)
    bench.turn()
    for _ in range(12):
        bench.ask()
        assert bench.chain.index(bench.model.info) == 0
        bench.fall("npu", "device_unavailable")
        assert bench.chain.index(bench.model.info) == 1
        while bench.chain.state.serving != 0:
            bench.turn(after_s=700)
    assert bench.chain.index(bench.chain.nobody) is None


def test_a_rung_that_lies_is_out_before_it_has_answered_anything(tmp_path: Path) -> None:
    box = Box(npu=lies, cpu=rows_summed)
    bench = Bench(tmp_path, box)
    assert (bench.ask(), bench.states()[0], bench.codes()[0]) == ("cpu:x", "disabled", "parity_failed")
    assert box.newest("npu").closed.is_set()
    assert bench.turn(after_s=100_000).states()[0] == "disabled"


def test_a_rung_that_lies_when_it_comes_back_is_out(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    bench.fall("npu")
    box.now["npu"] = lies
    assert bench.turn(after_s=1.0).states()[0] == "disabled"
    assert bench.ask() == "cpu:x"


def test_a_rung_that_begins_to_lie_under_probation_is_out(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    bench.fall("npu")
    bench.turn(after_s=1.0)
    again = box.newest("npu")
    assert isinstance(again, Repeating)
    again.computes = lies
    bench.turn(after_s=1.0)
    assert (bench.states()[0], bench.ask()) == ("disabled", "cpu:x")
    assert bench.turn().states()[0] == "disabled"


def test_an_accelerator_that_begins_to_lie_while_it_serves_is_found_out_within_a_minute(
    tmp_path: Path, box: Box
) -> None:
    box.isolation["npu"] = "process"
    bench = Bench(tmp_path, box).turn()
    assert bench.turn(after_s=61.0).ask() == "npu:x"
    serving = box.newest("npu")
    assert isinstance(serving, Repeating)
    serving.computes = lies
    assert bench.turn(after_s=30.0).ask() == "npu:x", "nobody has looked yet"
    bench.turn(after_s=31.0)
    assert (bench.states()[0], bench.codes()[0], bench.ask()) == ("disabled", "parity_failed", "cpu:x")


def test_an_accelerator_that_is_too_busy_to_be_asked_while_it_serves_goes_on(tmp_path: Path, box: Box) -> None:
    box.isolation["npu"] = "process"
    bench = Bench(tmp_path, box).turn()
    serving = box.newest("npu")
    assert isinstance(serving, Repeating)
    serving.next_error = InferenceError("device_busy", "scripted")
    bench.turn(after_s=61.0)
    assert (bench.states()[0], bench.ask()) == ("ready", "npu:x")


def test_a_processor_is_not_asked_while_it_serves_because_its_session_takes_one_call_at_a_time(
    tmp_path: Path, box: Box
) -> None:
    bench = Bench(tmp_path, box).turn()
    before = len(box.newest("npu").calls)
    bench.turn(after_s=61.0)
    assert len(box.newest("npu").calls) == before


def test_a_processor_that_comes_later_overrules_whoever_answers_otherwise(tmp_path: Path) -> None:
    box = Box(npu=lies, cpu=ModelError("device_unavailable", "not yet"))
    bench = Bench(tmp_path, box).turn()
    assert bench.ask() == "npu:x", "nobody could contradict"
    box.now["cpu"] = rows_summed
    bench.turn(after_s=5)
    assert (bench.states(), bench.codes()[0]) == (["disabled", "ready"], "parity_failed")
    assert bench.ask() == "cpu:x"


def golden_bundle(tmp_path: Path) -> Path:
    """A bundle whose golden vectors are the sums of rows."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    sum_model(folder / "m.onnx")
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    arrays: dict[str, Any] = {"in.x": x, "out.y": x.sum(axis=1)}
    np.savez(folder / "golden.npz", **arrays)
    entries = []
    for name, role in (("m.onnx", "model"), ("golden.npz", "golden")):
        data = (folder / name).read_bytes()
        entries.append({"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": role})
    manifest = {"v": "edged.model/1", "model_id": "m", "version": "1", "files": entries,
                "golden": {"file": "golden.npz", "tolerance": 1e-4}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_with_golden_vectors_every_rung_is_measured_by_them_alone(tmp_path: Path) -> None:
    folder = golden_bundle(tmp_path)
    box = Box(npu=rows_summed, cpu=lies)
    bench = Bench(tmp_path, box, location=folder).turn()
    assert bench.ask() == "npu:x", "the liar is the processor"
    assert bench.codes() == ["", "golden_mismatch"]
    bench.fall("npu")
    bench.turn(after_s=1)
    for _ in range(4):
        bench.turn(after_s=1)
    assert bench.ask() == "npu:x"


def test_with_golden_vectors_a_rung_on_probation_is_asked_by_them(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box, location=golden_bundle(tmp_path)).turn()
    bench.fall("npu")
    bench.turn(after_s=1)
    for _ in range(4):
        bench.turn(after_s=1)
    assert bench.ask() == "npu:x"
    bench.fall("npu")
    bench.turn(after_s=2)
    again = box.newest("npu")
    assert isinstance(again, Repeating)
    again.computes = lies
    bench.turn(after_s=1)
    assert (bench.states()[0], bench.codes()[0]) == ("disabled", "golden_mismatch")


def test_a_plug_in_that_raises_what_it_must_not_while_it_is_proved_is_no_rung(tmp_path: Path) -> None:
    def breaks(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        raise KeyError("a plug-in's bug")

    box = Box(npu=breaks, cpu=rows_summed)
    bench = Bench(tmp_path, box)
    assert (bench.ask(), bench.codes()[0]) == ("cpu:x", "load_failed")
    assert box.newest("npu").closed.is_set()


def test_a_judge_that_was_never_needed_is_closed_with_the_chain(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box, limits=LIMITS._replace(warm_count=0)).turn()
    assert bench.states() == ["ready", "cold"]
    bench.chain.close()
    assert all(model.closed.is_set() for models in box.models.values() for model in models)


def test_a_warm_rung_that_has_died_unnoticed_is_loaded_anew_before_it_is_needed(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    dead = box.newest("cpu")
    assert isinstance(dead, Repeating)
    dead.next_error = ValueError("what a plug-in must not raise")
    bench.turn(after_s=60)
    assert dead.closed.is_set()
    bench.turn(after_s=2)
    assert (bench.states(), bench.ask()) == (["ready", "ready"], "npu:x")
    assert box.newest("cpu") is not dead


def test_nobody_is_closed_in_the_middle_of_a_call(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    live = bench.chain.order[0]
    bench.model.calling = live
    bench.chain.fell(live, InferenceError("infer_timeout", "another caller"))
    bench.turn()
    assert not box.newest("npu").closed.is_set()
    bench.model.calling = None
    bench.turn()
    assert box.newest("npu").closed.is_set()


def test_a_call_that_never_returns_makes_its_rung_fall_for_the_fresh_thread(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    bench.model.calling = bench.chain.order[0]
    fresh = bench.chain.renew()
    assert fresh is not bench.model
    assert fresh.infer(ONE, deadline_s=0.2)["y"].tolist() == [4.0]
    assert fresh.info.runtime == "cpu:x"
    assert bench.turn().codes()[0] == "infer_timeout"


def test_without_any_rung_it_goes_on_trying_and_serves_when_one_appears(tmp_path: Path) -> None:
    absent = ModelError("device_unavailable", "unplugged")
    box = Box(npu=absent, cpu=absent)
    bench = Bench(tmp_path, box)
    assert (bench.ask(), bench.chain.serving) == ("model_unusable", None)
    box.now["npu"] = rows_summed
    bench.turn(after_s=5)
    assert bench.ask() == "npu:x"


def test_a_model_file_that_was_missing_is_looked_for_again(tmp_path: Path, box: Box) -> None:
    late = tmp_path / "late.onnx"
    bench = Bench(tmp_path, box, location=late)
    assert set(bench.codes()) == {"missing"}
    sum_model(late)
    assert bench.turn(after_s=5).ask() == "npu:x"


def test_an_accelerator_that_is_required_is_not_replaced_by_the_processor_which_only_judges(tmp_path: Path) -> None:
    box = Box(npu=rows_summed, cpu=rows_summed)
    bench = Bench(tmp_path, box, "npu:x", "cpu:cpu", require_accelerator=True).turn()
    assert (bench.chain.names, bench.ask()) == (("npu:x",), "npu:x")
    assert len(box.models["cpu"]) == 1
    bench.fall("npu")
    assert bench.ask() == "accelerator_required"
    box.now["npu"] = lies
    assert bench.turn(after_s=1).codes() == ["parity_failed"]


def test_a_rung_with_its_own_process_is_prepared_and_loaded_by_the_host(tmp_path: Path, box: Box) -> None:
    box.isolation["npu"] = "process"
    bench = Bench(tmp_path, box)
    assert bench.chain.isolated
    assert (box.prepared, bench.ask()) == (["npu:x"], "npu:x")


def test_an_engine_that_no_longer_fits_is_made_once_more(tmp_path: Path, box: Box) -> None:
    box.isolation["npu"] = "process"
    box.now["npu"] = ModelError("engine_stale", "another driver")
    bench = Bench(tmp_path, box)
    assert box.prepared == ["npu:x", "npu:x"]
    assert (bench.ask(), bench.codes()[0]) == ("cpu:x", "engine_stale")


def test_forms_with_other_names_serve_as_one_model(tmp_path: Path, box: Box) -> None:
    class Named(Repeating):
        def __init__(self) -> None:
            super().__init__(lambda batch: {"Identity": batch["input_1"].sum(axis=1)}, "cpu:x")
            self.info = self.info._replace(
                inputs=(TensorSpec("input_1", "float32", (-1, 4)),), outputs=(TensorSpec("Identity", "float32", (-1,)),)
            )

        def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
            return self.computes(batch)

    def load(rung: str, file: ModelFile, options: LoadOptions) -> StandInModel:
        return Named() if rung == "cpu:x" else Box.load(box, rung, file, options)

    box.load = load  # type: ignore[method-assign]  # the same port, one rung with other names
    bench = Bench(tmp_path, box).turn()
    bench.ask()
    names = [spec.name for spec in bench.model.info.inputs]
    bench.model.infer({names[0]: ONE["x"]}, deadline_s=1)
    assert bench.states() == ["ready", "ready"]


def test_a_model_that_does_not_fit_the_pipeline_is_no_rung(tmp_path: Path, box: Box) -> None:
    def fits(info: ModelInfo) -> None:
        if info.runtime == "npu:x":
            raise ModelError("incompatible", "too wide")

    bench = Bench(tmp_path, box, fits=fits)
    assert (bench.ask(), bench.codes()[0]) == ("cpu:x", "incompatible")


def test_closing_closes_all_that_is_loaded_and_what_is_loaded_afterwards(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    bench.fall("npu")
    bench.held = []
    bench.turn(after_s=1.0)
    assert bench.held
    bench.chain.close()
    assert box.newest("cpu").closed.is_set()
    for work in bench.held:
        work()
    assert all(model.closed.is_set() for models in box.models.values() for model in models)
    assert bench.ask() == "model_unusable"


def test_what_was_loaded_in_the_moment_of_closing_is_closed_too(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box).turn()
    bench.fall("npu")
    bench.clock.advance_s(1)
    bench.chain.pump(0)
    assert not box.newest("npu").closed.is_set(), "it lies in the inbox"
    bench.chain.close()
    assert all(model.closed.is_set() for models in box.models.values() for model in models)


def test_the_keeper_of_a_started_chain_works_in_a_thread_of_its_own(tmp_path: Path, box: Box) -> None:
    spec = ChainSpec("pump", sum_model(tmp_path / "m.onnx"), ("npu:x", "cpu:x"), allow_unsigned=True)
    serving = load_chain(spec, FakeClock(), find=box.find)
    assert serving.rung == "npu:x"
    chain = serving.chain
    chain.start()
    chain.start()
    until(lambda: [rung.state for rung in chain.state.rungs] == ["ready", "ready"], "the next rung is warm")
    chain.close()
    assert all(model.closed.is_set() for models in box.models.values() for model in models)


def _names(switches: Sequence[Switched]) -> list[str]:
    return [switch.after for switch in switches]


def test_switches_that_nobody_asks_for_do_not_pile_up(tmp_path: Path, box: Box) -> None:
    bench = Bench(tmp_path, box, limits=LIMITS._replace(restarts_count=10_000)).turn()
    for _ in range(600):
        bench.fall("npu", "device_unavailable")
        while bench.chain.state.serving != 0:
            bench.turn(after_s=700)
    assert len(_names(bench.chain.take_switches())) <= 1000


async def test_a_call_in_a_thread_that_never_returns_costs_one_answer_and_the_next_rung_goes_on(
    tmp_path: Path, box: Box
) -> None:
    bench = await asyncio.to_thread(lambda: Bench(tmp_path, box).turn())
    stuck = box.newest("npu")
    assert isinstance(stuck, Repeating)
    stuck.hang = Event()
    answers: list[str] = []

    def done(outcome: Batch | InferenceError, _infer_us: int, info: ModelInfo | None) -> None:
        answers.append(outcome.code if isinstance(outcome, InferenceError) else info.runtime if info else "")

    lane = Lane(
        "pump",
        bench.model,
        reload=bench.chain.renew,
        clock=bench.clock,
        post=asyncio.get_running_loop().call_soon_threadsafe,
        limits=LaneLimits(stuck_after_s=5),
    )
    for _ in range(3):
        lane.submit(ONE, done)
    await asyncio.to_thread(stuck.entered.wait, 10)
    bench.clock.advance_s(6)
    assert lane.check(bench.clock.mono_ns())
    async with asyncio.timeout(10):
        while len(answers) < 3:
            await asyncio.sleep(0.001)
    assert answers == ["infer_timeout", "cpu:x", "cpu:x"]
    await asyncio.to_thread(bench.turn)
    assert not stuck.closed.is_set(), "it is still in its call"
    stuck.hang.set()
    async with asyncio.timeout(10):
        while lane.stats().abandoned:
            await asyncio.sleep(0.001)
    await asyncio.to_thread(bench.turn)
    assert stuck.closed.is_set()
    await asyncio.to_thread(lane.close, 10)
    await asyncio.to_thread(bench.chain.close)
