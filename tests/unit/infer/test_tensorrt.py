"""Native TensorRT against doubles of the module and of the driver: what is built, kept, refused, and in which order."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edged.errors import InferenceError, ModelError
from edged.infer.chain import ChainSpec, load_chain
from edged.infer.contract import CHECKS, Check, Subject
from edged.infer.engine_cache import EngineCache
from edged.infer.loading import ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions, Runtime
from edged.infer.runtimes.tensorrt_model import TensorrtModel, code_of
from edged.infer.runtimes.tensorrt_native import RUNTIME, Tensorrt
from edged.ops.clock import SystemClock
from tests.doubles.libcuda import CudaDouble, make_cuda
from tests.doubles.tensorrt_double import BuilderFlag, DeviceType, TensorrtDouble
from tests.unit.infer import models
from tests.unit.infer.models import read_tensor, sum_model
from tests.unit.infer.tflite_models import sum_tflite


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


def ready(tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str = "gpu") -> TensorrtModel:
    tensorrt.prepare(file, device, options)
    return tensorrt.load(file, device, options)


def ramp(items: int) -> np.ndarray:
    return np.linspace(-3, 3, items * 4, dtype=np.float32).reshape(items, 4)


def load_refusal(tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str = "gpu") -> ModelError:
    with pytest.raises(ModelError) as caught:
        tensorrt.load(file, device, options)
    return caught.value


def prepare_refusal(tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str = "gpu") -> ModelError:
    with pytest.raises(ModelError) as caught:
        tensorrt.prepare(file, device, options)
    return caught.value


def call_refusal(model: TensorrtModel, x: np.ndarray | None = None) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        model.infer({"x": ramp(1) if x is None else x}, deadline_s=0.02)
    return caught.value


# what it declares and finds


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


# building and keeping


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


# refusals of loading


def test_what_a_device_without_room_or_with_another_user_says(
    tensorrt: Tensorrt, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    tensorrt.prepare(file, "gpu", options)
    for state, code in (("memory", "out_of_memory"), ("busy", "device_unavailable")):
        cuda.become(state)
        assert load_refusal(tensorrt, file, options).code == code
    cuda.become("ok")
    assert cuda.outstanding() == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Error Code 1: Cuda Runtime (out of memory)", "out_of_memory"),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", "device_unavailable"),
        ("something else", "load_failed"),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, said: str, code: str
) -> None:
    tensorrt.prepare(file, "gpu", options)
    trt.context_error = said
    assert load_refusal(tensorrt, file, options).code == code


def test_ports_that_cannot_be_served_are_refused(
    tensorrt: Tensorrt, trt: TensorrtDouble, cuda: CudaDouble, file: ModelFile, options: LoadOptions, tmp_path: Path
) -> None:
    tensorrt.prepare(file, "gpu", options)
    trt.on_host.add("x")
    assert load_refusal(tensorrt, file, options).code == "incompatible"
    trt.on_host.clear()
    trt.refuses_address.add("y")
    assert load_refusal(tensorrt, file, options).code == "load_failed"
    half = {"x": (TensorProto.FLOAT16, [1, 4])}, {"y": (TensorProto.FLOAT16, [1, 4])}
    path = models.save(tmp_path / "half.onnx", [helper.make_node("Identity", ["x"], ["y"])], *half)
    other = open_model(path, allow_unsigned=True)
    tensorrt.prepare(other, "gpu", options)
    assert load_refusal(tensorrt, other, options).code == "incompatible"
    assert cuda.outstanding() == 0


# calls


@pytest.mark.parametrize("items", [0, 1, 32, 33, 70])
def test_a_batch_of_any_size_is_answered_in_calls_that_the_engine_takes(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, items: int
) -> None:
    model = ready(tensorrt, file, options)
    answer = model.infer({"x": ramp(items)}, deadline_s=1)["y"]
    assert (answer.shape, answer.dtype.name) == ((items,), "float32")
    np.testing.assert_allclose(answer, ramp(items).sum(axis=1), atol=1e-5)
    full, rest = divmod(items, 32)
    assert [call for call in trt.calls if call.startswith("execute")] == (
        ["execute 32"] * full + [f"execute {rest}"] * (rest > 0)
    )
    model.close()


def test_inputs_are_read_wherever_they_lie_and_answers_stay(
    tensorrt: Tensorrt, file: ModelFile, options: LoadOptions
) -> None:
    model = ready(tensorrt, file, options)
    spread = np.repeat(ramp(3), 2, axis=1)[:, ::2]
    first = model.infer({"x": spread}, deadline_s=1)["y"]
    model.infer({"x": np.asfortranarray(-ramp(3))}, deadline_s=1)
    np.testing.assert_allclose(first, ramp(3).sum(axis=1), atol=1e-5)
    model.close()


def test_a_fixed_batch_stays_one(tensorrt: Tensorrt, options: LoadOptions, tmp_path: Path) -> None:
    shape = {"x": (TensorProto.FLOAT, [2, 4])}, {"y": (TensorProto.FLOAT, [2, 4])}
    path = models.save(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], *shape)
    model = ready(tensorrt, open_model(path, allow_unsigned=True), options)
    np.testing.assert_array_equal(model.infer({"x": ramp(2)}, deadline_s=1)["y"], -ramp(2))
    assert call_refusal(model, ramp(3)).code == "invalid_input"
    model.close()


def test_inputs_of_different_lengths_and_misfits_are_refused(
    tensorrt: Tensorrt, trt: TensorrtDouble, options: LoadOptions, tmp_path: Path
) -> None:
    two = {name: (TensorProto.FLOAT, ["n", 4]) for name in ("x", "z")}
    one = {"y": (TensorProto.FLOAT, ["n", 4])}
    path = models.save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], two, one)
    model = ready(tensorrt, open_model(path, allow_unsigned=True), options)
    for batch in ({"x": ramp(1)}, {"x": ramp(1), "z": ramp(2)}):
        with pytest.raises(InferenceError) as caught:
            model.infer(batch, deadline_s=1)
        assert caught.value.code == "invalid_input"
    np.testing.assert_array_equal(model.infer({"x": ramp(2), "z": ramp(2)}, deadline_s=1)["y"], 2 * ramp(2))
    trt.refuses_shape = True
    with pytest.raises(InferenceError, match="does not take"):
        model.infer({"x": ramp(2), "z": ramp(2)}, deadline_s=1)
    model.close()


def test_a_call_that_is_not_done_in_time_leaves_a_model_that_answers_nothing(
    tensorrt: Tensorrt, cuda: CudaDouble, file: ModelFile, options: LoadOptions
) -> None:
    model = ready(tensorrt, file, options)
    before = cuda.outstanding()
    cuda.become("wait")
    assert call_refusal(model).code == "infer_timeout"
    cuda.become("ok")
    assert call_refusal(model).code == "infer_timeout"
    model.close()
    assert cuda.outstanding() == before  # the call may still write there: the end of the process frees it


@pytest.mark.parametrize("state", ["lost", "copy"])
def test_an_error_of_cuda_makes_the_device_lost_for_this_process(
    tensorrt: Tensorrt, cuda: CudaDouble, file: ModelFile, options: LoadOptions, state: str
) -> None:
    model = ready(tensorrt, file, options)
    cuda.become(state)
    assert call_refusal(model).code == "device_lost"
    cuda.become("ok")
    assert call_refusal(model).code == "device_lost"
    model.close()


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Error Code 1: Cuda Runtime (out of memory)", "out_of_memory"),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", "device_lost"),
        ("Error Code 3: API Usage Error", "infer_failed"),
    ],
)
def test_what_the_library_says_while_it_computes_becomes_a_code(
    tensorrt: Tensorrt, trt: TensorrtDouble, file: ModelFile, options: LoadOptions, said: str, code: str, starts: bool
) -> None:
    model = ready(tensorrt, file, options)
    trt.execute_error, trt.execute_fails = said, not starts
    assert call_refusal(model).code == code
    trt.execute_error, trt.execute_fails = "", False
    if code != "device_lost":
        assert model.infer({"x": ramp(1)}, deadline_s=1)["y"].shape == (1,)
    model.close()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CUDA failure 2: CUDA_ERROR_OUT_OF_MEMORY in cuMemAlloc_v2", "out_of_memory"),
        ("CUDA failure 700: CUDA_ERROR_ILLEGAL_ADDRESS in cuStreamQuery", "device_lost"),
        ("CUDA failure 1: CUDA_ERROR_INVALID_VALUE in cuMemcpyDtoH_v2", "infer_failed"),
    ],
)
def test_numbers_of_cuda_have_one_meaning(text: str, code: str) -> None:
    assert code_of(text) == code


# what all runtimes keep, and chains


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
