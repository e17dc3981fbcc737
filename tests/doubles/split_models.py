"""A small convolutional classifier that can be cut, its samples, and its halves made by the workbench."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edged.infer.loading import ModelFile, open_model
from edged.infer.split_file import TAIL_NAME, folder_of
from edged.workbench.split_cut import Coding, Split, Wanted, cut

CLASSES = 5
CUT = "pooled"


class SplitModels(NamedTuple):
    """model: the whole, its halves in the folder beside it. served: what a hub serves, both tail and whole."""

    model: ModelFile
    data: Path
    samples: np.ndarray
    served: Path
    split: Split

    @property
    def tail(self) -> str:
        return self.split.plan.tail.sha256


def samples_of(count: int, seed: int = 3) -> np.ndarray:
    """Pictures of 12 by 12 with a bright bar in one of five places, and noise."""
    random = np.random.default_rng(seed)
    pictures = random.random((count, 1, 12, 12), np.float32) * 0.2
    for at, place in enumerate(random.integers(0, CLASSES, count)):
        pictures[at, 0, :, 2 * place + 1 : 2 * place + 3] += 1.0
    return pictures


def write_model(path: Path, batch: int | str = "n") -> None:
    """Conv, Relu, MaxPool (`pooled`), Flatten, Gemm: answers with the place of the bar."""
    random = np.random.default_rng(5)
    kernel = np.abs(random.normal(size=(4, 1, 3, 3))).astype(np.float32)
    weights = np.zeros((4 * 5 * 5, CLASSES), np.float32)
    for place in range(CLASSES):
        for channel in range(4):
            for row in range(5):
                weights[channel * 25 + row * 5 + place, place] = 0.1
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel"], ["convolved"], name="conv"),
            helper.make_node("Relu", ["convolved"], ["lit"]),
            helper.make_node("MaxPool", ["lit"], [CUT], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", [CUT], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["y"]),
        ],
        "bars",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def make(folder: Path, coding: Coding = "u8", batch: int | str = "n") -> SplitModels:
    """Everything in `folder`; blocks for a moment."""
    path, data, served = folder / "bars.onnx", folder / "bars.npz", folder / "served"
    served.mkdir(parents=True)
    write_model(path, batch)
    samples = samples_of(60)
    np.savez(data, x=samples)
    split = cut(path, CUT, folder_of(path), data, coding=coding, wanted=Wanted())
    (served / "tail.onnx").write_bytes((folder_of(path) / TAIL_NAME).read_bytes())
    (served / "whole.onnx").write_bytes(path.read_bytes())
    return SplitModels(open_model(path, allow_unsigned=True), data, samples, served, split)
