"""A model proves itself before it serves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.loading import GoldenFile
from edged.infer.warmup import probe_inputs, warm_up
from edged.messages import TensorSpec
from edged.policy.batching import Cost
from tests.doubles.clock import FakeClock
from tests.doubles.runtime import StandInModel, rows_summed


def refusal(model: StandInModel, golden: GoldenFile | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        warm_up(model, FakeClock(), golden)
    return caught.value.code


def golden_file(path: Path, *, rtol: float = 1e-4, **arrays: np.ndarray) -> GoldenFile:
    """Arrays named in_x, out_y are stored as in.x, out.y."""
    np.savez(path, **{name.replace("_", ".", 1): array for name, array in arrays.items()})  # type: ignore[arg-type]
    return GoldenFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), rtol, rtol)


X = np.arange(8, dtype=np.float32).reshape(2, 4)


def test_the_cost_is_measured_with_one_and_with_many_items() -> None:
    clock = FakeClock()
    model = StandInModel(clock=clock, cost_us=(100, 10))
    cost = warm_up(model, clock)
    assert (round(cost.call_us), round(cost.item_us)) == (100, 10)
    assert sorted(set(model.calls)) == [1, 32]


def test_a_slow_model_is_measured_with_fewer_items() -> None:
    clock = FakeClock()
    model = StandInModel(clock=clock, cost_us=(0, 50_000))
    assert warm_up(model, clock) == Cost(0.0, 50_000.0)
    assert max(model.calls) == 4


def test_a_very_slow_model_is_measured_with_one_item_only() -> None:
    clock = FakeClock()
    model = StandInModel(clock=clock, cost_us=(0, 500_000))
    assert warm_up(model, clock) == Cost(0.0, 500_000.0)
    assert set(model.calls) == {1}


def test_a_model_that_does_not_answer_is_refused() -> None:
    assert refusal(StandInModel(script=[InferenceError("infer_failed", "scripted")])) == "warmup_failed"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_refuse_the_model(bad: float) -> None:
    model = StandInModel(script=[lambda batch: {"y": np.array([bad], np.float32)}])
    assert refusal(model) == "not_finite"


def test_a_model_that_answers_differently_each_time_is_refused() -> None:
    model = StandInModel(script=[rows_summed, lambda batch: {"y": np.array([7.5], np.float32)}])
    assert refusal(model) == "not_repeatable"


def test_golden_vectors_that_agree_let_the_model_serve(tmp_path: Path) -> None:
    golden = golden_file(tmp_path / "g.npz", in_x=X, out_y=X.sum(axis=1))
    model = StandInModel()
    warm_up(model, FakeClock(), golden)
    assert 2 in model.calls


@pytest.mark.parametrize(
    "expected", [X.sum(axis=1) + 0.1, X.sum(axis=1)[:1], np.full(2, np.nan, np.float32)], ids=["value", "shape", "nan"]
)
def test_golden_vectors_that_disagree_refuse_the_model(tmp_path: Path, expected: np.ndarray) -> None:
    golden = golden_file(tmp_path / "g.npz", rtol=1e-6, in_x=X, out_y=expected)
    assert refusal(StandInModel(), golden) == "golden_mismatch"


def test_an_output_that_the_model_does_not_have_refuses_it(tmp_path: Path) -> None:
    assert refusal(StandInModel(), golden_file(tmp_path / "g.npz", in_x=X, out_z=X)) == "golden_mismatch"


def test_a_share_of_the_golden_rows_may_be_allowed_to_differ(tmp_path: Path) -> None:
    expected = X.sum(axis=1) + np.array([0, 1], np.float32)
    golden = golden_file(tmp_path / "g.npz", in_x=X, out_y=expected)
    warm_up(StandInModel(), FakeClock(), golden._replace(min_pass=0.5))
    assert refusal(StandInModel(), golden._replace(min_pass=0.51)) == "golden_mismatch"


def test_golden_vectors_of_another_form_are_matched_by_position(tmp_path: Path) -> None:
    warm_up(StandInModel(), FakeClock(), golden_file(tmp_path / "g.npz", in_input1=X, out_Identity=X.sum(axis=1)))


@pytest.mark.parametrize("shapes", [(0, 0), ()], ids=["empty", "scalar"])
def test_golden_vectors_without_rows_are_refused(tmp_path: Path, shapes: tuple[int, ...]) -> None:
    x, y = (np.ones((shapes[0], 4), np.float32), np.ones(shapes[1])) if shapes else (X, np.float32(1))
    assert refusal(StandInModel(), golden_file(tmp_path / "g.npz", in_x=x, out_y=np.asarray(y))) == "bad_golden"


def test_golden_vectors_without_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    assert refusal(StandInModel(), golden_file(tmp_path / "g.npz", in_x=X)) == "bad_golden"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00\x10\x00{", b"garbage"])
def test_golden_files_that_cannot_be_read_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "g.npz"
    path.write_bytes(data)
    golden = GoldenFile(path, hashlib.sha256(data).hexdigest(), 1e-4, 1e-4)
    assert refusal(StandInModel(), golden) == "bad_golden"


def test_pickled_objects_in_golden_vectors_are_never_unpickled(tmp_path: Path) -> None:
    golden = golden_file(tmp_path / "g.npz", in_x=np.array([{"a": 1}], dtype=object), out_y=X)
    assert refusal(StandInModel(), golden) == "bad_golden"


def test_golden_vectors_swapped_after_the_check_are_refused(tmp_path: Path) -> None:
    golden = golden_file(tmp_path / "g.npz", in_x=X, out_y=X.sum(axis=1))
    golden_file(tmp_path / "g.npz", in_x=X, out_y=X.sum(axis=1) + 1)
    assert refusal(StandInModel(), golden) == "changed"


def test_probe_inputs_are_the_same_for_every_row_and_every_time() -> None:
    specs = (TensorSpec("x", "float32", (-1, 2, -1)), TensorSpec("n", "int64", (-1, 3)), TensorSpec("b", "bool", (-1,)))
    made = probe_inputs(specs, 3)
    assert {name: (array.shape, str(array.dtype)) for name, array in made.items()} == {
        "x": ((3, 2, 8), "float32"),
        "n": ((3, 3), "int64"),
        "b": ((3,), "bool"),
    }
    assert (made["x"][0] == made["x"][2]).all()
    assert 0 < made["x"].min() < made["x"].max() < 1
