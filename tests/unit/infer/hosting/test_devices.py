"""A model in a process of its own looks like any loaded model; processes begin, are shared, replaced and ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.hosting.devices import Devices, DeviceStats
from edged.infer.hosting.model import HostedModel
from edged.infer.loading import ModelFile
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.ports import Model
from tests.doubles import worker_runtimes as scripted
from tests.doubles.waiting import until
from tests.doubles.worker_runtimes import batch_of
from tests.unit.infer.hosting.conftest import MakeDevices

OPTIONS = LoadOptions()
RUNG = "scripted:plain"


class Notes:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    warning = info


def stats(devices: Devices, rung: str = RUNG) -> DeviceStats:
    return next(each for each in devices.statistics() if each.rung == rung)


def answers(model: Model, what: float = 2) -> bool:
    return bool(model.infer(batch_of(what), deadline_s=5)["y"].tolist() == [4 * what])


@contextmanager
def held(model: Model) -> Iterator[None]:
    """Meanwhile somebody else has a turn on the process of `model`."""
    assert isinstance(model, HostedModel)
    with model.process.lock:
        yield


def test_a_real_runtime_answers_the_same_in_a_process_of_its_own(devices: Devices, file: ModelFile) -> None:
    here = find_runtime("onnxruntime").load(file, "cpu", OPTIONS)
    there = devices.load("onnxruntime:cpu", file, OPTIONS)
    batch = {"x": np.random.default_rng(1).random((7, 4), np.float32)}
    assert there.info == here.info
    assert np.array_equal(there.infer(batch, deadline_s=5)["y"], here.infer(batch, deadline_s=5)["y"])
    pid = stats(devices, "onnxruntime:cpu").pid
    assert pid != os.getpid()
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 500, "it goes before the daemon"


def test_models_of_one_device_share_its_process_and_devices_do_not(devices: Devices, file: ModelFile) -> None:
    first, second = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)
    other = devices.load("scripted:other", file, OPTIONS)
    assert answers(first)
    assert answers(second, 3)
    assert answers(other)
    shared, alone = stats(devices), stats(devices, "scripted:other")
    assert (shared.models, shared.calls, shared.state, shared.restarts) == (2, 2, "up", 0)
    assert (alone.models, alone.calls) == (1, 1)
    assert shared.pid != alone.pid


def test_a_rung_without_a_device_means_the_processor(devices: Devices, file: ModelFile) -> None:
    assert devices.load("scripted", file, OPTIONS).info.runtime == "scripted:cpu"


def test_a_batch_may_have_any_number_of_rows_and_the_slots_grow_with_it(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    for rows in (1, 0, 5, 300_000, 2):
        assert model.infer(batch_of(1, rows), deadline_s=10)["y"].tolist() == [4] * rows
    big = model.infer(batch_of(scripted.BIG), deadline_s=10)["y"]
    assert np.array_equal(big, np.arange(scripted.BIG_BYTES, dtype=np.uint8))


def test_a_model_with_a_fixed_batch_is_freed_on_the_other_side(devices: Devices, file: ModelFile) -> None:
    model = devices.load("scripted:fixed", file, OPTIONS)
    assert model.info.inputs[0].shape == (-1, -1)
    assert model.infer(batch_of(1, 5), deadline_s=5)["y"].tolist() == [4] * 5
    assert stats(devices, "scripted:fixed").calls == 1


def test_a_model_whose_batch_cannot_be_freed_is_refused_and_the_process_goes_on(
    devices: Devices, file: ModelFile
) -> None:
    with pytest.raises(ModelError) as caught:
        devices.load("scripted:scalar", file, OPTIONS)
    assert caught.value.code == "incompatible"
    assert (stats(devices, "scripted:scalar").models, stats(devices, "scripted:scalar").state) == (0, "up")


def test_outputs_are_the_callers_own(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    first = model.infer(batch_of(1), deadline_s=5)["y"]
    model.infer(batch_of(2), deadline_s=5)
    assert first.tolist() == [4]


def test_a_deadline_may_be_as_far_as_anybody_likes(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    assert model.infer(batch_of(1), deadline_s=float("inf"))["y"].tolist() == [4]


def test_a_scalar_answer_arrives_as_an_array(devices: Devices, file: ModelFile) -> None:
    answer = devices.load(RUNG, file, OPTIONS).infer(batch_of(scripted.SCALAR), deadline_s=5)["y"]
    assert (answer.shape, answer.item()) == ((), 5)


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        (scripted.FAIL, "infer_failed", "scripted infer_failed"),
        (scripted.REFUSE, "invalid_input", "scripted invalid_input"),
        (scripted.RAISE, "infer_failed", "unexpected ZeroDivisionError: a bug of the plug-in"),
        (scripted.TEXTS, "infer_failed", "which no model takes"),
        (scripted.OTHER_NAMES, "infer_failed", "expected the outputs ['y'], got ['z']"),
    ],
)
def test_an_error_of_one_call_arrives_as_it_was_raised_and_the_process_serves_on(
    devices: Devices, file: ModelFile, what: float, code: str, says: str
) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    before = stats(devices).pid
    with pytest.raises(InferenceError) as caught:
        model.infer(batch_of(what), deadline_s=5)
    assert caught.value.code == code
    assert says in caught.value.message
    if what == scripted.FAIL:
        assert (caught.value.hint, caught.value.retryable) == ("a scripted hint", True)
    assert answers(model)
    assert stats(devices).pid == before


@pytest.mark.parametrize(
    "batch",
    [
        {"x": np.array([["text"]])},
        {"x" * 70_000: np.zeros((1, 4), np.float32)},
        {"x": np.zeros((1, 1 << 20), np.uint8)},
    ],
    ids=["type", "name", "size"],
)
def test_inputs_that_cannot_be_handed_over_are_refused_here(
    make_devices: MakeDevices, file: ModelFile, batch: dict[str, np.ndarray]
) -> None:
    model = make_devices(slot_bytes=1 << 19).load(RUNG, file, OPTIONS)
    with pytest.raises(InferenceError) as caught:
        model.infer(batch, deadline_s=5)
    assert caught.value.code == "invalid_input"
    assert answers(model)


@pytest.mark.parametrize(
    ("device", "code"), [("refuse", "unsupported"), ("raise", "load_failed"), ("no_memory", "out_of_memory")]
)
def test_a_load_that_fails_arrives_as_it_was_raised(devices: Devices, file: ModelFile, device: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        devices.load(f"scripted:{device}", file, OPTIONS)
    assert caught.value.code == code


@pytest.mark.parametrize(("rung", "code"), [("abacus:cpu", "runtime_unknown"), ("broken:cpu", "runtime_unavailable")])
def test_a_runtime_that_is_not_there_is_said_by_the_child(
    devices: Devices, file: ModelFile, rung: str, code: str
) -> None:
    with pytest.raises(ModelError) as caught:
        devices.load(rung, file, OPTIONS)
    assert caught.value.code == code
    assert devices.probe(rung).code == code


def test_a_closed_model_answers_no_more_and_leaves_its_neighbour_alone(devices: Devices, file: ModelFile) -> None:
    closed, neighbour = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)
    closed.close()
    closed.close()
    with pytest.raises(InferenceError) as caught:
        closed.infer(batch_of(1), deadline_s=5)
    assert caught.value.code == "closed"
    assert answers(neighbour)
    assert stats(devices).models == 1


def test_who_gets_no_turn_before_the_deadline_is_told_so_and_nothing_is_ended(
    devices: Devices, file: ModelFile
) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    for deadline_s in (0.05, 0.0, -1.0):
        with held(model), pytest.raises(InferenceError) as caught:
            model.infer(batch_of(1), deadline_s=deadline_s)
        assert caught.value.code == "device_busy"
    assert answers(model)


def test_a_model_that_is_closed_while_another_calls_is_unloaded_later(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    devices = make_devices(unload_s=0.05)
    model, other = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)
    with held(other):
        model.close()
        assert stats(devices).models == 2
        assert devices.check() == (), "a busy process is not asked"
    assert devices.check() == ()
    assert stats(devices).models == 1
    assert answers(other)


def test_a_model_that_was_closed_while_it_waited_does_not_call(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    assert isinstance(model, HostedModel)
    codes = []

    def call() -> None:
        try:
            model.infer(batch_of(1), deadline_s=10)
        except InferenceError as error:
            codes.append(error.code)

    thread = threading.Thread(target=call)
    with held(model):
        thread.start()
        model.closed = True
    thread.join(10)
    assert codes == ["closed"]


# --- memory ---


def test_too_little_memory_is_refused_with_figures_before_anything_starts(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    devices = make_devices(available_bytes=lambda: 100 << 20)
    with pytest.raises(ModelError, match="takes about 96 MiB and must leave 64 MiB, 100 MiB are free") as caught:
        devices.load(RUNG, file, OPTIONS)
    assert caught.value.code == "no_memory"
    assert stats(devices)._replace(rung="") == DeviceStats("", "down", 0, 0, 0, 0, 0)


def test_a_process_that_is_there_needs_only_the_model(make_devices: MakeDevices, file: ModelFile) -> None:
    free = [1 << 30, 100 << 20, 10 << 20]
    devices = make_devices(available_bytes=lambda: free.pop(0))
    devices.load(RUNG, file, OPTIONS)
    devices.load(RUNG, file, OPTIONS)
    with pytest.raises(ModelError, match="10 MiB are free"):
        devices.load(RUNG, file, OPTIONS)
    assert stats(devices).models == 2


# --- probes and preparations ---


def test_a_probe_runs_in_a_process_of_its_own_and_leaves_none(devices: Devices, file: ModelFile) -> None:
    probe = devices.probe(RUNG)
    assert (probe.usable, probe.devices[0].kind) == (True, "scripted")
    assert devices.statistics() == ()


@pytest.mark.parametrize(
    ("device", "code", "says"),
    [
        ("crash", "runtime_unavailable", "SIGABRT"),
        ("hang", "device_unavailable", "no answer in time"),
        ("raise", "runtime_unavailable", "unexpected ZeroDivisionError"),
        ("refuse", "unsupported", "scripted refusal"),
    ],
)
def test_a_probe_that_goes_wrong_is_an_answer(devices: Devices, device: str, code: str, says: str) -> None:
    probe = devices.probe(f"scripted:{device}", timeout_s=1)
    assert (probe.usable, probe.code) == (False, code)
    assert says in probe.reason


def test_a_device_that_we_hold_alone_is_not_probed_beside_us(devices: Devices, file: ModelFile) -> None:
    devices.load("scripted:exclusive", file, OPTIONS)
    probe = devices.probe("scripted:exclusive")
    assert probe.usable
    assert str(stats(devices, "scripted:exclusive").pid) in probe.reason


def test_a_preparation_runs_at_low_priority_and_its_result_stays(
    devices: Devices, file: ModelFile, tmp_path: Path
) -> None:
    devices.prepare(RUNG, file, LoadOptions(cache=tmp_path), 10)
    assert int((tmp_path / "engine").read_text()) >= 15


@pytest.mark.parametrize(
    ("device", "code"),
    [("crash", "prepare_failed"), ("hang", "prepare_failed"), ("raise", "prepare_failed"), ("refuse", "unsupported")],
)
def test_a_preparation_that_goes_wrong_says_why(devices: Devices, file: ModelFile, device: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        devices.prepare(f"scripted:{device}", file, OPTIONS, 1)
    assert caught.value.code == code


# --- replacing ---


def test_a_process_is_due_after_many_calls_or_when_it_has_grown(make_devices: MakeDevices, file: ModelFile) -> None:
    by_calls = make_devices(recycle_calls=3)
    model = by_calls.load(RUNG, file, OPTIONS)
    assert by_calls.due() == ()
    assert all(answers(model) for _ in range(3))
    assert by_calls.due() == (RUNG,)
    by_size = make_devices(recycle_rss_bytes=1 << 20)
    by_size.load(RUNG, file, OPTIONS)
    by_size.check()
    assert by_size.due() == (RUNG,)
    assert stats(by_size).rss_bytes > 1 << 20


def test_a_successor_takes_over_between_two_calls_and_no_input_is_missed(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    notes = Notes()
    devices = make_devices(recycle_calls=1, log=notes)
    models = [devices.load(RUNG, file, OPTIONS) for _ in range(2)]
    before = stats(devices).pid
    stop, missed, answered = threading.Event(), [], [0, 0]

    def call(at: int) -> None:
        while not stop.is_set():
            try:
                answered[at] += answers(models[at])
            except InferenceError as error:
                missed.append(error)

    threads = [threading.Thread(target=call, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    pids = {before}
    for _ in range(3):
        assert devices.recycle(RUNG)
        pids.add(stats(devices).pid)
        reached = sum(answered) + 20
        until(lambda: sum(answered) > reached, "the successor answers")  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(10)
    assert missed == []
    assert len(pids) == 4
    assert stats(devices).calls == sum(answered)
    assert (stats(devices).models, stats(devices).restarts) == (2, 3)
    until(lambda: not Path(f"/proc/{before}").exists(), "the old process has ended")
    assert [event for event, _ in notes.lines].count("device_process_replaced") == 3


def test_a_successor_that_does_not_prove_itself_is_not_taken(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    before = stats(devices).pid

    def prove(serving: Model, successor: Model) -> None:
        assert serving is model
        assert answers(successor)
        raise ModelError("golden_mismatch", "it answers otherwise")

    with pytest.raises(ModelError, match="answers otherwise"):
        devices.recycle(RUNG, prove)
    assert answers(model)
    assert stats(devices).pid == before


def test_a_successor_whose_model_file_has_changed_is_not_taken(devices: Devices, file: ModelFile) -> None:
    model = devices.load("onnxruntime:cpu", file, OPTIONS)
    file.path.write_bytes(b"other")
    with pytest.raises(ModelError) as caught:
        devices.recycle("onnxruntime:cpu")
    assert caught.value.code == "changed"
    assert answers(model)


def test_a_device_for_one_process_only_is_not_replaced_and_neither_is_an_empty_one(
    devices: Devices, file: ModelFile
) -> None:
    alone = devices.load("scripted:exclusive", file, OPTIONS)
    assert not devices.recycle("scripted:exclusive")
    assert answers(alone)
    assert not devices.recycle("scripted:never")
    devices.load(RUNG, file, OPTIONS).close()
    assert not devices.recycle(RUNG)


def test_a_process_that_could_not_be_replaced_is_not_due_at_once(make_devices: MakeDevices, file: ModelFile) -> None:
    rung = "scripted:exclusive"
    devices = make_devices(recycle_calls=1)
    model = devices.load(rung, file, OPTIONS)
    assert answers(model)
    assert devices.due() == (rung,)
    assert not devices.recycle(rung)
    assert devices.due() == ()


def test_a_model_that_is_closed_while_its_successor_loads_is_closed_there_too(
    devices: Devices, file: ModelFile
) -> None:
    closing, other = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)

    def prove(serving: Model, successor: Model) -> None:
        if serving is closing:
            closing.close()

    assert devices.recycle(RUNG, prove)
    devices.check()
    assert stats(devices).models == 1
    assert answers(other)


# --- ends ---


def test_a_process_without_a_model_ends_after_a_while_and_the_next_load_starts_one(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    devices = make_devices(idle_end_s=0.0)
    model = devices.load(RUNG, file, OPTIONS)
    devices.check()
    assert stats(devices).state == "up", "it has a model"
    model.close()
    assert devices.check() == (), "an end that was meant is no news"
    until(lambda: stats(devices).state == "down", "it has ended")
    assert answers(devices.load(RUNG, file, OPTIONS))
    assert stats(devices).restarts == 1


def test_closing_ends_everything_and_later_calls_and_loads_are_told(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    pid = stats(devices).pid
    devices.close(10)
    assert not Path(f"/proc/{pid}").exists()
    assert stats(devices)._replace(detail="") == DeviceStats(RUNG, "down", 0, 0, 0, 0, 0, "closed")
    with pytest.raises(InferenceError) as refused:
        model.infer(batch_of(1), deadline_s=1)
    assert refused.value.code == "closed"
    with pytest.raises(ModelError) as caught:
        devices.load(RUNG, file, OPTIONS)
    assert caught.value.code == "closed"
    model.close()
    devices.close(1)


def test_a_running_call_is_answered_before_its_process_ends(make_devices: MakeDevices, file: ModelFile) -> None:
    devices = make_devices(grace_s=10.0)
    model = devices.load(RUNG, file, OPTIONS)
    got = []
    thread = threading.Thread(target=lambda: got.append(model.infer(batch_of(scripted.WAIT), deadline_s=10)))
    thread.start()
    until(file.path.with_suffix(".called").exists, "the call runs")
    devices.close(10)
    thread.join(10)
    assert got
