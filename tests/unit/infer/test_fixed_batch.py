"""Models with a fixed batch take any number of inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.loading import open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.onnxruntime_runtime import load
from edged.messages import TensorSpec
from tests.doubles.runtime import StandInModel
from tests.unit.infer.models import read_tensor


def spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def fixed(size: int) -> StandInModel:
    return StandInModel(inputs=(spec("x", size, 4),), outputs=(spec("y", size),))


def test_a_model_with_a_free_batch_is_left_as_it_is() -> None:
    model = StandInModel()
    assert free_batch(model) is model


@pytest.mark.parametrize(("size", "items", "calls"), [(1, 3, 3), (4, 4, 1), (4, 6, 2), (8, 1, 1)])
def test_any_number_of_inputs_is_answered_in_whole_calls(size: int, items: int, calls: int) -> None:
    inner = fixed(size)
    model = free_batch(inner)
    assert model.info.inputs[0].shape == (-1, 4)
    assert model.info.outputs[0].shape == (-1,)
    x = np.arange(items * 4, dtype=np.float32).reshape(items, 4)
    np.testing.assert_array_equal(model.infer({"x": x}, deadline_s=1)["y"], x.sum(axis=1))
    assert inner.calls == [size] * calls


def test_closing_closes_the_model_inside() -> None:
    inner = fixed(2)
    free_batch(inner).close()
    assert inner.closed.is_set()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((spec("x", 2, 4), spec("z", 3, 4)), (spec("y", 2),)),
        ((spec("x", 2, 4), spec("z", -1, 4)), (spec("y", 2),)),
        ((spec("x", 2, 4),), (spec("y", 5),)),
        ((spec("x"),), (spec("y", 1),)),
        ((spec("x", 1),), (spec("y"),)),
        ((), (spec("y", 1),)),
        ((spec("x", 1),), ()),
    ],
)
def test_a_model_without_one_batch_axis_is_incompatible(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    with pytest.raises(ModelError) as caught:
        free_batch(StandInModel(inputs=inputs, outputs=outputs))
    assert caught.value.code == "incompatible"


@pytest.mark.parametrize(
    "batch",
    [
        {"x": np.zeros((0, 4), np.float32)},
        {"x": np.zeros((1, 4), np.float32), "z": np.zeros((2, 4), np.float32)},
        {"x": np.float32(1).reshape(())},
        {},
    ],
)
def test_inputs_that_make_no_batch_are_refused(batch: dict[str, np.ndarray]) -> None:
    with pytest.raises(InferenceError) as caught:
        free_batch(fixed(2)).infer(batch, deadline_s=1)
    assert caught.value.code == "invalid_input"


def test_an_answer_with_another_number_of_rows_is_not_taken() -> None:
    inner = StandInModel(
        script=[lambda batch: {"y": np.zeros(3, np.float32)}],
        inputs=(spec("x", 2, 4),),
        outputs=(spec("y", 2),),
    )
    with pytest.raises(InferenceError) as caught:
        free_batch(inner).infer({"x": np.zeros((2, 4), np.float32)}, deadline_s=1)
    assert caught.value.code == "infer_failed"


@pytest.mark.realdata
def test_mnist_with_its_fixed_batch_of_one_answers_two_digits_in_one_call(shared_data: Path) -> None:
    folder = shared_data / "onnx" / "mnist_8"
    model = free_batch(load(open_model(folder / "model.onnx", allow_unsigned=True), "cpu", LoadOptions()))
    digits = [read_tensor(folder / f"test_data_set_{n}" / "input_0.pb") for n in (0, 1)]
    expected = [read_tensor(folder / f"test_data_set_{n}" / "output_0.pb") for n in (0, 1)]
    answers = model.infer({"Input3": np.concatenate(digits)}, deadline_s=1)
    np.testing.assert_allclose(answers["Plus214_Output_0"], np.concatenate(expected), rtol=1e-5, atol=1e-3)
