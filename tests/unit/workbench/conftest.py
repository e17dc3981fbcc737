"""A classifier that really classifies, its data, and what the toolchain makes of it; made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged.cli.main import run
from edged.workbench.hardware import find_target
from edged.workbench.optimizing import Optimized, optimize

CLASSES, FEATURES, HIDDEN = 8, 16, 96


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Edged = Callable[..., Ran]


class Bench(NamedTuple):
    """A folder with a model, samples to calibrate with, and other, labelled ones."""

    folder: Path
    model: Path
    calibration: Path
    labelled: Path
    samples: np.ndarray
    labels: np.ndarray


@pytest.fixture
def edged(capsys: pytest.CaptureFixture[str]) -> Edged:
    """edged("model", "verify", ...) → code, out, err."""

    def edged(*arguments: object) -> Ran:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return edged


def cluster_samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples around eight centres that overlap a little, and which centre each belongs to."""
    centres = np.random.default_rng(1).normal(size=(CLASSES, FEATURES))
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    return (centres[labels] + 0.75 * random.normal(size=(count, FEATURES))).astype(np.float32), labels


def classifier(path: Path, *, batch: int | str = "n", opset: int = 17) -> Path:
    """Random ReLU features with a layer that is fitted on top by least squares."""
    samples, labels = cluster_samples(2000, 2)
    random = np.random.default_rng(3)
    first = (random.normal(size=(FEATURES, HIDDEN)) / 4).astype(np.float32)
    bias = (random.normal(size=HIDDEN) / 20).astype(np.float32)
    hidden = np.maximum(samples @ first + bias, 0)
    second = np.linalg.lstsq(hidden, np.eye(CLASSES)[labels], rcond=None)[0].astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="second"),
    ]
    weights = {"w1": first, "b1": bias, "w2": second, "b2": np.zeros(CLASSES, np.float32)}
    graph = helper.make_graph(
        nodes,
        "clusters",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("workbench")
    samples, labels = cluster_samples(400, 5)
    np.savez(folder / "calibration.npz", x=cluster_samples(150, 4)[0])
    np.savez(folder / "labelled.npz", x=samples, labels=labels)
    model = classifier(folder / "clusters.onnx")
    return Bench(folder, model, folder / "calibration.npz", folder / "labelled.npz", samples, labels)


@pytest.fixture(scope="session")
def portable(bench: Bench) -> Optimized:
    """The model as INT8 for every runtime."""
    to = bench.folder / "portable.onnx"
    return optimize(bench.model, bench.calibration, to, precision="int8", target=find_target(None))


@pytest.fixture(scope="session")
def for_cpu(bench: Bench) -> Optimized:
    """The model as INT8 for processors."""
    return optimize(
        bench.model, bench.calibration, bench.folder / "cpu.onnx", precision="int8", target=find_target("cpu")
    )


def nodes_of(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(str(path)).graph.node)
