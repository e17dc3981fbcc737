"""The real LiteRT: quantised models look like float ones, free batches are free, nothing ends the process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.errors import InferenceError, ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.loading import open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.litert_cpu import load, try_elsewhere
from edged.infer.runtimes.tflite_io import TfliteModel
from edged.infer.tflite_file import TfliteFile, TfliteTensor
from edged.messages import ModelInfo, TensorSpec
from tests.unit.infer.models import sum_model
from tests.unit.infer.tflite_models import save, sum_tflite, tensor, unary

MUTANTS = 12


def loaded(path: Path) -> TfliteModel:
    return load(open_model(path, allow_unsigned=True), "cpu", LoadOptions())


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        loaded(path)
    return caught.value


def reshape(path: Path, rows: int, target: list[int]) -> Path:
    """Computes y = x (rows, 4) in another shape, written down in the model."""
    options = schema.ReshapeOptionsT()
    options.newShape = target
    ports = [
        tensor("x", "float32", (rows, 4)),
        tensor("shape", "int32", (len(target),), buffer=1),
        tensor("y", "float32", target),
    ]
    return save(
        path, ports, [0], [2], operands=[1], builtin=BuiltinOperator.RESHAPE,
        options=(schema.BuiltinOptions.ReshapeOptions, options), constants=[np.array(target, np.int32).tobytes()],
    )  # fmt: skip


def split(path: Path, *, parts: int) -> Path:
    """Cuts x (1, 4) into two; `parts` is what its options say about that."""
    options = schema.SplitOptionsT()
    options.numSplits = parts
    ports = [tensor("axis", "int32", (), buffer=1), tensor("x", "float32", (1, 4))]
    ports += [tensor(name, "float32", (1, 2)) for name in ("y", "z")]
    return save(
        path, ports, [1], [2, 3], builtin=BuiltinOperator.SPLIT, options=(schema.BuiltinOptions.SplitOptions, options),
        constants=[np.array([1], np.int32).tobytes()], operands_first=[0],
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "affine"), [("int8", (0.5, -3)), ("uint8", (0.25, 128))])
def test_quantised_ports_are_floats_outside(tmp_path: Path, dtype: str, affine: tuple[float, int]) -> None:
    model = loaded(unary(tmp_path / "m.tflite", dtype, builtin=BuiltinOperator.RELU, affine=affine))
    assert [spec.dtype for spec in (*model.info.inputs, *model.info.outputs)] == ["float32", "float32"]
    x = np.array([[-2, 0, 0.6, 5], [1, 2, 3, 4]], np.float32)
    np.testing.assert_allclose(model.infer({"x": x}, deadline_s=1)["y"], np.maximum(x, 0), atol=affine[0] / 2)


def test_what_lies_outside_the_range_of_the_integers_becomes_its_end(tmp_path: Path) -> None:
    model = loaded(unary(tmp_path / "m.tflite", "int8", builtin=BuiltinOperator.RELU, affine=(0.5, -3)))
    answer = model.infer({"x": np.array([[1e9, np.inf, -1e9, -np.inf]], np.float32)}, deadline_s=1)["y"]
    assert answer.tolist() == [[65, 65, 0, 0]]


def test_what_is_no_number_has_no_integer_and_is_refused(tmp_path: Path) -> None:
    model = loaded(unary(tmp_path / "m.tflite", "int8", builtin=BuiltinOperator.RELU, affine=(0.5, -3)))
    with pytest.raises(InferenceError, match="input x: NaN") as caught:
        model.infer({"x": np.full((1, 4), np.nan, np.float32)}, deadline_s=1)
    assert caught.value.code == "invalid_input"


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_without_a_scale_stay_integers(tmp_path: Path, dtype: str) -> None:
    model = loaded(unary(tmp_path / "m.tflite", dtype, builtin=BuiltinOperator.NEG))
    assert [spec.dtype for spec in (*model.info.inputs, *model.info.outputs)] == [dtype, dtype]
    big = 2**40 + 5 if dtype == "int64" else 2**30 + 5
    assert model.infer({"x": np.full((1, 4), big, dtype)}, deadline_s=1)["y"].tolist() == [[-big] * 4]


def test_a_fixed_batch_is_called_piece_by_piece(tmp_path: Path) -> None:
    model = loaded(sum_tflite(tmp_path / "m.tflite", rows=3))
    assert model.info.inputs[0].shape == (3, 4)
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    np.testing.assert_array_equal(free_batch(model).infer({"x": x}, deadline_s=1)["y"], x.sum(axis=1))


def test_a_batch_that_is_free_in_name_only_is_one(tmp_path: Path) -> None:
    model = loaded(reshape(tmp_path / "m.tflite", -1, [1, 4]))
    assert model.info.inputs[0].shape == (1, 4)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(free_batch(model).infer({"x": x}, deadline_s=1)["y"], x)


def test_only_the_processor_is_driven_here(tmp_path: Path) -> None:
    file = open_model(sum_tflite(tmp_path / "m.tflite"), allow_unsigned=True)
    with pytest.raises(ModelError) as caught:
        load(file, "gpu", LoadOptions())
    assert caught.value.code == "device_unavailable"


def test_another_format_is_incompatible(tmp_path: Path) -> None:
    assert refusal(sum_model(tmp_path / "m.onnx")).code == "incompatible"


@pytest.mark.parametrize(
    ("builtin", "custom"),
    [(250, ""), (BuiltinOperator.CUSTOM, "frobnicate"), (BuiltinOperator.CUSTOM, "edgetpu-custom-op")],
)
def test_an_operator_it_does_not_know_is_unsupported(tmp_path: Path, builtin: int, custom: str) -> None:
    error = refusal(unary(tmp_path / "m.tflite", "float32", builtin=builtin, custom=custom))
    assert error.code == "unsupported"
    assert error.hint


def test_a_graph_whose_parts_do_not_fit_is_unsupported(tmp_path: Path) -> None:
    assert refusal(reshape(tmp_path / "m.tflite", 1, [7, 7])).code == "unsupported"


def test_weights_shorter_than_their_shape_are_corrupt(tmp_path: Path) -> None:
    ports = [tensor("x", "float32", (1, 4)), tensor("c", "float32", (1, 4), buffer=1), tensor("y", "float32", (1, 4))]
    path = tmp_path / "m.tflite"
    options: Any = schema.AddOptionsT()
    save(
        path, ports, [0], [2], operands=[1], builtin=BuiltinOperator.ADD,
        options=(schema.BuiltinOptions.AddOptions, options), constants=[b"\0" * 8],
    )  # fmt: skip
    assert refusal(path).code == "corrupt"


def test_a_model_that_ends_the_process_that_loads_it_never_gets_into_ours(tmp_path: Path) -> None:
    """The library divides by the number of parts, and reads past the outputs when that is wrong."""
    assert loaded(split(tmp_path / "good.tflite", parts=2)).infer(
        {"x": np.arange(4, dtype=np.float32).reshape(1, 4)}, deadline_s=1
    )["z"].tolist() == [[2, 3]]
    error = refusal(split(tmp_path / "bad.tflite", parts=0))
    assert error.code == "crashes"
    assert "signal 11" in error.message


def test_a_model_is_tried_in_another_process_once(tmp_path: Path) -> None:
    file = open_model(sum_tflite(tmp_path / "m.tflite"), allow_unsigned=True)
    load(file, "cpu", LoadOptions())
    before = _children_ended()
    load(file, "cpu", LoadOptions()).close()
    assert _children_ended() == before


def _children_ended() -> float:
    times = os.times()
    return times.children_user + times.children_system


def test_a_trial_that_does_not_end_is_ended_and_the_model_refused(tmp_path: Path) -> None:
    file = open_model(sum_tflite(tmp_path / "m.tflite"), allow_unsigned=True)._replace(sha256="not tried yet")
    with pytest.raises(ModelError, match=r"has not ended after 0\.1 s") as caught:
        try_elsewhere(file, b"", command=("sleep", "30"), timeout_s=0.1)
    assert caught.value.code == "crashes"


class BrokenRunner:
    """Fails with one error after the other."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        raise self._errors.pop(0)


