"""The real onnxruntime: right answers on stored vectors, a stable code for every refusal."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.onnxruntime_library import ORT_EXCEPTIONS, refuse_mixture
from edged.infer.runtimes.onnxruntime_runtime import OrtModel, load
from edged.ops.host import read_host
from tests.unit.infer.models import read_tensor, save, sum_model, unary

FLOAT = onnx.TensorProto.FLOAT


def loaded(path: Path) -> OrtModel:
    return load(open_model(path, allow_unsigned=True), "cpu", LoadOptions())


def refusal(path: Path) -> ModelError:
    """The error with which a file is refused, before or by the runtime."""
    with pytest.raises(ModelError) as caught:
        loaded(path)
    return caught.value


@pytest.fixture
def summing(tmp_path: Path) -> OrtModel:
    return loaded(sum_model(tmp_path / "sum.onnx"))


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_model_says_what_it_takes_and_gives(summing: OrtModel) -> None:
    info = summing.info
    assert info.runtime == "onnxruntime:cpu"
    assert [tuple(spec) for spec in info.inputs] == [("x", "float32", (-1, 4))]
    assert [tuple(spec) for spec in info.outputs] == [("y", "float32", (-1,))]


def test_one_call_answers_the_whole_batch(summing: OrtModel) -> None:
    answers = summing.infer({"x": np.ones((3, 4), np.float32)}, deadline_s=1)
    np.testing.assert_array_equal(answers["y"], np.full(3, 4, np.float32))


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"z": np.zeros((1, 4), np.float32)},
        {"x": np.zeros((1, 4), np.float32), "z": np.zeros(1, np.float32)},
        {"x": np.zeros((1, 4), np.float64)},
        {"x": np.zeros(4, np.float32)},
        {"x": np.zeros((1, 5), np.float32)},
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_the_model_goes_on(
    summing: OrtModel, batch: dict[str, np.ndarray]
) -> None:
    with pytest.raises(InferenceError) as caught:
        summing.infer(batch, deadline_s=1)
    assert caught.value.code == "invalid_input"
    assert summing.infer({"x": np.ones((1, 4), np.float32)}, deadline_s=1)["y"][0] == 4


def test_a_failing_operator_is_an_inference_error_not_a_crash(tmp_path: Path) -> None:
    shape = onnx.helper.make_node("Reshape", ["x", "s"], ["y"])
    target = onnx.numpy_helper.from_array(np.array([7, 7], np.int64), "s")
    path = tmp_path / "m.onnx"
    save(path, [shape], {"x": (FLOAT, ["n", 4])}, {"y": (FLOAT, [7, 7])}, initializer=[target])
    with pytest.raises(InferenceError) as caught:
        loaded(path).infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)
    assert caught.value.code == "infer_failed"


def test_an_allocation_that_cannot_succeed_is_named_out_of_memory(tmp_path: Path) -> None:
    expand = onnx.helper.make_node("Expand", ["x", "s"], ["y"])
    path = tmp_path / "m.onnx"
    save(
        path,
        [expand],
        {"x": (FLOAT, [1]), "s": (onnx.TensorProto.INT64, [1])},
        {"y": (FLOAT, ["n"])},
    )
    batch: dict[str, np.ndarray] = {"x": np.zeros(1, np.float32), "s": np.array([2**50], np.int64)}
    with pytest.raises(InferenceError) as caught:
        loaded(path).infer(batch, deadline_s=1)
    assert (caught.value.code, caught.value.retryable) == ("out_of_memory", True)


def test_a_closed_model_says_so_and_closing_twice_is_harmless(summing: OrtModel) -> None:
    summing.close()
    summing.close()
    with pytest.raises(InferenceError) as caught:
        summing.infer({"x": np.ones((1, 4), np.float32)}, deadline_s=1)
    assert caught.value.code == "closed"


def test_a_second_processor_is_refused(tmp_path: Path) -> None:
    model = open_model(sum_model(tmp_path / "m.onnx"), allow_unsigned=True)
    with pytest.raises(ModelError) as caught:
        load(model, "cpu:1", LoadOptions())
    assert caught.value.code == "device_unavailable"


def test_another_format_than_onnx_is_incompatible(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3")
    assert refusal(path).code == "incompatible"


def test_inputs_that_are_no_numbers_are_incompatible(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    text = (onnx.TensorProto.STRING, ["n"])
    assert refusal(save(tmp_path / "m.onnx", [node], {"x": text}, {"y": text})).code == "incompatible"


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("Abs", {"opset": 999}),
        ("Frobnicate", {}),
        ("Frobnicate", {"domain": "com.example"}),
    ],
)
def test_a_valid_model_beyond_this_runtime_is_unsupported(
    tmp_path: Path, operator: str, options: dict[str, Any]
) -> None:
    error = refusal(unary(tmp_path / "m.onnx", operator, **options))
    assert error.code == "unsupported"
    assert error.hint


def test_a_file_swapped_between_check_and_load_is_not_loaded(tmp_path: Path) -> None:
    path = sum_model(tmp_path / "m.onnx")
    model = open_model(path, allow_unsigned=True)
    unary(path, "Abs")
    with pytest.raises(ModelError) as caught:
        load(model, "cpu", LoadOptions())
    assert caught.value.code in ("changed", "too_large")


def test_wheels_that_overwrite_one_another_are_refused() -> None:
    refuse_mixture(["onnxruntime"])
    with pytest.raises(ImportError, match="onnxruntime and onnxruntime-gpu overwrite one another"):
        refuse_mixture(["onnxruntime-gpu", "onnxruntime"])


def test_every_exception_of_the_library_is_mapped() -> None:
    exported = {
        value for value in vars(ort_errors).values() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert exported - set(ORT_EXCEPTIONS) == {ort_errors.ModelLoaded}
    assert len(ORT_EXCEPTIONS) >= 10


def test_a_single_flipped_bit_is_noticed_before_the_model_answers(tmp_path: Path) -> None:
    path = sum_model(tmp_path / "m.onnx")
    good = path.read_bytes()
    model = open_model(path, allow_unsigned=True)
    for position in range(0, len(good) * 8, 7):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            load(model, "cpu", LoadOptions())
        assert caught.value.code == "changed"


# --- real models ---


@pytest.mark.realdata
@pytest.mark.parametrize("vector", ["test_data_set_0", "test_data_set_1"])
def test_mnist_reproduces_its_stored_vectors(shared_data: Path, vector: str) -> None:
    folder = shared_data / "onnx" / "mnist_8"
    answers = loaded(folder / "model.onnx").infer({"Input3": read_tensor(folder / vector / "input_0.pb")}, deadline_s=1)
    np.testing.assert_allclose(
        answers["Plus214_Output_0"], read_tensor(folder / vector / "output_0.pb"), rtol=1e-5, atol=1e-3
    )


@pytest.mark.realdata
@pytest.mark.parametrize(("digit", "name"), [(5, "labelled_digit_0.npz"), (0, "labelled_digit_1.npz")])
def test_mnist_reads_the_labelled_digits(shared_data: Path, digit: int, name: str) -> None:
    folder = shared_data / "onnx" / "mnist_8"
    with np.load(folder / name) as stored:
        pixels = next(stored[key] for key in stored.files if stored[key].size == 784)
    model = loaded(folder / "model.onnx")
    answers = model.infer({"Input3": pixels.reshape(1, 1, 28, 28).astype(np.float32)}, deadline_s=1)
    assert int(answers["Plus214_Output_0"].argmax()) == digit


@pytest.mark.realdata
def test_one_operator_models_answer_as_stored_or_are_refused_as_unsupported(shared_data: Path) -> None:
    reproduced, codes = 0, dict[str, int]()
    for path in sorted((shared_data / "onnx" / "onnx-backend").glob("*/*/model.onnx")):
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
    assert codes.get("unsupported") == 21, codes
    assert "corrupt" not in codes
    assert reproduced + sum(codes.values()) == 69
    assert reproduced >= 40


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("kws_as_other.onnx", "wrong_format"),
        ("kws_empty.tflite", "empty"),
        ("kws_head0.tflite", "corrupt"),
        ("kws_trunc50.tflite", "incompatible"),
        ("lfs_pointer_mnist-12.onnx", "lfs_pointer"),
        ("mnist_8_as_other.tflite", "wrong_format"),
        ("mnist_8_empty.onnx", "empty"),
        ("mnist_8_head0.onnx", "corrupt"),
        ("mnist_8_trunc50.onnx", "corrupt"),
        ("mnist_opset1_cntk.onnx", "unsupported"),
    ],
)
def test_every_hostile_model_is_refused_with_its_reason(shared_data: Path, name: str, code: str) -> None:
    assert refusal(shared_data / "hostile" / "models" / name).code == code


@pytest.mark.realdata
def test_the_table_of_hostile_models_is_complete(shared_data: Path) -> None:
    assert len(list((shared_data / "hostile" / "models").iterdir())) == 10


@pytest.mark.slow
def test_memory_stays_flat_over_two_hundred_load_and_close_cycles(tmp_path: Path) -> None:
    model = open_model(sum_model(tmp_path / "m.onnx"), allow_unsigned=True)
    batch = {"x": np.ones((8, 4), np.float32)}
    before = 0
    for cycle in range(250):
        if cycle == 50:  # the allocator has settled
            before = _rss_bytes(tmp_path)
        _use(model, batch)
    assert _rss_bytes(tmp_path) - before < 5_000_000


def _use(model: ModelFile, batch: dict[str, np.ndarray]) -> None:
    session = load(model, "cpu", LoadOptions())
    session.infer(batch, deadline_s=1)
    session.close()


def _rss_bytes(anywhere: Path) -> int:
    gc.collect()
    found = read_host(anywhere).rss_bytes
    assert found is not None
    return found
