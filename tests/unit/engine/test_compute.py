"""The chain in the engine: no gap between a fall and the mode, and each result says who computed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from edged.engine.compute import Compute
from edged.engine.runner_parts import RunnerParts
from edged.engine.stand_in import StandIn, StandInSpec
from edged.errors import ModelError
from edged.infer.chain import Chain, ChainSpec
from edged.infer.proof import Live
from edged.infer.rules import Rule
from edged.infer.runtime import PlainRuntime, Runtime
from edged.messages import ModelInfo, TensorSpec
from edged.ops.logs import Log
from edged.pipeline.assemble import Assembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import InputSpec, OutputSpec
from edged.policy.chain import Limits
from tests.doubles.engine_rig import HandLane, MeanModel, Rig
from tests.unit.infer.models import sum_model

QUICK = Limits(retry_first_s=1, return_probes=1, probe_every_s=1, return_after_s=0)
HOT = (Rule("hot", 0, above=5.0), Rule("cold", 0, below=-5.0))


def aside(work: Callable[[float], None], wait_s: float) -> None:
    """What the keeper does in its own thread: it may block there."""
    thread = Thread(target=work, args=(wait_s,))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


class Rung(MeanModel):
    """Fails with `fail`, all calls; `parity` does not notice, since every rung answers alike."""

    def __init__(self, name: str) -> None:
        super().__init__(1)
        info: ModelInfo = self.info
        self.info = info._replace(runtime=f"{name}:x", inputs=(TensorSpec("x", "float32", (-1, 1)),))


class Plant:
    """A rig whose runner has a chain of two rungs; the test pumps its keeper."""

    def __init__(self, folder: Path, *, stand_in: StandInSpec | None = None, present: bool = True, **rig: Any) -> None:
        self.rig = Rig(usable=present, **rig)
        self.rungs = {name: Rung(name) for name in ("npu", "cpu")}
        self.absent: set[str] = set() if present else {"npu", "cpu"}
        spec = ChainSpec("p", sum_model(folder / "m.onnx"), ("npu:x", "cpu:x"), allow_unsigned=True, limits=QUICK)
        self.chain = Chain(spec, self.rig.clock, find=self._find, spawn=lambda _name, work: work())
        aside(self.chain.settle, 1)
        self.compute = Compute(
            self.rig.modes, self.rig.engine.parts.metrics.registry,
            Log(self.rig.clock, write=self.rig.lines.append, journal=False),
        )  # fmt: skip
        runner = self.rig.runner
        model = self.chain.model() if present else None
        runner.parts = runner.parts._replace(
            model=model, chain=self.chain, degraded=False,
            stand_in=StandIn(stand_in, "p") if stand_in is not None else None,
            info=self.chain.nobody if model is None else model.info,
        )  # fmt: skip
        runner.models = (runner.parts,)
        runner._wanted = runner.parts
        runner.info = runner.parts.info
        self.rig.present.computed = self.compute.computed
        self.rig.present.attend = self.compute.attend

    def _find(self, name: str) -> Runtime:
        def load(_model: Any, _device: str, _options: Any) -> Rung:
            if name in self.absent:
                raise ModelError("device_unavailable", "unplugged")
            return self.rungs[name]

        return PlainRuntime(name, load)

    def keep(self, after_s: float = 0.0) -> None:
        """Time passes; the keeper, then the upkeep look at it."""
        self.rig.clock.advance_s(after_s)
        for _ in range(6):
            aside(self.chain.pump, 0)
        self.rig.upkeep.tick()

    async def event(self, seq: int, a: float = 1.0) -> dict[str, Any]:
        """The result of one event."""
        self.rig.event(seq, a)
        await self.rig.engine.settled()
        return self.rig.results()[-1]

    def codes(self) -> set[str]:
        return set(self.rig.modes.state.codes) - {"clock_unsynced", "broker_away"}


async def test_the_first_result_of_the_fallback_is_degraded_and_the_mode_says_so(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    await plant.rig.start()
    plant.keep()
    first = await plant.event(0)
    assert (first["runtime"], first["degraded"], first["mode"]) == ("npu:x", False, "normal")
    plant.rungs["npu"].fail = "worker_crashed"
    second = await plant.event(1)
    assert (second["runtime"], second["degraded"], second["mode"]) == ("cpu:x", True, "degraded")
    assert plant.codes() == {"fallback_runtime"}
    plant.keep()
    assert plant.codes() == {"fallback_runtime", "accelerator_lost"}
    (reason,) = [reason for reason in plant.rig.modes.state.reasons if reason.code == "fallback_runtime"]
    assert "npu:x: worker_crashed" in reason.detail


async def test_after_the_return_the_mode_comes_back_also_when_nothing_arrives(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    await plant.rig.start()
    plant.keep()
    await plant.event(0)
    plant.rungs["npu"].fail = "worker_crashed"
    await plant.event(1)
    plant.rungs["npu"].fail = ""
    for _ in range(20):
        plant.keep(after_s=1)
    assert plant.codes() == set()
    last = await plant.event(2)
    assert (last["runtime"], last["degraded"], last["mode"]) == ("npu:x", False, "normal")
    assert {labels: cell.value for labels, cell in plant.compute.switches.cells.items()} == {
        ("p", "none", "npu:x", "loaded"): 1,
        ("p", "npu:x", "cpu:x", "worker_crashed"): 1,
        ("p", "cpu:x", "npu:x", "returned"): 1,
    }
    assert any("runtime_switched" in line and "returned" in line for line in plant.rig.lines)
    rungs = plant.rig.runner.report()["chain"]
    assert isinstance(rungs, list)
    assert [(rung["rung"], rung["state"]) for rung in rungs] == [("npu:x", "serving"), ("cpu:x", "ready")]


async def test_when_no_rung_can_answer_results_are_bad_and_say_that_nothing_computed(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    await plant.rig.start()
    plant.keep()
    plant.rungs["npu"].fail = plant.rungs["cpu"].fail = "device_lost"
    await plant.event(0)
    result = await plant.event(1)
    assert (result["quality"], result["quality_reasons"], result["runtime"]) == (0, ["model_unusable"], "none")
    assert (plant.rig.modes.mode, plant.rig.runner.failed) == ("safe", 2)


async def test_a_bad_input_is_no_reason_for_rules_or_another_mode(tmp_path: Path) -> None:
    plant = Plant(tmp_path, stand_in=StandInSpec(HOT))
    await plant.rig.start()
    plant.keep()
    plant.rungs["npu"].fail = "invalid_input"
    result = await plant.event(0, a=9.0)
    assert (result["quality"], result["quality_reasons"]) == (0, ["invalid_input"])
    assert plant.codes() == set()


async def test_rules_answer_over_what_the_sensor_sent_when_no_rung_can(tmp_path: Path) -> None:
    plant = Plant(tmp_path, stand_in=StandInSpec(HOT))
    await plant.rig.start()
    plant.keep()
    plant.rungs["npu"].fail = plant.rungs["cpu"].fail = "device_lost"
    answers = [await plant.event(seq, a) for seq, a in enumerate((9.0, -9.0, 0.0))]
    assert [(one["label"], one["quality"], one["quality_reasons"], one["runtime"]) for one in answers] == [
        ("hot", 64, ["rules_serving"], "rules"),
        ("cold", 64, ["rules_serving"], "rules"),
        ("normal", 64, ["rules_serving"], "rules"),
    ]
    assert {one["mode"] for one in answers} == {"rules"}
    plant.keep()
    assert plant.rig.modes.mode == "rules"


async def test_the_last_good_answer_of_a_device_is_repeated_for_a_while(tmp_path: Path) -> None:
    plant = Plant(tmp_path, stand_in=StandInSpec(last_good_s=60))
    await plant.rig.start()
    plant.keep()
    good = await plant.event(0, a=20.0)
    plant.rungs["npu"].fail = plant.rungs["cpu"].fail = "device_lost"
    again = await plant.event(1, a=0.0)
    assert (again["label"], again["score"]) == (good["label"], good["score"])
    assert (again["quality"], again["quality_reasons"], again["runtime"]) == (64, ["last_good"], "last_good")
    plant.rig.clock.advance_s(61)
    late = await plant.event(2)
    assert (late["quality"], late["quality_reasons"], late["label"]) == (0, ["model_unusable"], None)


async def test_an_outage_that_began_at_the_start_ends_without_a_restart(tmp_path: Path) -> None:
    plant = Plant(tmp_path, present=False)
    runner = plant.rig.runner

    def refit(parts: RunnerParts, live: Live) -> RunnerParts | None:
        if parts.model is not None:
            return None
        inputs = InputSpec(fields=("a",))
        return parts._replace(
            model=plant.chain.model(), info=live.info, width=1,
            assemble=Assembler(inputs, live.info.inputs),
            interpret=Postprocessor(OutputSpec(kind="classification", labels=("ok", "hot")), live.info.outputs),
        )  # fmt: skip

    runner.parts = runner.parts._replace(refit=refit)
    runner.models = (runner.parts,)
    runner._wanted = runner.parts
    await plant.rig.start()
    plant.keep()
    first = await plant.event(0)
    assert (first["quality"], first["mode"]) == (0, "safe")
    plant.absent.clear()
    plant.keep(after_s=2)
    result = await plant.event(1)
    assert (result["quality"], result["runtime"]) == (192, "npu:x")
    for _ in range(12):
        plant.keep(after_s=1)
    assert plant.codes() == set()


class Learnt:
    """Stands for a calibration: remembers what it was told to load."""

    def __init__(self) -> None:
        self.calibration = self
        self.loaded: list[bytes] = []

    def load(self, blob: bytes) -> None:
        self.loaded.append(blob)


@pytest.mark.parametrize("outage", [True, False], ids=["no model before", "the same model on a lane"])
async def test_what_was_learnt_before_an_outage_is_known_after_it_and_nothing_older(
    tmp_path: Path, outage: bool
) -> None:
    plant = Plant(tmp_path)
    runner = plant.rig.runner
    learnt: Any = Learnt()
    before = runner.parts._replace(
        interpret=None if outage else learnt, refit=lambda parts, _live: parts._replace(interpret=learnt, refit=None)
    )
    runner.parts, runner.models, runner._wanted = before, (before,), before
    runner._fold = {"calibration": b"of the snapshot"}
    runner.refit()
    loaded: list[bytes] = learnt.loaded
    assert runner.parts.interpret is learnt
    assert loaded == ([b"of the snapshot"] if outage else [])


async def test_events_of_another_length_that_came_before_the_model_are_refused_one_by_one(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.rig.runner.parts = plant.rig.runner.parts._replace(width=2)
    doubling: Any = _Doubling()
    ready: Any = [("d", 0, row, 1, "t", 1, 0, 1) for row in ROWS]
    inputs, unusable = plant.rig.runner._assembled(doubling, ready)
    assert unusable == [0, 2]
    assert inputs["x"].tolist() == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]


ROWS = [(1.0,), (1.0, 2.0), (1.0, 2.0, 3.0)]


class _Doubling:
    def assemble(self, blocks: Any) -> tuple[Mapping[str, np.ndarray], list[int]]:
        return {"x": np.array(blocks)}, [2]


async def test_a_slower_rung_with_a_lower_rate_skips_frames_and_counts_them(tmp_path: Path) -> None:
    plant = Plant(tmp_path, latest_only=True, lane=True)
    runner = plant.rig.runner
    assert isinstance(plant.rig.lane, HandLane)
    plant.rig.lane.model = runner.parts.model  # type: ignore[assignment]  # a chain in place of the double
    runner.parts = runner.parts._replace(rates_hz={"cpu:x": 2.0})
    runner.models = (runner.parts,)
    runner._wanted = runner.parts
    await plant.rig.start()
    plant.keep()
    for seq in range(3):
        await plant.rig.engine.settled()
        plant.rig.event(seq)
        await plant.rig.engine.settled()
        plant.rig.lane.answer()
    plant.rungs["npu"].fail = "device_lost"
    plant.rig.event(3)
    await plant.rig.engine.settled()
    plant.rig.lane.answer()
    for seq in range(4, 10):
        plant.rig.event(seq)
        await plant.rig.engine.settled()
        while plant.rig.lane.jobs:
            plant.rig.lane.answer()
    assert runner.skipped == 4, "one is computed at once, of those that wait the newest stays"
    plant.rig.clock.advance_s(0.5)
    plant.rig.upkeep.tick()
    plant.rig.lane.answer()
    await plant.rig.engine.settled()
    assert [one["input"]["seq"] for one in plant.rig.results()] == [0, 1, 2, 3, 4, 9]


async def test_a_call_is_as_large_as_the_rung_that_serves_can_take(tmp_path: Path) -> None:
    plant = Plant(tmp_path, lane=True)
    runner, lane = plant.rig.runner, plant.rig.lane
    assert isinstance(lane, HandLane)
    lane.model = runner.parts.model  # type: ignore[assignment]  # a chain in place of the double
    sizes = iter((4, 2))
    before = runner.parts._replace(batch_for=lambda _cost: next(sizes))
    runner.parts, runner.models, runner._wanted = before, (before,), before
    await plant.rig.start()
    plant.keep()
    for seq in range(20):
        plant.rig.event(seq)
    await plant.rig.engine.settled()
    plant.rungs["npu"].fail = "device_lost"
    given = []
    while lane.jobs:
        given.append(len(lane.jobs[0][0]["x"]))
        lane.answer()
        await plant.rig.engine.settled()
    assert sum(given) == 20
    assert given[-1] == 2, "once the slower rung serves, its calls are smaller"
    assert [one["input"]["seq"] for one in plant.rig.results()] == list(range(20))


# --- the stand-in alone ---


def test_a_waveform_has_no_newest_value_and_stays_unanswered() -> None:
    stand_in = StandIn(StandInSpec(HOT), "p")
    answers = stand_in.answer(["d", "e"], [(9.0,), (1.0, 2.0)], "device_lost", 0)
    assert (answers.label, answers.reasons) == (["hot", None], [("rules_serving",), ("device_lost",)])
    assert stand_in.answer(["d"], [(1.0, 2.0)], "device_lost", 0).label == [None]


def test_rules_look_at_the_newest_event_of_a_window() -> None:
    window = np.array([[1.0, 50.0], [2.0, 60.0], [9.0, 0.0]]).tobytes()
    stand_in = StandIn(StandInSpec((Rule("hot", 0, above=5.0),), fields=2), "p")
    assert stand_in.answer(["d"], [window], "x", 0).label == ["hot"]


def test_rules_that_are_all_that_is_configured_take_nothing_from_the_quality() -> None:
    answers = StandIn(StandInSpec(HOT, chosen=True), "p").answer(["d"], [(9.0,)], "model_unusable", 0)
    assert (answers.quality, answers.reasons) == ([192], [()])


@pytest.mark.parametrize("devices", [5, 8])
def test_only_so_many_devices_are_remembered_and_the_silent_ones_go_first(devices: int) -> None:
    stand_in = StandIn(StandInSpec(last_good_s=60, max_devices=5), "p")
    names = [f"d{number}" for number in range(devices)]
    good = StandIn(StandInSpec(HOT, chosen=True), "p").answer(names, [(9.0,)] * devices, "x", 0)
    stand_in.remember(names, good, 0)
    told = stand_in.answer(names, [(0.0,)] * devices, "x", 0)
    assert told.label == [None] * (devices - 5) + ["hot"] * 5
