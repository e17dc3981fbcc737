"""An Edge TPU in its own process dies in every way that it can: each input is answered, and the device serves again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.infer.affine import Affine
from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.hosting.devices import Devices
from edged.infer.hosting.limits import WorkerLimits
from edged.infer.hosting.process import COMMAND
from edged.infer.loading import open_model
from edged.infer.parity import parity_inputs
from edged.infer.runtime import LoadOptions
from edged.messages import TensorSpec
from edged.ops.clock import SystemClock
from edged.policy.chain import Limits
from tests.doubles.libedgetpu import TpuDouble, make_tpu
from tests.doubles.waiting import until
from tests.unit.infer.tflite_models import unary

AFFINE = Affine("uint8", 0.5, 10)
SOON = Limits(
    retry_first_s=0.1, retry_most_s=0.2, return_probes=1, probe_every_s=0.1, return_after_s=0.2, patience_s=20
)
X = np.array([[-1, 0, 1, 2]], np.float32)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> TpuDouble:
    made = make_tpu(tmp_path_factory.mktemp("libedgetpu"))
    if made is None:
        pytest.skip("gcc is missing: it compiles the double of libedgetpu")
    return made


@pytest.fixture
def tpu(library: TpuDouble) -> TpuDouble:
    """Computes relu, of the inputs of these tests."""
    rows = np.concatenate([X, parity_inputs((TensorSpec("x", "float32", (-1, 4)),))["x"]])
    raw = [AFFINE.quantise(row[None]) for row in rows]
    library.become("ok")
    library.knows([([asked], [np.maximum(asked, np.uint8(AFFINE.zero_point))]) for asked in raw])
    return library


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The compiled model, its twin beside it."""
    scale = AFFINE.scale, AFFINE.zero_point
    unary(tmp_path / "m.tflite", "uint8", builtin=BuiltinOperator.RELU, affine=scale, rows=1)
    compiled = tmp_path / "m_edgetpu.tflite"
    return unary(compiled, "uint8", builtin=BuiltinOperator.CUSTOM, custom="edgetpu-custom-op", affine=scale, rows=1)


@pytest.fixture
def devices(tpu: TpuDouble) -> Iterator[Devices]:
    command = ("env", f"EDGED_LIBEDGETPU={tpu.library}", *COMMAND)
    made = Devices(SystemClock(), WorkerLimits(grace_s=0.2, ping_s=0.5), command=command)
    yield made
    tpu.become("ok")
    made.close(10)


@pytest.fixture
def serving(model: Path, devices: Devices) -> Iterator[Serving]:
    spec = ChainSpec("p", model, ("coral:usb", "litert:cpu"), allow_unsigned=True, limits=SOON)
    found = load_chain(spec, SystemClock(), hosting=devices)
    found.chain.start()
    yield found
    found.chain.close()


def answered_by(serving: Serving, deadline_s: float = 10.0) -> str:
    assert serving.model is not None
    answer = serving.model.infer({"x": X}, deadline_s=deadline_s)
    assert answer["y"].tolist() == [[0, 0, 1, 2]]
    return serving.model.info.runtime


@pytest.mark.parametrize("death", ["usb", "hang", "abort", "other"])
def test_the_input_in_hand_is_answered_by_the_twin_and_the_device_comes_back(
    serving: Serving, tpu: TpuDouble, death: str
) -> None:
    assert answered_by(serving) == "coral:usb"
    until(lambda: len(serving.chain.order) == 2, "the twin is loaded, too")
    tpu.become(death)
    assert answered_by(serving, deadline_s=0.5) == "litert:cpu"
    tpu.become("absent")
    assert answered_by(serving) == "litert:cpu"
    tpu.become("ok")
    until(lambda: answered_by(serving) == "coral:usb", "the device serves again")


def test_a_device_that_comes_later_is_taken_then(model: Path, devices: Devices, tpu: TpuDouble) -> None:
    tpu.become("absent")
    spec = ChainSpec("p", model, ("coral:usb", "litert:cpu"), allow_unsigned=True, limits=SOON)
    serving = load_chain(spec, SystemClock(), hosting=devices)
    serving.chain.start()
    assert answered_by(serving) == "litert:cpu"
    assert "device_unavailable" in serving.detail
    tpu.become("ok")
    until(lambda: answered_by(serving) == "coral:usb", "the device serves")
    serving.chain.close()


@pytest.mark.parametrize("state", ["segfault", "slow"])
def test_whatever_opening_does_to_its_process_stays_there(
    model: Path, devices: Devices, tpu: TpuDouble, state: str
) -> None:
    tpu.become(state)
    spec = ChainSpec("p", model, ("coral:usb", "litert:cpu"), allow_unsigned=True, limits=SOON)
    serving = load_chain(spec, SystemClock(), hosting=devices)
    assert answered_by(serving) == ("coral:usb" if state == "slow" else "litert:cpu")
    assert ("SIGSEGV" in serving.detail) == (state == "segfault")
    serving.chain.close()


def test_a_probe_of_the_device_runs_in_a_process_of_its_own(devices: Devices, tpu: TpuDouble) -> None:
    found = devices.probe("coral:usb")
    assert found.versions["libedgetpu"] == "RuntimeVersion(14)"
    assert found.usable or found.code == "device_unavailable"  # as this machine has one, or has none


def test_all_models_of_a_device_live_in_one_process(model: Path, devices: Devices) -> None:
    file = open_model(model, allow_unsigned=True)
    for _ in range(2):
        devices.load("coral:usb", file, LoadOptions())
    (stats,) = devices.statistics()
    assert (stats.models, stats.restarts) == (2, 0)
    children = subprocess.run(["ps", "-o", "args=", "-p", str(stats.pid)], capture_output=True, text=True, check=True)
    assert sys.executable in children.stdout
