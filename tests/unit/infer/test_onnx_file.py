"""Weights outside the model file are found wherever they hide."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edged.errors import ModelError
from edged.infer.loading import open_model
from edged.infer.onnx_file import has_external_data
from tests.unit.infer.models import external_tensor, save, sum_model, unary

SHAPE = (int(onnx.TensorProto.FLOAT), ["n", 4])


@pytest.mark.parametrize("location", ["/etc/hostname", "weights.bin", "../weights.bin"])
def test_an_initializer_outside_the_file_refuses_the_model(tmp_path: Path, location: str) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    weight = external_tensor("w", location)
    path = save(tmp_path / "m.onnx", [node], {"x": SHAPE}, {"y": SHAPE}, initializer=[weight])
    with pytest.raises(ModelError) as caught:
        open_model(path, allow_unsigned=True)
    assert caught.value.code == "outside_bundle"


def test_a_constant_node_outside_the_file_is_found(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value=external_tensor("w", "weights.bin"))
    assert has_external_data(save(tmp_path / "m.onnx", [node], {}, {"y": SHAPE}).read_bytes())


def test_a_tensor_in_a_subgraph_is_found(tmp_path: Path) -> None:
    branch = helper.make_graph([], "branch", [], [], initializer=[external_tensor("w", "weights.bin")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    path = save(tmp_path / "m.onnx", [node], {"c": (onnx.TensorProto.BOOL, [])}, {"y": SHAPE})
    assert has_external_data(path.read_bytes())


def test_models_with_their_weights_inside_are_not_suspected(tmp_path: Path) -> None:
    assert not has_external_data(sum_model(tmp_path / "sum.onnx").read_bytes())
    assert not has_external_data(unary(tmp_path / "abs.onnx", "Abs").read_bytes())


@pytest.mark.realdata
def test_no_real_model_is_suspected(shared_data: Path) -> None:
    models = sorted((shared_data / "onnx").glob("**/*.onnx"))
    assert len(models) > 70
    assert [path for path in models if has_external_data(path.read_bytes())] == []


@given(st.binary(max_size=200))
def test_broken_bytes_are_left_to_the_runtime(data: bytes) -> None:
    has_external_data(b"\x08\x07" + data)


@pytest.mark.parametrize(
    "data", [b"\x3a", b"\x3a\xff\x01", b"\x3b", b"\x08" + b"\xff" * 20, b"\x0d\0\0\0\0", b"\x09\0"]
)
def test_fields_that_do_not_end_are_no_reason_to_fail(data: bytes) -> None:
    assert not has_external_data(data)
