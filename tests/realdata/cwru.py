"""Bearing faults of CWRU from nine features of each vibration window: a softmax regression, as a model file.

Every second window of each class is learnt from, the others are held back. Neighbouring windows come from one
recording, so the accuracy says that the chain computes right, not how well bearings can be diagnosed.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]


class Table(NamedTuple):
    fields: tuple[str, ...]
    learnt: Floats
    learnt_labels: list[str]
    held_back: Floats
    held_back_labels: list[str]


class Classifier(NamedTuple):
    """mean, std: the scaling that belongs into the configuration. model: `features` float32 → `logits` float32."""

    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Floats
    bias: Floats
    model: bytes


def read_table(shared_data: Path) -> Table:
    (path,) = (shared_data / "machine" / "cwru").glob("*.csv")
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    values = np.array([[float(cell) for cell in row[:-1]] for row in rows])
    labels = [row[-1] for row in rows]
    return Table(tuple(header[:-1]), values[::2], labels[::2], values[1::2], labels[1::2])


def fit(table: Table) -> Classifier:
    scaler = StandardScaler().fit(table.learnt)
    found = LogisticRegression(max_iter=2000).fit(scaler.transform(table.learnt), table.learnt_labels)
    return Classifier(
        tuple(str(label) for label in found.classes_),
        tuple(map(float, scaler.mean_)),
        tuple(map(float, scaler.scale_)),
        found.coef_.T,
        found.intercept_,
        _to_onnx(found.coef_.T, found.intercept_),
    )


def expected_shares(classifier: Classifier, values: Floats) -> Floats:
    """The share of each class for each row, in double precision."""
    logits = (values - classifier.mean) / classifier.std @ classifier.weights + classifier.bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _to_onnx(weights: Floats, bias: Floats) -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["weighted"]),
            helper.make_node("Add", ["weighted", "bias"], ["logits"]),
        ],
        "softmax_regression",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", weights.shape[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
