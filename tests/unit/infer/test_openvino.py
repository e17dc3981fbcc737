"""The real OpenVINO: where it computes, with how many bits, and what it must not do silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.errors import InferenceError, ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.loading import open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.openvino_library import FRONTEND_EXCEPTIONS, core, ov, ov_frontend
from edged.infer.runtimes.openvino_runtime import OpenvinoModel, choose_device, load, refuse_elsewhere
from edged.infer.runtimes.openvino_shapes import Shapes
from edged.messages import ModelInfo, TensorSpec
from tests.unit.infer import tflite_models
from tests.unit.infer.models import read_tensor, save, unary

FLOAT, DOUBLE, INT64, UINT64 = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "DOUBLE", "INT64", "UINT64"))


def loaded(path: Path, device: str = "cpu") -> OpenvinoModel:
    return load(open_model(path, allow_unsigned=True), device, LoadOptions())


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        loaded(path)
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "available", "chosen"),
    [
        ("cpu", ["CPU"], "CPU"),
        ("cpu", ["CPU", "GPU"], "CPU"),
        ("gpu", ["CPU", "GPU"], "GPU"),
        ("gpu", ["CPU", "GPU.1", "GPU.0"], "GPU.0"),
        ("gpu:0", ["CPU", "GPU"], "GPU"),
        ("gpu:1", ["CPU", "GPU.0", "GPU.1"], "GPU.1"),
        ("npu", ["CPU", "NPU"], "NPU"),
    ],
)
def test_a_device_is_chosen_by_name_and_number(wanted: str, available: list[str], chosen: str) -> None:
    assert choose_device(wanted, available) == chosen


@pytest.mark.parametrize("wanted", ["gpu:2", "npu", "auto", "hetero", "CPU", "", "multi:gpu"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(wanted: str) -> None:
    with pytest.raises(ModelError, match=r"it found CPU, GPU\.0, GPU\.1") as caught:
        choose_device(wanted, ["GPU.1", "GPU.0", "CPU"])
    assert caught.value.code == "device_unavailable"


@pytest.mark.parametrize(
    ("chosen", "placed"),
    [("CPU", ["CPU"]), ("GPU", ["GPU.0"]), ("GPU.1", ["GPU.1"]), ("GPU.0", ["GPU"]), ("NPU", ["NPU"])],
)
def test_computing_where_it_was_told_to_is_accepted(chosen: str, placed: list[str]) -> None:
    refuse_elsewhere(chosen, placed)


@pytest.mark.parametrize(
    ("chosen", "placed"),
    [
        ("GPU", ["CPU"]),
        ("NPU", ["CPU"]),
        ("GPU", ["GPU.0", "CPU"]),
        ("GPU.1", ["GPU.0"]),
        ("GPU", []),
        ("CPU", ["GPU.0"]),
    ],
)
def test_computing_anywhere_else_is_refused(chosen: str, placed: list[str]) -> None:
    with pytest.raises(ModelError, match="computes on") as caught:
        refuse_elsewhere(chosen, placed)
    assert caught.value.code == "placement_rejected"


def test_float32_is_computed_with_the_bits_of_float32(tmp_path: Path) -> None:
    """On processors with bfloat16 the library's default is that, and the last digits are gone."""
    weights = np.random.default_rng(7).normal(size=(256, 256)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    path = save(
        tmp_path / "m.onnx",
        [node],
        {"x": (FLOAT, ["n", 256])},
        {"y": (FLOAT, ["n", 256])},
        initializer=[onnx.numpy_helper.from_array(weights, "w")],
    )
    x = np.random.default_rng(8).normal(size=(16, 256)).astype(np.float32)
    answer = loaded(path).infer({"x": x}, deadline_s=1)["y"]
    np.testing.assert_allclose(answer, x.astype(np.float64) @ weights.astype(np.float64), atol=2e-4)


def test_doubles_which_it_would_compute_as_floats_are_unsupported(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Abs", ["x"], ["y"])
    error = refusal(save(tmp_path / "m.onnx", [node], {"x": (DOUBLE, ["n", 4])}, {"y": (DOUBLE, ["n", 4])}))
    assert error.code == "unsupported"
    assert "float64" in error.message


@pytest.mark.parametrize(("kind", "dtype"), [(INT64, "int64"), (UINT64, "uint64")])
def test_integers_which_it_would_cut_off_are_refused(tmp_path: Path, kind: int, dtype: str) -> None:
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    model = loaded(save(tmp_path / "m.onnx", [node], {"x": (kind, ["n"])}, {"y": (kind, ["n"])}))
    with pytest.raises(InferenceError, match="beyond 32 bits") as caught:
        model.infer({"x": np.array([1, 2**40 + 5], dtype)}, deadline_s=1)
    assert caught.value.code == "invalid_input"
    answer = model.infer({"x": np.array([1, 2**30 - 1], dtype)}, deadline_s=1)["y"]
    assert (answer.dtype, answer.tolist()) == (np.dtype(dtype), [2, 2**31 - 2])


def test_outputs_keep_the_names_of_the_graph_when_the_library_merges_them(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Abs", ["x"], ["a"])]
    nodes += [onnx.helper.make_node("Identity", ["a"], [name]) for name in ("y", "z")]
    port = (FLOAT, ["n", 2])
    model = loaded(save(tmp_path / "m.onnx", nodes, {"x": port}, {"y": port, "z": port}))
    answers = model.infer({"x": np.full((1, 2), -1, np.float32)}, deadline_s=1)
    assert {name: array.tolist() for name, array in answers.items()} == {"y": [[1, 1]], "z": [[1, 1]]}


def test_an_input_that_nothing_reads_is_incompatible(tmp_path: Path) -> None:
    port = (FLOAT, ["n", 2])
    path = save(
        tmp_path / "m.onnx", [onnx.helper.make_node("Abs", ["x"], ["y"])], {"idle": port, "x": port}, {"y": port}
    )
    assert refusal(path).code == "incompatible"


def test_inputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    text = (onnx.TensorProto.STRING, ["n"])
    path = save(tmp_path / "m.onnx", [onnx.helper.make_node("Identity", ["x"], ["y"])], {"x": text}, {"y": text})
    assert refusal(path).code in ("incompatible", "unsupported")


@pytest.mark.parametrize("options", [{}, {"domain": "com.example"}])
def test_an_operator_it_does_not_know_is_unsupported(tmp_path: Path, options: dict[str, Any]) -> None:
    error = refusal(unary(tmp_path / "m.onnx", "Frobnicate", **options))
    assert (error.code, "Frobnicate" in error.message) == ("unsupported", True)
    assert "src/" not in error.message


def test_a_graph_without_an_output_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x09\x12\x00")
    assert refusal(path).code == "corrupt"


def test_a_builtin_operator_from_the_future_is_unsupported(tmp_path: Path) -> None:
    assert refusal(tflite_models.unary(tmp_path / "m.tflite", "float32", builtin=250)).code == "unsupported"


def test_a_model_for_the_edge_tpu_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "m_edgetpu.tflite"
    tflite_models.unary(path, "uint8", builtin=BuiltinOperator.CUSTOM, custom="edgetpu-custom-op")
    assert "Coral Edge TPU" in refusal(path).message


def test_quantised_ports_are_floats_outside(tmp_path: Path) -> None:
    path = tflite_models.unary(tmp_path / "m.tflite", "int8", builtin=BuiltinOperator.RELU, affine=(0.5, -3))
    model = loaded(path)
    assert [spec.dtype for spec in (*model.info.inputs, *model.info.outputs)] == ["float32", "float32"]
    answer = model.infer({"x": np.array([[-2, 0.1, 0.6, 1000]], np.float32)}, deadline_s=1)["y"]
    assert answer.tolist() == [[0, 0, 0.5, 65]]
    with pytest.raises(InferenceError, match="NaN"):
        model.infer({"x": np.full((1, 4), np.nan, np.float32)}, deadline_s=1)


def reshape(path: Path, columns: list[Any], target: list[int]) -> Path:
    """Computes y = x in another shape."""
    node = onnx.helper.make_node("Reshape", ["x", "s"], ["y"])
    constant = onnx.numpy_helper.from_array(np.array(target, np.int64), "s")
    return save(path, [node], {"x": (FLOAT, columns)}, {"y": (FLOAT, target)}, initializer=[constant])


def test_a_batch_that_is_free_in_name_only_is_one(tmp_path: Path) -> None:
    """Left alone, the library answers two rows with whatever lies in memory, and with no error."""
    model = loaded(reshape(tmp_path / "m.onnx", ["n", 4], [1, 4]))
    assert [tuple(spec.shape) for spec in (*model.info.inputs, *model.info.outputs)] == [(1, 4), (1, 4)]
    with pytest.raises(InferenceError) as caught:
        model.infer({"x": np.ones((2, 4), np.float32)}, deadline_s=1)
    assert caught.value.code == "invalid_input"
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(free_batch(model).infer({"x": x}, deadline_s=1)["y"], x)


def test_a_graph_that_fits_no_number_of_rows_is_unsupported(tmp_path: Path) -> None:
    assert refusal(reshape(tmp_path / "m.onnx", ["n", 4], [7, 7])).code == "unsupported"


def test_with_more_than_the_batch_free_each_new_shape_is_checked_before_it_is_computed(tmp_path: Path) -> None:
    model = loaded(reshape(tmp_path / "m.onnx", ["n", "t", 2], [-1, 6]))
    for _ in range(2):
        assert model.infer({"x": np.ones((5, 3, 2), np.float32)}, deadline_s=1)["y"].shape == (5, 6)
        with pytest.raises(InferenceError) as caught:
            model.infer({"x": np.ones((1, 4, 2), np.float32)}, deadline_s=1)
        assert caught.value.code == "invalid_input"


def test_inputs_of_different_lengths_are_no_batch(tmp_path: Path) -> None:
    node, port = onnx.helper.make_node("Add", ["a", "b"], ["y"]), (FLOAT, ["n", 4])
    model = loaded(save(tmp_path / "m.onnx", [node], {"a": port, "b": port}, {"y": port}))
    with pytest.raises(InferenceError, match="different lengths") as caught:
        model.infer({"a": np.ones((2, 4), np.float32), "b": np.ones((3, 4), np.float32)}, deadline_s=1)
    assert caught.value.code == "invalid_input"


class BrokenRequest:
    """A request whose device fails with one error after the other."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def set_input_tensor(self, index: int, tensor: Any) -> None:
        """Take it."""

    def infer(self) -> None:
        raise self._errors.pop(0)


def test_what_a_device_says_while_it_computes_becomes_a_code() -> None:
    info = ModelInfo("m", "1", "", "openvino:cpu", (TensorSpec("x", "float32", (-1, 4)),), ())
    x = ov.opset13.parameter([-1, 4], np.float32)
    graph = ov.Model([ov.opset13.abs(x)], [x], "m")
    request = BrokenRequest(RuntimeError("[GPU] out of memory"), MemoryError(), RuntimeError("Check 'x' failed\nlost"))
    model = OpenvinoModel(request, info, {}, Shapes(graph))
    found = []
    for _ in range(3):
        with pytest.raises(InferenceError) as caught:
            model.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)
        found.append((caught.value.code, caught.value.retryable))
    assert found == [("out_of_memory", True), ("out_of_memory", True), ("infer_failed", False)]


def test_every_exception_of_the_frontends_is_mapped() -> None:
    classes = {value for value in vars(ov_frontend).values() if isinstance(value, type)}
    exported = {each for each in classes if issubclass(each, Exception)}
    assert exported == set(FRONTEND_EXCEPTIONS)


def test_the_installed_library_has_a_processor_to_compute_on() -> None:
    assert "CPU" in core().available_devices


@pytest.mark.realdata
def test_one_operator_models_answer_as_stored_or_are_refused_as_unsupported(shared_data: Path) -> None:
    reproduced, codes = 0, dict[str, int]()
    for path in sorted((shared_data / "onnx" / "onnx-backend").glob("*/*/model.onnx"))[::2]:  # each takes its time
        try:
            model = loaded(path)
        except ModelError as error:
            codes[error.code] = codes.get(error.code, 0) + 1
            continue
        vectors = path.parent / "test_data_set_0"
        batch = {spec.name: read_tensor(vectors / f"input_{index}.pb") for index, spec in enumerate(model.info.inputs)}
        answers = model.infer(batch, deadline_s=1)
        for index, array in enumerate(answers.values()):
            np.testing.assert_allclose(array, read_tensor(vectors / f"output_{index}.pb"), rtol=1e-3, atol=1e-5)
        reproduced += 1
    assert codes.keys() <= {"unsupported", "incompatible"}
    assert reproduced + sum(codes.values()) == 35
    assert reproduced >= 28


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("kws_as_other.onnx", "wrong_format"),
        ("kws_empty.tflite", "empty"),
        ("kws_head0.tflite", "corrupt"),
        ("kws_trunc50.tflite", "corrupt"),
        ("lfs_pointer_mnist-12.onnx", "lfs_pointer"),
        ("mnist_8_as_other.tflite", "wrong_format"),
        ("mnist_8_empty.onnx", "empty"),
        ("mnist_8_head0.onnx", "corrupt"),
        ("mnist_8_trunc50.onnx", "corrupt"),
    ],
)
def test_every_hostile_model_is_refused_with_its_reason(shared_data: Path, name: str, code: str) -> None:
    assert refusal(shared_data / "hostile" / "models" / name).code == code


@pytest.mark.realdata
def test_the_old_model_that_onnxruntime_refuses_reads_its_digits_here(shared_data: Path) -> None:
    model = loaded(shared_data / "hostile" / "models" / "mnist_opset1_cntk.onnx")
    for digit, name in ((5, "labelled_digit_0.npz"), (0, "labelled_digit_1.npz")):
        with np.load(shared_data / "onnx" / "mnist_8" / name) as stored:
            pixels = next(stored[key] for key in stored.files if stored[key].size == 784)
        (answer,) = model.infer({"Input3": pixels.reshape(1, 1, 28, 28).astype(np.float32)}, deadline_s=1).values()
        assert int(answer.argmax()) == digit