def test_what_the_library_says_while_it_computes_becomes_a_code() -> None:
    declared = TfliteFile((TfliteTensor("x", "float32", (-1, 4), None),), (), ())
    info = ModelInfo("m", "1", "", "litert:cpu", (TensorSpec("x", "float32", (-1, 4)),), ())
    errors = RuntimeError("std::bad_alloc"), MemoryError(), RuntimeError("Node number 3 (SPLIT) failed to invoke")
    model = TfliteModel(BrokenRunner(*errors), info, declared)
    found = []
    for _ in errors:
        with pytest.raises(InferenceError) as caught:
            model.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)
        found.append((caught.value.code, caught.value.retryable))
    assert found == [("out_of_memory", True), ("out_of_memory", True), ("infer_failed", False)]


@pytest.mark.realdata
def test_damaged_models_are_refused_or_answer_and_the_process_lives(shared_data: Path, tmp_path: Path) -> None:
    """In a process of its own, so that a crash would be seen and not end the tests."""
    good = (shared_data / "coral" / "tools" / "split_concat.tflite").read_bytes()
    chance = random.Random(20261121)
    for number in range(MUTANTS):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 4))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (tmp_path / f"{number}.tflite").write_bytes(data)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edged.infer.chain import ChainSpec, load_chain\n"
        "from edged.ops.clock import SystemClock\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.tflite')):\n"
        "    serving = load_chain(ChainSpec('p', path, ('litert:cpu',), allow_unsigned=True), SystemClock())\n"
        "    print(serving.rung or serving.skipped[0].code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    said = done.stdout.split()
    assert (done.returncode, len(said)) == (0, MUTANTS), done.stderr
    assert set(said) <= {
        "litert:cpu", "corrupt", "unsupported", "incompatible", "crashes", "warmup_failed", "not_finite",
    }  # fmt: skip


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "code"),
    [("kws_empty.tflite", "empty"), ("kws_head0.tflite", "corrupt"), ("kws_trunc50.tflite", "corrupt")],
)
def test_every_hostile_model_is_refused_with_its_reason(shared_data: Path, name: str, code: str) -> None:
    assert refusal(shared_data / "hostile" / "models" / name).code == code


@pytest.mark.realdata
def test_a_custom_operator_of_a_real_model_is_unsupported(shared_data: Path) -> None:
    error = refusal(shared_data / "coral" / "invalid_models" / "model_invoking_error.tflite")
    assert (error.code, "fake-op-double" in error.message) == ("unsupported", True)
