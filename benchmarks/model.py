"""The model of the benchmark: a tiny MLP, 16 values in, 8 class probabilities out. Random weights, fixed seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS, HIDDEN, CLASSES = 16, 32, 8
OPSET, IR_VERSION = 17, 8  # old enough for every runtime in the table


def write_model(folder: Path) -> Path:
    """Write mlp.onnx, and weights.json for contestants without an ONNX runtime; returns the path of the former."""
    weights = _weights()
    path = folder / "mlp.onnx"
    onnx.save(_as_onnx(weights), path)
    (folder / "weights.json").write_text(json.dumps({name: array.tolist() for name, array in weights.items()}))
    return path


def _weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "w1": random.normal(size=(INPUTS, HIDDEN)).astype(np.float32),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": random.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
        "b2": np.zeros(CLASSES, np.float32),
    }


def _as_onnx(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["pre"]),
        helper.make_node("Relu", ["pre"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "bench-mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
