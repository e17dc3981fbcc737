"""Models whose answers are known, and brokers that keep what is queued."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.broker import Mosquitto
from tests.unit.infer.models import save

WINDOW, STRIDE = 4, 2
DOUBLES = Path(__file__).parents[1] / "doubles"


def summing(path: Path, *shape: int) -> Path:
    """Computes total = the sum of everything in a row of x, float32 (n, *shape)."""
    axes = numpy_helper.from_array(np.arange(1, len(shape) + 1), "axes")
    node = helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", *shape])}, {"total": (TensorProto.FLOAT, ["n"])}
    return save(path, [node], inputs, outputs, initializer=[axes])


@pytest.fixture(scope="session")
def single_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sum of the two fields of one event."""
    return summing(tmp_path_factory.mktemp("models") / "single.onnx", 2)


@pytest.fixture(scope="session")
def window_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sum of the two fields over a window of four events."""
    return summing(tmp_path_factory.mktemp("models") / "window.onnx", WINDOW, 2)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Keeps up to 100 000 messages for a client that is away."""
    with Mosquitto(tmp_path, "max_queued_messages 100000") as running:
        yield running


@pytest.fixture
def stock_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto as it comes."""
    with Mosquitto(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def bad_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Library to preload: the store's files fail, hang or fill up when told to (tests/doubles/bad_disk.c)."""
    return preloadable("bad_disk", tmp_path_factory)


@pytest.fixture(scope="session")
def wall_clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Library to preload: the wall clock is off when told to (tests/doubles/wall_clock.c)."""
    return preloadable("wall_clock", tmp_path_factory)


def preloadable(name: str, factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc libc6-dev")
    library = factory.mktemp(name) / f"{name}.so"
    source = DOUBLES / f"{name}.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library
