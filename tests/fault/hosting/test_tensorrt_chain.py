"""A GPU in its own process: its engine is built while the processor serves; it dies, and it serves again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.hosting.devices import Devices
from edged.infer.hosting.limits import WorkerLimits
from edged.infer.hosting.process import COMMAND
from edged.infer.runtime import LoadOptions
from edged.ops.clock import SystemClock
from edged.policy.chain import Limits
from tests.doubles.libcuda import CudaDouble, make_cuda
from tests.doubles.waiting import until
from tests.doubles.worker_runtimes import REPOSITORY
from tests.unit.infer.models import sum_model

SOON = Limits(
    retry_first_s=0.1, retry_most_s=0.2, return_probes=1, probe_every_s=0.1, return_after_s=0.2, patience_s=0.2
)
VENDOR = Path(__file__).parents[2] / "doubles" / "vendor"
X = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def cuda(tmp_path_factory: pytest.TempPathFactory) -> CudaDouble:
    made = make_cuda(tmp_path_factory.mktemp("libcuda"))
    if made is None:
        pytest.skip("gcc is missing: it compiles the double of libcuda")
    return made


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A build waits until this file is there."""
    return tmp_path / "gate"


@pytest.fixture
def devices(cuda: CudaDouble, gate: Path) -> Iterator[Devices]:
    found = (
        f"LD_LIBRARY_PATH={cuda.library.parent}",
        f"PYTHONPATH={os.pathsep.join([str(VENDOR), str(REPOSITORY)])}",
        f"DOUBLE_GATE={gate}",
    )
    made = Devices(SystemClock(), WorkerLimits(grace_s=0.2), command=("env", *found, *COMMAND))
    yield made
    made.close(10)


@pytest.fixture
def serving(devices: Devices, tmp_path: Path) -> Iterator[Serving]:
    found = load_chain(
        ChainSpec(
            "p",
            sum_model(tmp_path / "sum.onnx"),
            ("tensorrt:gpu", "onnxruntime:cpu"),
            allow_unsigned=True,
            limits=SOON,
            options=LoadOptions(cache=tmp_path / "cache"),
        ),
        SystemClock(),
        hosting=devices,
    )
    found.chain.start()
    yield found
    found.chain.close()


def answered_by(serving: Serving, deadline_s: float = 10.0) -> str:
    assert serving.model is not None
    answer = serving.model.infer({"x": X}, deadline_s=deadline_s)
    assert answer["y"].tolist() == [10]
    return serving.model.info.runtime


def test_the_processor_serves_while_the_engine_is_built_and_the_gpu_afterwards(
    serving: Serving, gate: Path, tmp_path: Path
) -> None:
    assert (serving.rung, answered_by(serving)) == ("onnxruntime:cpu", "onnxruntime:cpu")
    gate.touch()
    until(lambda: answered_by(serving) == "tensorrt:gpu", "the engine serves")
    assert len(list((tmp_path / "cache" / "tensorrt").glob("*.plan"))) == 1


@pytest.mark.parametrize("death", ["lost", "wait", "copy"])
def test_the_input_in_hand_is_answered_by_the_processor_and_the_gpu_comes_back(
    serving: Serving, cuda: CudaDouble, gate: Path, death: str
) -> None:
    gate.touch()
    until(lambda: answered_by(serving) == "tensorrt:gpu", "the engine serves")
    cuda.become(death)
    assert answered_by(serving, deadline_s=0.5) == "onnxruntime:cpu"
    cuda.become("ok")
    until(lambda: answered_by(serving) == "tensorrt:gpu", "the engine serves again")


def test_an_engine_that_was_damaged_on_disk_is_built_again(
    serving: Serving, cuda: CudaDouble, gate: Path, tmp_path: Path
) -> None:
    gate.touch()
    until(lambda: answered_by(serving) == "tensorrt:gpu", "the engine serves")
    (plan,) = (tmp_path / "cache" / "tensorrt").glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:100])
    cuda.become("lost")
    assert answered_by(serving) == "onnxruntime:cpu"
    cuda.become("ok")
    until(lambda: answered_by(serving) == "tensorrt:gpu", "a new engine serves")
    assert plan.stat().st_size > 100
