"""NVIDIA's driver library through ctypes, against a compiled double of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edged.infer.runtimes.cuda_driver import CudaContext, CudaDriver, CudaError
from tests.doubles.libcuda import CudaDouble, make_cuda


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CudaDouble:
    made = make_cuda(tmp_path_factory.mktemp("libcuda"))
    if made is None:
        pytest.skip("gcc is missing: it compiles the double of libcuda")
    return made


@pytest.fixture
def cuda(library: CudaDouble) -> CudaDouble:
    library.become("ok")
    library.installed("560.35")
    return library


@pytest.fixture
def context(cuda: CudaDouble) -> CudaContext:
    return cuda.driver().open(0)


def test_devices_are_named_with_their_architecture(cuda: CudaDouble) -> None:
    driver = cuda.driver()
    assert driver.version == "560.35 (CUDA 12.6)"
    assert driver.gpus() == ((0, "Test GPU 0", "8.7"), (1, "Test GPU 1", "8.7"))


def test_a_release_that_nobody_tells_is_unknown(cuda: CudaDouble, tmp_path: Path) -> None:
    assert CudaDriver(str(cuda.library), tmp_path / "none").version == "unknown (CUDA 12.6)"


def test_no_driver_is_an_error_of_the_system_and_no_device_one_of_the_driver(cuda: CudaDouble, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"libcuda\.so\.1"):
        CudaDriver(str(tmp_path / "libcuda.so.1"))
    cuda.become("init")
    with pytest.raises(CudaError, match="CUDA failure 100: CUDA_ERROR_NO_DEVICE in cuInit"):
        cuda.driver()
    cuda.become("busy")
    with pytest.raises(CudaError, match="CUDA failure 46: unknown in cuDevicePrimaryCtxRetain"):
        cuda.driver().open(0)


def test_bytes_go_to_the_device_and_come_back_and_everything_is_given_back(
    cuda: CudaDouble, context: CudaContext
) -> None:
    sent, got = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    address = context.allocate(sent.nbytes)
    context.upload(address, sent)
    assert context.stream
    context.wait(1.0)
    context.download(got, address)
    np.testing.assert_array_equal(got, sent)
    context.close()
    assert cuda.outstanding() == 0


def test_waiting_ends_with_the_deadline(cuda: CudaDouble, context: CudaContext) -> None:
    assert 0 < context.wait(1.0) < 1e-3
    cuda.become("wait")
    with pytest.raises(TimeoutError):
        context.wait(0.02)
    with pytest.raises(TimeoutError):
        context.wait(0.0)
    cuda.become("ok")
    context.close()


def test_an_error_of_the_stream_is_no_time_out_and_closing_never_fails(cuda: CudaDouble, context: CudaContext) -> None:
    cuda.become("lost")
    with pytest.raises(CudaError, match="CUDA failure 700") as caught:
        context.wait(1.0)
    assert caught.value.code == 700
    cuda.become("memory")
    with pytest.raises(CudaError, match="CUDA failure 2"):
        context.allocate(8)
    context.close()
    assert cuda.outstanding() == 0
