"""Engines: how they are built, kept, refused and built again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.tensorrt_native import Tensorrt
from tests.doubles.libcuda import CudaDouble
from tests.doubles.tensorrt_double import BuilderFlag, DeviceType, TensorrtDouble
from tests.unit.infer import models
from tests.unit.infer.models import sum_model
from tests.unit.infer.tensorrt.rig import call_refusal, load_refusal, prepare_refusal, ramp, ready
from tests.unit.infer.tflite_models import sum_tflite


def test_an_engine_is_built_once_and_serves(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    model = ready(tensorrt, file, options)
    assert trt.calls == ["Runtime", "Builder", "timing 0", "build", "Runtime", "deserialize"]
    ready(tensorrt, file, options).close()
    assert trt.calls.count("build") == 1
    assert model.info.runtime == "tensorrt:gpu"
    assert (model.info.model, model.info.version, model.info.sha256) == ("sum", "7", file.sha256)
    assert model.info.placement == (("gpu", 3),)
    assert [tuple(spec) for spec in model.info.inputs] == [("x", "float32", (-1, 4))]
    assert [tuple(spec) for spec in model.info.outputs] == [("y", "float32", (-1,))]
    np.testing.assert_allclose(model.infer({"x": ramp(5)}, deadline_s=1)["y"], ramp(5).sum(axis=1), atol=1e-6)
    model.close()
    model.close()
    assert call_refusal(model).code == "closed"
    assert cuda.outstanding() == 0


def test_networks_are_strongly_typed_and_exact_and_bounded(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions
) -> None:
    tensorrt.prepare(file, "gpu", options)
    assert trt.flags == (0b10 if trt.__version__.startswith("10.") else 0)
    assert trt.config is not None
    assert BuilderFlag.TF32 not in trt.config.flags
    assert list(trt.config.limits.values()) == [1 << 30]
    assert trt.config.default_device_type is DeviceType.GPU
    assert trt.config.profiles[0].shapes == {"x": [(1, 4), (8, 4), (32, 4)]}


def test_an_engine_that_was_not_built_here_is_built_here(
    tensorrt: Tensorrt, file: ModelFile, options: LoadOptions
) -> None:
    assert load_refusal(tensorrt, file, options).code == "engine_stale"
    ready(tensorrt, file, options).close()


@pytest.mark.parametrize("what", ["driver", "version", "model", "device"])
def test_whatever_changes_makes_another_engine(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, file: ModelFile, options: LoadOptions, what: str
) -> None:
    tensorrt.prepare(file, "gpu", options)
    device = "gpu"
    if what == "driver":
        cuda.installed("570.00")
    elif what == "version":
        trt.__version__ += ".1"
    elif what == "model":
        file = open_model(models.unary(file.path, "Relu"), allow_unsigned=True)
    else:
        device = "gpu:1"
    assert load_refusal(tensorrt, file, options, device).code == "engine_stale"


def test_an_engine_that_the_library_refuses_is_forgotten_and_built_again(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    tensorrt.prepare(file, "gpu", options)
    trt.gpu = "another GPU under the same name"
    error = load_refusal(tensorrt, file, options)
    assert (error.code, "not compatible" in error.message) == ("engine_stale", True)
    ready(tensorrt, file, options).close()
    assert trt.calls.count("build") == 2
    assert cuda.outstanding() == 0


def test_a_lack_of_memory_says_nothing_against_the_engine(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions
) -> None:
    tensorrt.prepare(file, "gpu", options)
    trt.deserialize_error = "Error Code 2: Cuda Runtime (cudaError 2: out of memory)"
    assert load_refusal(tensorrt, file, options).code == "out_of_memory"
    trt.deserialize_error = ""
    tensorrt.load(file, "gpu", options).close()
    assert trt.calls.count("build") == 1


def test_a_damaged_engine_is_never_given_to_the_library(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, tmp_path: Path
) -> None:
    tensorrt.prepare(file, "gpu", options)
    (plan,) = (tmp_path / "cache" / "tensorrt").glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    assert load_refusal(tensorrt, file, options).code == "engine_stale"
    assert "deserialize" not in trt.calls
    ready(tensorrt, file, options).close()


def test_what_the_first_build_learned_helps_the_next_and_nothing_of_another_version(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, tmp_path: Path
) -> None:
    tensorrt.prepare(file, "gpu", options)
    other = open_model(models.unary(tmp_path / "other.onnx", "Relu"), allow_unsigned=True)
    tensorrt.prepare(other, "gpu", options)
    learned = f"timing {len(trt.timing)}"
    assert [call for call in trt.calls if call.startswith("timing")] == ["timing 0", learned]
    trt.timing = b"what another version would say"
    tensorrt.prepare(open_model(models.unary(tmp_path / "third.onnx", "Neg"), allow_unsigned=True), "gpu", options)
    assert [call for call in trt.calls if call.startswith("timing")] == ["timing 0", learned, "timing 0"]


def test_without_a_folder_for_engines_nothing_is_built(tensorrt: Tensorrt, file: ModelFile) -> None:
    assert prepare_refusal(tensorrt, file, LoadOptions()).code == "prepare_failed"
    assert load_refusal(tensorrt, file, LoadOptions()).code == "prepare_failed"


def test_another_format_is_incompatible(tensorrt: Tensorrt, options: LoadOptions, tmp_path: Path) -> None:
    file = open_model(sum_tflite(tmp_path / "m.tflite"), allow_unsigned=True)
    assert prepare_refusal(tensorrt, file, options).code == "incompatible"
    assert load_refusal(tensorrt, file, options).code == "incompatible"


def test_an_operator_that_it_lacks_is_unsupported_and_its_node_is_named(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, options: LoadOptions, tmp_path: Path
) -> None:
    path = models.unary(tmp_path / "m.onnx", "Relu")
    model = onnx.load(path)
    model.graph.node[0].name = "layer1/act"
    onnx.save(model, path)
    trt.unsupported.add("Relu")
    error = prepare_refusal(tensorrt, open_model(path, allow_unsigned=True), options)
    assert error.code == "unsupported"
    assert "node 0 layer1/act (Relu): No importer registered" in error.message
    trt.parser_is_mute = True
    assert prepare_refusal(tensorrt, open_model(path, allow_unsigned=True), options).code == "unsupported"
    assert cuda.outstanding() == 0


def test_bytes_that_are_no_model_are_corrupt(tensorrt: Tensorrt, options: LoadOptions, tmp_path: Path) -> None:
    path = sum_model(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:40])
    assert prepare_refusal(tensorrt, open_model(path, allow_unsigned=True), options).code == "corrupt"


def test_a_free_axis_beside_the_batch_is_incompatible(tensorrt: Tensorrt, options: LoadOptions, tmp_path: Path) -> None:
    shape = {"x": (TensorProto.FLOAT, ["n", "wide"])}, {"y": (TensorProto.FLOAT, ["n", "wide"])}
    path = models.save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], *shape)
    assert prepare_refusal(tensorrt, open_model(path, allow_unsigned=True), options).code == "incompatible"


@pytest.mark.parametrize(
    ("device", "said", "code"),
    [
        ("gpu", "Out of scratch space", "prepare_failed"),
        ("gpu", "", "prepare_failed"),
        ("dla:1", "DLA validation failed for layer act", "placement_rejected"),
        ("dla:1", "something else", "prepare_failed"),
    ],
)
def test_a_build_that_fails_says_why(
    tensorrt: Tensorrt,
    trt: TensorrtDouble,
    file: ModelFile,
    options: LoadOptions,
    device: str,
    said: str,
    code: str,
) -> None:
    trt.dla_cores = 2
    trt.build_error = said or " "
    error = prepare_refusal(tensorrt, file, options, device)
    assert (error.code, said in error.message) == (code, True)


def test_a_dla_computes_alone(tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions) -> None:
    trt.dla_cores = 2
    model = ready(tensorrt, file, options, "dla:1")
    assert trt.config is not None
    assert (trt.config.default_device_type, trt.config.DLA_core) == (DeviceType.DLA, 1)
    assert (model.info.runtime, model.info.placement) == ("tensorrt:dla:1", (("dla:1", 3),))
    model.close()
