"""What a .tflite file declares, read without a library: nothing that it says is believed before it is checked."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import BuiltinOperator
from hypothesis import example, given
from hypothesis import strategies as st

from edged.errors import ModelError
from edged.infer.affine import Affine
from edged.infer.tflite_file import read_declared, read_tflite
from tests.unit.infer.tflite_models import save, sum_tflite, tensor, unary


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sum_tflite(tmp_path_factory.mktemp("tflite") / "m.tflite").read_bytes()


def code(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_declared(path, path.read_bytes())
    return caught.value.code


def test_inputs_and_outputs_are_named_with_type_shape_and_scale(tmp_path: Path) -> None:
    path = unary(tmp_path / "m.tflite", "int8", builtin=BuiltinOperator.RELU, affine=(0.5, -3))
    declared = read_tflite(path.read_bytes())
    assert [tuple(port) for port in declared.inputs] == [("x", "int8", (-1, 4), Affine("int8", 0.5, -3))]
    assert [tuple(port) for port in declared.outputs] == [("y", "int8", (-1, 4), Affine("int8", 0.5, -3))]
    assert declared.custom_operators == ()


def test_plain_numbers_have_no_scale(good: bytes) -> None:
    assert [(port.dtype, port.affine) for port in read_tflite(good).inputs] == [("float32", None)]


def test_custom_operators_are_unsupported_by_name(tmp_path: Path) -> None:
    path = unary(tmp_path / "m.tflite", "float32", builtin=BuiltinOperator.CUSTOM, custom="frobnicate")
    with pytest.raises(ModelError, match="frobnicate") as caught:
        read_declared(path, path.read_bytes())
    assert caught.value.code == "unsupported"


def test_a_model_for_the_edge_tpu_is_unsupported_and_its_twin_recommended(tmp_path: Path) -> None:
    path = unary(tmp_path / "m.tflite", "uint8", builtin=BuiltinOperator.CUSTOM, custom="edgetpu-custom-op")
    with pytest.raises(ModelError, match="Coral Edge TPU") as caught:
        read_declared(path, path.read_bytes())
    assert (caught.value.code, "_edgetpu" in caught.value.hint) == ("unsupported", True)


def test_texts_and_names_used_twice_cannot_be_served(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    unary(path, "string", builtin=BuiltinOperator.ABS)
    assert code(path) == "incompatible"
    ports = [tensor("x", "float32", (1, 4)), tensor("y", "float32", (1, 4)), tensor("x", "float32", (1, 4))]
    save(path, ports, [0, 2], [1], builtin=BuiltinOperator.ADD)
    assert code(path) == "incompatible"
    save(path, ports, [], [1], builtin=BuiltinOperator.ADD)
    assert code(path) == "incompatible"


@pytest.mark.parametrize(
    ("inputs", "outputs"), [([7], [1]), ([0], [-1]), ([-1], [1])], ids=["beyond", "output left out", "input left out"]
)
def test_a_tensor_that_is_not_there_is_corrupt(tmp_path: Path, inputs: list[int], outputs: list[int]) -> None:
    ports = [tensor("x", "float32", (1, 4)), tensor("y", "float32", (1, 4))]
    assert code(save(tmp_path / "m.tflite", ports, inputs, outputs, builtin=BuiltinOperator.ABS)) == "corrupt"


def test_a_buffer_that_is_not_there_is_corrupt(tmp_path: Path) -> None:
    ports = [tensor("x", "float32", (1, 4), buffer=9), tensor("y", "float32", (1, 4))]
    assert code(save(tmp_path / "m.tflite", ports, [0], [1], builtin=BuiltinOperator.ABS)) == "corrupt"


@pytest.mark.parametrize("affine", [(0.0, 0), (-0.5, 0), (float("inf"), 0), (float("nan"), 0), (0.5, 999), (0.5, -129)])
def test_a_scale_that_means_nothing_is_corrupt(tmp_path: Path, affine: tuple[float, int]) -> None:
    path = unary(tmp_path / "m.tflite", "int8", builtin=BuiltinOperator.RELU, affine=affine)
    assert code(path) == "corrupt"


def test_a_list_that_claims_more_than_fits_is_refused_at_once(good: bytes) -> None:
    for at in range(0, len(good) - 4, 4):
        for count in (0xFFFFFFFF, 0x7FFFFFFF, 100_000):
            data = bytearray(good)
            struct.pack_into("<I", data, at, count)
            with suppress(ValueError):
                read_tflite(bytes(data))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
@example([(4, 0)])
def test_bytes_that_were_changed_are_read_or_refused_and_nothing_else(
    good: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(good)
    for at, byte in changes:
        data[at % len(data)] = byte
    with suppress(ValueError):
        read_tflite(bytes(data))


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_tflite(b"\x10\0\0\0TFL3" + data)


def test_every_half_is_refused(good: bytes) -> None:
    for length in range(0, len(good), 3):
        try:
            declared = read_tflite(good[:length])
        except ValueError:
            continue
        assert declared == read_tflite(good), "only padding may be missing"


@pytest.mark.realdata
def test_real_models_declare_what_the_library_finds_in_them(shared_data: Path) -> None:
    found = sorted(path for folder in ("tiny", "coral") for path in (shared_data / folder).glob("**/*.tflite"))
    models = [path for path in found if path.parent.name != "invalid_models"]
    assert len(models) >= 14
    for path in models:
        data = path.read_bytes()
        declared, interpreter = read_tflite(data), Interpreter(model_content=data)
        for ports, details in (
            (declared.inputs, interpreter.get_input_details()),
            (declared.outputs, interpreter.get_output_details()),
        ):
            for port, detail in zip(ports, details, strict=True):
                assert port.name == detail["name"]
                assert np.dtype(port.dtype) == detail["dtype"]
                assert list(port.shape) == detail["shape_signature"].tolist()
                assert (port.affine or (None, 0.0, 0))[1:] == detail["quantization"]
        assert bool(declared.custom_operators) == path.stem.endswith("_edgetpu")
