"""Small ONNX models made on the spot, and stored tensors read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Specs = Mapping[str, tuple[int, Sequence[Any]]]
"""Name → (element type, shape)."""


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Specs,
    outputs: Specs,
    *,
    initializer: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
    domain: str = "",
) -> Path:
    """Write a graph as ONNX. domain: one more operator set that it imports."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in outputs.items()],
        initializer=list(initializer),
    )
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString())
    return path


def sum_model(path: Path) -> Path:
    """Computes y = sum over axis 1 of x, float32, free batch."""
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n"])}
    return save(path, [node], inputs, outputs, initializer=[axes])


def unary(path: Path, operator: str, *, domain: str = "", opset: int = 17) -> Path:
    """Computes y = operator(x), float32 (n, 4)."""
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    shape = {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n", 4])}
    return save(path, [node], *shape, opset=opset, domain=domain)


def external_tensor(name: str, location: str) -> onnx.TensorProto:
    """A float tensor of four values that lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    return tensor


def read_tensor(path: Path) -> np.ndarray:
    """A stored test vector."""
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    array: np.ndarray = numpy_helper.to_array(tensor)
    return array
