"""The larger model is asked about what the small one is unsure of; whatever happens to it, the small answer stands."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged.errors import InferenceError
from edged.infer.aside import STUCK_WAITS, THREADS_LEFT_BEHIND, Aside
from edged.infer.cascade import CascadeModel, CascadeSpec, Renaming, UpstreamModel
from edged.infer.chain import ChainSpec, load_chain
from edged.infer.notes import Note, NotedOutputs
from edged.messages import ModelInfo, TensorSpec
from edged.policy.cascade import Band
from edged.ports import Model
from tests.doubles.clock import FakeClock
from tests.unit.infer.models import save

SPEC = CascadeSpec(Band(0.2, 0.7), 10.0, 5.0)


class Scorer:
    """Scores each row with itself plus `offset`; `gate` holds a call back, `error` fails it."""

    def __init__(self, name: str, offset: float = 0.0, *, output: str = "y") -> None:
        spec = (TensorSpec("x", "float32", (-1, 1)),)
        self.info = ModelInfo(name, "1", name * 8, f"{name}:cpu", spec, (TensorSpec(output, "float32", (-1, 1)),))
        self.offset = offset
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.asked: list[list[float]] = []
        self.failing: Sequence[int] = ()
        self.closed = threading.Event()

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        rows = batch["x"]
        self.asked.append(rows[:, 0].tolist())
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        outputs = {self.info.outputs[0].name: rows + np.float32(self.offset)}
        if not self.failing:
            return outputs
        return NotedOutputs(outputs, [Note(failed="bad_image" if n in self.failing else "") for n in range(len(rows))])

    def close(self) -> None:
        self.closed.set()


def first_column(outputs: Mapping[str, np.ndarray], count: int) -> list[float | None]:
    (array,) = outputs.values()
    assert len(array) == count
    return [float(value) for value in array[:, 0]]


@contextmanager
def cascade(small: Model, larger: Model, spec: CascadeSpec = SPEC, clock: FakeClock | None = None) -> Iterator[Model]:
    made = CascadeModel(small, Aside("larger", lambda: larger), spec, first_column, clock or FakeClock())
    yield made
    made.close()


def ask(model: Model, *rows: float) -> tuple[list[float], list[Note]]:
    outputs = model.infer({"x": np.array(rows, np.float32)[:, np.newaxis]}, deadline_s=1)
    notes = list(outputs.notes) if isinstance(outputs, NotedOutputs) else []
    (array,) = outputs.values()
    return np.round(array[:, 0].astype(np.float64), 3).tolist(), notes


def test_only_what_the_small_model_is_unsure_of_is_asked_and_each_row_says_who_answered() -> None:
    small, larger = Scorer("s"), Scorer("l", 0.3, output="other name")
    with cascade(small, larger) as model:
        answers, notes = ask(model, 0.9, 0.5, 0.1, 0.25)
        assert answers == [0.9, 0.8, 0.1, 0.55]
        assert [note.info for note in notes] == [None, larger.info, None, larger.info]
        assert larger.asked == [[0.5, 0.25]]
        assert model.info is small.info
    assert small.closed.is_set()
    assert larger.closed.wait(20)


def test_answers_that_are_all_sure_come_as_the_small_model_gave_them() -> None:
    larger = Scorer("l")
    with cascade(Scorer("s"), larger) as model:
        assert ask(model, 0.9, 0.8) == ([0.9, 0.8], [])
    assert larger.asked == []


def test_beyond_the_budget_the_small_answer_stands_and_says_so_until_time_has_passed() -> None:
    clock, larger = FakeClock(), Scorer("l", 0.3)
    with cascade(Scorer("s"), larger, SPEC._replace(max_per_s=1.0), clock) as model:
        answers, notes = ask(model, 0.5, 0.6)
        assert answers == [0.8, 0.6]
        assert [note.reasons for note in notes] == [(), ("escalation_shed",)]
        assert ask(model, 0.5)[1][0].reasons == ("escalation_shed",)
        clock.advance_s(1)
        assert ask(model, 0.5)[0] == [0.8]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InferenceError("infer_failed", "no"), "escalation_failed"),
        (InferenceError("upstream_away", "no"), "escalation_failed"),
        (InferenceError("upstream_timeout", "no"), "escalation_late"),
        (RuntimeError("a plug-in"), "escalation_failed"),
    ],
)
def test_when_the_larger_model_fails_the_small_answer_stands_and_says_so(error: Exception, reason: str) -> None:
    larger = Scorer("l", 0.3)
    larger.error = error
    with cascade(Scorer("s"), larger) as model:
        assert ask(model, 0.5, 0.9) == ([0.5, 0.9], [Note(reasons=(reason,)), Note()])
        larger.error = None
        assert ask(model, 0.5)[0] == [0.8]


def test_a_larger_model_with_other_outputs_fails_and_one_with_more_of_them_too() -> None:
    class Odd(Scorer):
        def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
            outputs = dict(super().infer(batch, deadline_s=deadline_s))
            return outputs | {"z": outputs["y"]} if self.offset else {"y": np.ones((len(batch["x"]), 2))}

    for offset in (0.0, 1.0):
        with cascade(Scorer("s"), Odd("l", offset)) as model:
            assert ask(model, 0.5) == ([0.5], [Note(reasons=("escalation_failed",))])


def test_a_row_that_the_larger_model_cannot_read_keeps_the_small_answer_and_unreadable_ones_are_not_asked() -> None:
    small, larger = Scorer("s"), Scorer("l", 0.3)
    small.failing, larger.failing = [0], [1]
    with cascade(small, larger) as model:
        answers, notes = ask(model, 0.3, 0.4, 0.5)
    assert larger.asked == [[pytest.approx(0.4), 0.5]]
    assert answers == [0.3, 0.7, 0.5]
    assert notes == [Note(failed="bad_image"), Note(larger.info), Note(reasons=("escalation_failed",))]


def test_a_late_answer_is_not_waited_for_and_nothing_is_asked_until_it_came() -> None:
    larger = Scorer("l", 0.3)
    larger.gate = threading.Event()
    with cascade(Scorer("s"), larger, SPEC._replace(deadline_s=0.01, max_per_s=100.0)) as model:
        assert ask(model, 0.5) == ([0.5], [Note(reasons=("escalation_late",))])
        assert ask(model, 0.6)[1] == [Note(reasons=("escalation_late",))]
        assert len(larger.asked) <= 1
        larger.gate.set()


def test_calls_that_never_return_are_left_behind_a_few_times_and_then_nothing_is_asked() -> None:
    gate = threading.Event()
    made: list[Scorer] = []

    def make() -> Model:
        made.append(Scorer("l"))
        made[-1].gate = gate
        return made[-1]

    aside = Aside("larger", make)
    batch = {"x": np.ones((1, 1), np.float32)}
    for _ in range((THREADS_LEFT_BEHIND + 2) * STUCK_WAITS):
        with pytest.raises(InferenceError) as caught:
            aside.ask(batch, 0.001)
        assert caught.value.code == "infer_timeout"
    gate.set()
    aside.close()
    for scorer in made:
        assert scorer.closed.wait(20)
    assert 1 <= len(made) <= THREADS_LEFT_BEHIND + 1


def test_what_is_closed_is_not_asked() -> None:
    aside = Aside("larger", lambda: Scorer("l"))
    aside.close()
    with pytest.raises(InferenceError) as caught:
        aside.ask({"x": np.ones((1, 1), np.float32)}, 1)
    assert caught.value.code == "closed"


def test_inputs_get_the_names_of_the_larger_model_by_their_order() -> None:
    inner = Scorer("l")
    renamed = Renaming(inner, ["theirs"])
    assert renamed.infer({"theirs": np.ones((1, 1), np.float32)}, deadline_s=1)["y"].tolist() == [[1.0]]
    assert Renaming(inner, ["x"]).infer({"x": np.ones((1, 1), np.float32)}, deadline_s=1)["y"].tolist() == [[1.0]]
    assert renamed.info is inner.info
    renamed.close()
    assert inner.closed.is_set()


def test_the_upstream_is_asked_by_digest_and_says_that_it_answered() -> None:
    class Centre:
        def __init__(self) -> None:
            self.asked: list[tuple[str, float]] = []
            self.closed = False

        def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
            self.asked.append((digest, deadline_s))
            return {"y": tensors["x"] * 0 + 1}

        def close(self) -> None:
            self.closed = True

    centre, small = Centre(), Scorer("s")
    larger = UpstreamModel(centre, "a" * 64, small.info)
    with cascade(small, larger, SPEC._replace(deadline_s=7.0)) as model:
        answers, (note,) = ask(model, 0.5)
        assert answers == [1.0]
        assert note.info is not None
        assert (note.info.model, note.info.sha256, note.info.runtime) == ("upstream", "a" * 64, "upstream")
    assert centre.asked == [("a" * 64, 7.0)]
    larger.close()
    assert centre.closed


def shifted(path: Path, by: float) -> Path:
    shift = numpy_helper.from_array(np.array([by], np.float32), "by")
    shape = {"x": (TensorProto.FLOAT, ["n", 1])}, {"y": (TensorProto.FLOAT, ["n", 1])}
    return save(path, [helper.make_node("Add", ["x", "by"], ["y"])], *shape, initializer=[shift])


def test_two_real_models_make_a_cascade(tmp_path: Path) -> None:
    clock = FakeClock()

    def loaded(name: str, by: float) -> Model:
        spec = ChainSpec("p", shifted(tmp_path / f"{name}.onnx", by), ("onnxruntime:cpu",), allow_unsigned=True)
        model = load_chain(spec, clock).model
        assert model is not None
        return model

    with cascade(loaded("small", 0.0), loaded("large", 0.25), SPEC, clock) as model:
        answers, notes = ask(model, 0.9, 0.5)
    assert answers == [0.9, 0.75]
    assert notes[1].info is not None
    assert (notes[1].info.model, notes[1].info.runtime) == ("large", "onnxruntime:cpu")
