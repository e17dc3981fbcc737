"""A loaded engine: batches, deadlines, and a code for everything that goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edged.errors import InferenceError
from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.tensorrt_model import code_of
from edged.infer.runtimes.tensorrt_native import Tensorrt
from tests.doubles.libcuda import CudaDouble
from tests.doubles.tensorrt_double import TensorrtDouble
from tests.unit.infer import models
from tests.unit.infer.tensorrt.rig import call_refusal, load_refusal, ramp, ready


def test_what_a_device_without_room_or_with_another_user_says(
    tensorrt: Tensorrt, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    tensorrt.prepare(file, "gpu", options)
    for state, code in (("memory", "out_of_memory"), ("busy", "device_unavailable")):
        cuda.become(state)
        assert load_refusal(tensorrt, file, options).code == code
    cuda.become("ok")
    assert cuda.outstanding() == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Error Code 1: Cuda Runtime (out of memory)", "out_of_memory"),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", "device_unavailable"),
        ("something else", "load_failed"),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, said: str, code: str
) -> None:
    tensorrt.prepare(file, "gpu", options)
    trt.context_error = said
    assert load_refusal(tensorrt, file, options).code == code


def test_ports_that_cannot_be_served_are_refused(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, file: ModelFile, options: LoadOptions, tmp_path: Path
) -> None:
    tensorrt.prepare(file, "gpu", options)
    trt.on_host.add("x")
    assert load_refusal(tensorrt, file, options).code == "incompatible"
    trt.on_host.clear()
    trt.refuses_address.add("y")
    assert load_refusal(tensorrt, file, options).code == "load_failed"
    half = {"x": (TensorProto.FLOAT16, [1, 4])}, {"y": (TensorProto.FLOAT16, [1, 4])}
    path = models.save(tmp_path / "half.onnx", [helper.make_node("Identity", ["x"], ["y"])], *half)
    other = open_model(path, allow_unsigned=True)
    tensorrt.prepare(other, "gpu", options)
    assert load_refusal(tensorrt, other, options).code == "incompatible"
    assert cuda.outstanding() == 0


# calls


@pytest.mark.parametrize("rows", ["n", 2])
def test_answers_whose_number_only_the_data_decide_are_refused(
    tensorrt: Tensorrt, cuda: CudaDouble, options: LoadOptions, tmp_path: Path, rows: str | int
) -> None:
    shape = {"x": (TensorProto.FLOAT, [rows, 4])}, {"y": (TensorProto.INT64, ["found", 2])}
    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Transpose", ["at"], ["y"])]
    file = open_model(models.save(tmp_path / "m.onnx", nodes, *shape), allow_unsigned=True)
    tensorrt.prepare(file, "gpu", options)
    assert load_refusal(tensorrt, file, options).code == "incompatible"
    assert cuda.outstanding() == 0


@pytest.mark.parametrize("items", [0, 1, 32, 33, 70])
def test_a_batch_of_any_size_is_answered_in_calls_that_the_engine_takes(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, items: int
) -> None:
    model = ready(tensorrt, file, options)
    answer = model.infer({"x": ramp(items)}, deadline_s=1)["y"]
    assert (answer.shape, answer.dtype.name) == ((items,), "float32")
    np.testing.assert_allclose(answer, ramp(items).sum(axis=1), atol=1e-5)
    full, rest = divmod(items, 32)
    assert [call for call in trt.calls if call.startswith("execute")] == (
        ["execute 32"] * full + [f"execute {rest}"] * (rest > 0)
    )
    model.close()


def test_inputs_are_read_wherever_they_lie_and_answers_stay(
    tensorrt: Tensorrt, file: ModelFile, options: LoadOptions
) -> None:
    model = ready(tensorrt, file, options)
    spread = np.repeat(ramp(3), 2, axis=1)[:, ::2]
    first = model.infer({"x": spread}, deadline_s=1)["y"]
    model.infer({"x": np.asfortranarray(-ramp(3))}, deadline_s=1)
    np.testing.assert_allclose(first, ramp(3).sum(axis=1), atol=1e-5)
    model.close()


def test_a_fixed_batch_stays_one(tensorrt: Tensorrt, options: LoadOptions, tmp_path: Path) -> None:
    shape = {"x": (TensorProto.FLOAT, [2, 4])}, {"y": (TensorProto.FLOAT, [2, 4])}
    path = models.save(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], *shape)
    model = ready(tensorrt, open_model(path, allow_unsigned=True), options)
    np.testing.assert_array_equal(model.infer({"x": ramp(2)}, deadline_s=1)["y"], -ramp(2))
    assert call_refusal(model, ramp(3)).code == "invalid_input"
    model.close()


def test_inputs_of_different_lengths_and_misfits_are_refused(
    tensorrt: Tensorrt, trt: TensorrtDouble, options: LoadOptions, tmp_path: Path
) -> None:
    two = {name: (TensorProto.FLOAT, ["n", 4]) for name in ("x", "z")}
    one = {"y": (TensorProto.FLOAT, ["n", 4])}
    path = models.save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], two, one)
    model = ready(tensorrt, open_model(path, allow_unsigned=True), options)
    for batch in ({"x": ramp(1)}, {"x": ramp(1), "z": ramp(2)}):
        with pytest.raises(InferenceError) as caught:
            model.infer(batch, deadline_s=1)
        assert caught.value.code == "invalid_input"
    np.testing.assert_array_equal(model.infer({"x": ramp(2), "z": ramp(2)}, deadline_s=1)["y"], 2 * ramp(2))
    trt.refuses_shape = True
    with pytest.raises(InferenceError, match="does not take"):
        model.infer({"x": ramp(2), "z": ramp(2)}, deadline_s=1)
    model.close()


def test_a_call_that_is_not_done_in_time_leaves_a_model_that_answers_nothing(
    tensorrt: Tensorrt, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    model = ready(tensorrt, file, options)
    before = cuda.outstanding()
    cuda.become("wait")
    assert call_refusal(model).code == "infer_timeout"
    cuda.become("ok")
    assert call_refusal(model).code == "infer_timeout"
    model.close()
    assert cuda.outstanding() == before  # the call may still write there: the end of the process frees it


@pytest.mark.parametrize("state", ["lost", "copy"])
def test_an_error_of_cuda_makes_the_device_lost_for_this_process(
    tensorrt: Tensorrt, cuda: CudaDouble, file: ModelFile, options: LoadOptions, state: str
) -> None:
    model = ready(tensorrt, file, options)
    cuda.become(state)
    assert call_refusal(model).code == "device_lost"
    cuda.become("ok")
    assert call_refusal(model).code == "device_lost"
    model.close()


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Error Code 1: Cuda Runtime (out of memory)", "out_of_memory"),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", "device_lost"),
        ("Error Code 3: API Usage Error", "infer_failed"),
    ],
)
def test_what_the_library_says_while_it_computes_becomes_a_code(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, said: str, code: str, starts: bool
) -> None:
    model = ready(tensorrt, file, options)
    trt.execute_error, trt.execute_fails = said, not starts
    assert call_refusal(model).code == code
    trt.execute_error, trt.execute_fails = "", False
    if code != "device_lost":
        assert model.infer({"x": ramp(1)}, deadline_s=1)["y"].shape == (1,)
    model.close()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CUDA failure 2: CUDA_ERROR_OUT_OF_MEMORY in cuMemAlloc_v2", "out_of_memory"),
        ("CUDA failure 700: CUDA_ERROR_ILLEGAL_ADDRESS in cuStreamQuery", "device_lost"),
        ("CUDA failure 1: CUDA_ERROR_INVALID_VALUE in cuMemcpyDtoH_v2", "infer_failed"),
    ],
)
def test_numbers_of_cuda_have_one_meaning(text: str, code: str) -> None:
    assert code_of(text) == code
