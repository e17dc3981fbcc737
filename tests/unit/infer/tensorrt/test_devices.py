"""Which devices there are, and in which order driver and library are asked."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from edged.infer.loading import ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.tensorrt_native import RUNTIME, Tensorrt
from tests.doubles.libcuda import CudaDouble
from tests.doubles.tensorrt_double import TensorrtDouble
from tests.unit.infer import models
from tests.unit.infer.tensorrt.rig import load_refusal, prepare_refusal


def test_it_declares_a_process_of_its_own_and_a_preparation() -> None:
    assert RUNTIME.abilities("gpu") == (("onnx",), "process", False, True, 1)
    assert find_runtime("tensorrt") is RUNTIME


def test_this_machine_has_neither_driver_nor_library_or_both_and_nothing_is_raised() -> None:
    assert RUNTIME.probe("gpu").code in ("", "device_unavailable", "runtime_unavailable")


def test_devices_are_found_with_their_versions(tensorrt: Tensorrt, trt: TensorrtDouble) -> None:
    found = tensorrt.probe("gpu:1")
    assert found.usable
    assert found.devices == (("gpu:1", "gpu", "Test GPU 1", "NVIDIA", "560.35 (CUDA 12.6)", ""),)
    assert found.versions == {"driver": "560.35 (CUDA 12.6)", "tensorrt": trt.__version__}
    assert tensorrt.health("gpu").state == "ok"
    trt.dla_cores = 2
    assert tensorrt.probe("dla:1").devices[0][:3] == ("dla:1", "dla", "Test GPU 0")


def test_a_builder_that_is_not_made_says_why(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    trt.builder_error = "no room for a builder"
    error = prepare_refusal(tensorrt, file, options)
    assert (error.code, "no room" in error.message) == ("prepare_failed", True)
    assert cuda.outstanding() == 0


@pytest.mark.parametrize("device", ["gpu:2", "gpu:x", "cpu", "GPU", "dla", "dla:7", ""])
def test_a_device_that_is_not_there_is_refused(
    tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str
) -> None:
    assert tensorrt.probe(device).code == "device_unavailable"
    assert prepare_refusal(tensorrt, file, options, device).code == "device_unavailable"


@pytest.mark.parametrize("state", ["init", "none"])
def test_without_a_device_the_library_is_not_even_imported(
    tensorrt: Tensorrt, cuda: CudaDouble, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, state: str
) -> None:
    """Its first use would end the process."""
    cuda.become(state)
    assert tensorrt.probe("gpu").code == "device_unavailable"
    assert load_refusal(tensorrt, file, options).code == "device_unavailable"
    assert tensorrt.health("gpu").state == "failed"
    assert trt.calls == []


def test_a_machine_without_the_driver_says_so(trt: TensorrtDouble) -> None:
    def no_driver() -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    found = Tensorrt(lambda: trt, no_driver).probe("gpu")
    assert (found.code, "libcuda.so.1" in found.reason, trt.calls) == ("device_unavailable", True, [])


def test_a_machine_without_tensorrt_says_what_to_install(cuda: CudaDouble) -> None:
    def no_library() -> Any:
        raise ImportError("No module named 'tensorrt'")

    tensorrt = Tensorrt(no_library, cuda.driver)
    assert tensorrt.probe("gpu").code == "runtime_unavailable"
    assert "edged[tensorrt]" in tensorrt.probe("gpu").reason
    assert tensorrt.health("gpu").state == "unknown"


@pytest.mark.parametrize("version", ["8.6.1", "12.0.0"])
def test_versions_that_are_not_known_are_refused(cuda: CudaDouble, version: str) -> None:
    assert Tensorrt(lambda: TensorrtDouble(version), cuda.driver).probe("gpu").code == "runtime_unavailable"


def test_an_error_while_it_starts_is_the_last_moment_to_stop(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions
) -> None:
    """The library returns an object all the same; using it is a segmentation fault, and so is its end."""
    tensorrt.prepare(file, "gpu", options)
    trt.runtime_error = "CUDA initialization failure with error: 35"
    error = load_refusal(tensorrt, file, options)
    assert (error.code, "error: 35" in error.message) == ("device_unavailable", True)
    assert tensorrt.probe("gpu").code == "device_unavailable"
    file = open_model(models.unary(file.path, "Relu"), allow_unsigned=True)
    assert prepare_refusal(tensorrt, file, options).code == "device_unavailable"
    del error
    gc.collect()
    assert not {"deserialize", "destroy"} & set(trt.calls)
