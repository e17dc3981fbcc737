"""The contract of all runtimes, and TensorRT at the head of a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.infer.chain import ChainSpec, load_chain
from edged.infer.contract import CHECKS, Check, Subject
from edged.infer.engine_cache import EngineCache
from edged.infer.loading import ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions, Runtime
from edged.infer.runtimes.tensorrt_native import Tensorrt
from edged.ops.clock import SystemClock
from tests.doubles.tensorrt_double import TensorrtDouble
from tests.unit.infer import models
from tests.unit.infer.models import read_tensor, sum_model
from tests.unit.infer.tensorrt.rig import ready


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract_of_all_runtimes(tensorrt: Tensorrt, check: Check, tmp_path: Path) -> None:
    check(Subject(tensorrt, "gpu", sum_model(tmp_path / "sum.onnx"), tmp_path))


def chain(path: Path, tensorrt: Tensorrt, options: LoadOptions) -> Any:
    def find(name: str) -> Runtime:
        return tensorrt if name == "tensorrt" else find_runtime(name)

    rungs = ("tensorrt:gpu", "onnxruntime:cpu")
    return load_chain(ChainSpec("p", path, rungs, allow_unsigned=True, options=options), SystemClock(), find=find)


def test_it_serves_first_and_one_that_computes_something_else_is_found_out(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions
) -> None:
    serving = chain(file.path, tensorrt, options)
    assert (serving.rung, serving.skipped) == ("tensorrt:gpu", ())
    trt.factor = 2
    serving = chain(file.path, tensorrt, options)
    assert (serving.rung, [each.code for each in serving.skipped]) == ("onnxruntime:cpu", ["parity_failed"])


def test_an_engine_for_another_device_is_built_again_by_the_chain(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions
) -> None:
    chain(file.path, tensorrt, options)
    trt.gpu = "another GPU under the same name"
    assert chain(file.path, tensorrt, options).rung == "tensorrt:gpu"
    assert trt.calls.count("build") == 2


@pytest.mark.realdata
def test_digits_come_out_as_stored(tensorrt: Tensorrt, options: LoadOptions, shared_data: Path) -> None:
    folder = shared_data / "onnx" / "mnist_8"
    model = ready(tensorrt, open_model(folder / "model.onnx", allow_unsigned=True), options)
    (name,) = (spec.name for spec in model.info.inputs)
    x, y = (read_tensor(folder / "test_data_set_0" / f"{port}_0.pb") for port in ("input", "output"))
    (answer,) = model.infer({name: x}, deadline_s=1).values()
    np.testing.assert_allclose(answer, y, rtol=1e-5, atol=1e-3)
    model.close()


def test_one_cache_is_shared_by_all_models_of_a_device(
    tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, tmp_path: Path
) -> None:
    tensorrt.prepare(file, "gpu", options)
    tensorrt.prepare(open_model(models.unary(tmp_path / "m.onnx", "Relu"), allow_unsigned=True), "gpu", options)
    assert len(list((tmp_path / "cache" / "tensorrt").glob("*.plan"))) == 2
    assert not EngineCache(tmp_path / "cache").holds({})
