"""TensorRT in two versions and a driver, both doubles; a model, and a folder for its engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.tensorrt_native import Tensorrt
from tests.doubles.libcuda import CudaDouble, make_cuda
from tests.doubles.tensorrt_double import TensorrtDouble
from tests.unit.infer.models import sum_model


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


@pytest.fixture(params=["10.3.0.26", "11.4.0.106"])
def trt(request: pytest.FixtureRequest) -> TensorrtDouble:
    return TensorrtDouble(request.param)


@pytest.fixture
def tensorrt(trt: TensorrtDouble, cuda: CudaDouble) -> Tensorrt:
    return Tensorrt(lambda: trt, cuda.driver)


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(sum_model(tmp_path / "sum.onnx"), allow_unsigned=True, version="7")


@pytest.fixture
def options(tmp_path: Path) -> LoadOptions:
    return LoadOptions(cache=tmp_path / "cache")
