"""onnxruntime on hardware that is not here: what a session is told, and what is refused, with a forged library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edged.config.rules_links import RUNTIME_DEVICES
from edged.engine.accelerator_state import state_of
from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile, open_model
from edged.infer.rung import is_processor
from edged.infer.runtime import DeviceHealth, LoadOptions
from edged.infer.runtimes.onnxruntime_devices import CPU, CUDA, OPENVINO, PLACES, QNN, TENSORRT, place_of
from edged.infer.runtimes.onnxruntime_runtime import PROBE_MODEL, OnnxRuntime
from edged.infer.runtimes.shared_objects import is_loaded
from tests.doubles.onnxruntime import ForgedLibrary, Node, Part, listed
from tests.unit.infer.models import save, sum_model, unary

SUM = Node("ReduceSum", "sum")
X = np.ones((3, 4), np.float32)


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(sum_model(tmp_path / "sum.onnx"), allow_unsigned=True)


def plugin(package: str) -> str:
    return f"/packages/{package}/provider.so"


def runtime_of(library: ForgedLibrary, find: Any = plugin) -> OnnxRuntime:
    """In a process that has not loaded the package `openvino`, whatever other tests have done to this one."""
    return OnnxRuntime(library, find, lambda part: False)


def gpu(*nodes: Part, providers: Sequence[str] = (CUDA, CPU), **more: Any) -> ForgedLibrary:
    return ForgedLibrary(providers=providers, nodes=nodes or [Part(CUDA, [SUM])], **more)


def refusal(library: ForgedLibrary, file: ModelFile, device: str, find: Any = plugin) -> ModelError:
    with pytest.raises(ModelError) as caught:
        runtime_of(library, find).load(file, device, LoadOptions())
    return caught.value


# --- names ---


@pytest.mark.parametrize(("device", "number"), [("cpu", 0), ("gpu", 0), ("gpu:1", 1), ("openvino-gpu:2", 2)])
def test_a_device_has_a_name_and_some_have_a_number(device: str, number: int) -> None:
    assert place_of(device) == (PLACES[device.partition(":")[0]], number)


@pytest.mark.parametrize("device", ["", "abacus", "cpu:0", "openvino-cpu:1", "gpu:", "gpu:one", "gpu:-1", "GPU"])
def test_other_names_are_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(ModelError, match="cpu, gpu, tensorrt, npu, openvino-cpu, openvino-gpu, openvino-npu") as caught:
        place_of(device)
    assert caught.value.code == "device_unavailable"


def test_only_the_processor_without_a_plug_in_runs_in_a_thread() -> None:
    declared = {device: OnnxRuntime(ForgedLibrary()).abilities(device) for device in PLACES}
    assert [device for device, abilities in declared.items() if abilities.isolation == "thread"] == ["cpu"]
    assert [device for device, abilities in declared.items() if abilities.prepares] == ["tensorrt"]


def test_the_configuration_knows_the_same_devices_and_which_of_them_are_the_processor() -> None:
    assert RUNTIME_DEVICES["onnxruntime"] == tuple(PLACES)
    for device, place in PLACES.items():
        assert is_processor(f"onnxruntime:{device}") == (place.hardware == "CPU")
        assert (state_of([f"onnxruntime:{device}"], "") is None) == (place.hardware == "CPU")


# --- built-in providers: CUDA, TensorRT ---


def test_a_gpu_is_chosen_by_number_and_may_use_the_processor_for_nothing(file: ModelFile) -> None:
    library = gpu()
    model = OnnxRuntime(library).load(file, "gpu:1", LoadOptions())
    (session,) = library.sessions
    assert session.more["providers"] == [
        (CUDA, {"device_id": "1", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    ]
    assert session.options.entries["session.disable_cpu_ep_fallback"] == "1"
    assert (model.info.runtime, model.info.placement) == ("onnxruntime:gpu:1", ((CUDA, 1),))
    np.testing.assert_array_equal(model.infer({"x": X}, deadline_s=1)["y"], [4, 4, 4])


def test_libraries_of_pip_packages_are_looked_for_once_and_silently(
    file: ModelFile, capsys: pytest.CaptureFixture[str]
) -> None:
    library = gpu()
    runtime = OnnxRuntime(library)
    for _ in range(2):
        runtime.load(file, "gpu", LoadOptions())
    assert (library.preloaded, capsys.readouterr().out) == (1, "")


def test_a_wheel_without_the_provider_is_unavailable_with_its_cure(file: ModelFile) -> None:
    error = refusal(ForgedLibrary(), file, "gpu")
    assert (error.code, "edged[cuda]" in error.hint) == ("runtime_unavailable", True)


def test_a_provider_that_did_not_start_is_no_device_and_not_the_processor(file: ModelFile) -> None:
    """What onnxruntime-gpu does without CUDA: it lists the provider, warns, and computes on the processor."""
    library = gpu(Part(CPU, [SUM]), starts=False)
    assert refusal(library, file, "gpu").code == "device_unavailable"
    probe = OnnxRuntime(library).probe("gpu")
    assert (probe.usable, probe.code) == (False, "device_unavailable")


def test_the_library_that_a_provider_lacks_is_named(file: ModelFile, tmp_path: Path) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"no shared object")
    library = gpu(Part(CPU, [SUM]), starts=False, folder=tmp_path)
    assert refusal(library, file, "gpu").message.endswith("compute elsewhere")  # there, but broken: no missing library


def test_a_node_left_to_the_processor_is_refused_by_name(file: ModelFile) -> None:
    library = gpu(Part(CUDA, [SUM, SUM]), Part(CPU, [Node("NonMaxSuppression", "nms")]))
    error = refusal(library, file, "gpu")
    assert error.code == "placement_rejected"
    assert "2 of 3 on CUDAExecutionProvider, 1 of 3 on CPUExecutionProvider" in error.message
    assert "NonMaxSuppression 'nms'" in error.message


def test_nodes_that_compute_shapes_may_stay_on_the_processor_and_are_counted(file: ModelFile) -> None:
    library = gpu(Part(CUDA, [SUM, SUM]), Part(CPU, [Node("Shape", "s"), Node("Gather", "g")]))
    assert OnnxRuntime(library).load(file, "gpu", LoadOptions()).info.placement == ((CUDA, 2), (CPU, 2))


def test_tensorrt_may_leave_nodes_to_cuda_but_must_compute_some(file: ModelFile) -> None:
    providers = (TENSORRT, CUDA, CPU)
    both = gpu(Part(TENSORRT, [SUM]), Part(CUDA, [SUM]), providers=providers)
    model = OnnxRuntime(both).load(file, "tensorrt", LoadOptions())
    assert [name for name, _ in both.sessions[0].more["providers"]] == [TENSORRT, CUDA]
    assert model.info.runtime == "onnxruntime:tensorrt"
    assert refusal(gpu(Part(CUDA, [SUM]), providers=providers), file, "tensorrt").code == "placement_rejected"


def test_engines_are_kept_by_model_device_and_version(file: ModelFile, tmp_path: Path) -> None:
    library = gpu(Part(TENSORRT, [SUM]), providers=(TENSORRT, CUDA, CPU))
    runtime, options = OnnxRuntime(library), LoadOptions(cache=tmp_path / "cache")
    runtime.prepare(file, "tensorrt:1", options)
    (folder,) = (tmp_path / "cache" / "onnxruntime-tensorrt").iterdir()
    assert folder.name == f"{file.sha256[:32]}-tensorrt-1-ort1.31.9"
    told = dict(library.sessions[0].more["providers"])[TENSORRT]
    assert told["trt_engine_cache_path"] == told["trt_timing_cache_path"] == str(folder)
    (folder / "subgraph_sm87.engine").write_bytes(b"engine")
    runtime.prepare(file, "tensorrt:1", options)
    assert len(library.sessions) == 1


def test_without_a_cache_there_is_nothing_to_prepare(file: ModelFile, tmp_path: Path) -> None:
    library = gpu(Part(TENSORRT, [SUM]), providers=(TENSORRT, CUDA, CPU))
    OnnxRuntime(library).prepare(file, "tensorrt", LoadOptions())
    OnnxRuntime(library).prepare(file, "gpu", LoadOptions(cache=tmp_path))
    assert (library.sessions, list(tmp_path.iterdir())) == ([], [file.path])


def test_a_cache_that_cannot_be_made_is_said(file: ModelFile) -> None:
    library = gpu(providers=(TENSORRT, CUDA, CPU))
    with pytest.raises(ModelError) as caught:
        OnnxRuntime(library).prepare(file, "tensorrt", LoadOptions(cache=file.path))
    assert caught.value.code == "prepare_failed"


def test_an_engine_that_does_not_fit_is_forgotten_so_that_it_is_made_again(file: ModelFile, tmp_path: Path) -> None:
    stale = ort_errors.EPFail("TensorRT EP could not deserialize engine from cache: x.engine")
    library = gpu(Part(TENSORRT, [SUM]), providers=(TENSORRT, CUDA, CPU))
    runtime, options = OnnxRuntime(library), LoadOptions(cache=tmp_path / "cache")
    runtime.prepare(file, "tensorrt", options)
    (folder,) = (tmp_path / "cache" / "onnxruntime-tensorrt").iterdir()
    (folder / "x.engine").write_bytes(b"engine")
    library.failures = [stale]
    with pytest.raises(ModelError) as caught:
        runtime.load(file, "tensorrt", options)
    assert (caught.value.code, list(folder.iterdir())) == ("engine_stale", [])


def test_missing_libraries_of_tensorrt_are_no_damage_of_the_model(file: ModelFile) -> None:
    said = RuntimeError("RegisterTensorRTPluginsAsCustomOps Please install TensorRT libraries as mentioned")
    library = gpu(providers=(TENSORRT, CUDA, CPU), failures=[said])
    assert refusal(library, file, "tensorrt").code == "runtime_unavailable"


# --- plug-in providers: OpenVINO, QNN ---


def openvino(*devices: Any, **more: Any) -> ForgedLibrary:
    return ForgedLibrary(devices=devices, nodes=[Part(OPENVINO, [SUM])], **more)


def test_a_plug_in_provider_is_registered_once_and_given_one_device(file: ModelFile) -> None:
    wanted = listed(OPENVINO, "GPU")
    library = openvino(listed(OPENVINO, "CPU"), wanted, listed(QNN, "NPU"))
    runtime = runtime_of(library)
    for _ in range(2):
        runtime.load(file, "openvino-gpu", LoadOptions())
    runtime_of(library).load(file, "openvino-gpu", LoadOptions())  # another object of the same process
    assert library.registered == [("onnxruntime_ep_openvino", "/packages/onnxruntime_ep_openvino/provider.so")]
    ((device, told),) = library.sessions[0].options.devices
    assert device is wanted
    assert json.loads(told["load_config"]) == {
        "GPU": {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    }
    assert library.sessions[0].more == {}


def test_openvino_on_the_processor_keeps_to_the_threads_of_the_hardware_class(file: ModelFile) -> None:
    library = openvino(listed(OPENVINO, "CPU"))
    runtime_of(library).load(file, "openvino-cpu", LoadOptions(threads=3))
    ((_, told),) = library.sessions[0].options.devices
    assert json.loads(told["load_config"])["CPU"]["INFERENCE_NUM_THREADS"] == "3"


def test_an_npu_keeps_its_own_precision(file: ModelFile) -> None:
    library = openvino(listed(OPENVINO, "NPU"))
    runtime_of(library).load(file, "openvino-npu", LoadOptions())
    assert library.sessions[0].options.devices[0][1] == {}
    qnn = ForgedLibrary(devices=[listed(QNN, "NPU")], nodes=[Part(QNN, [SUM])])
    runtime_of(qnn).load(file, "npu", LoadOptions())
    assert qnn.sessions[0].options.devices[0][1] == {"backend_type": "htp", "offload_graph_io_quantization": "0"}


@pytest.mark.parametrize(
    ("device", "devices", "offers"),
    [
        ("openvino-gpu", [], "none"),
        ("openvino-gpu", [listed(OPENVINO, "CPU")], "CPU"),
        ("openvino-gpu:1", [listed(OPENVINO, "GPU")], "GPU"),
        ("openvino-npu", [listed(OPENVINO, "NPU", virtual=True)], "none"),
        ("npu", [listed(OPENVINO, "NPU")], "none"),
    ],
)
def test_hardware_that_is_not_offered_is_not_replaced(
    file: ModelFile, device: str, devices: Sequence[Any], offers: str
) -> None:
    library = openvino(*devices)
    error = refusal(library, file, device)
    assert (error.code, error.message.endswith(f"it offers {offers}")) == ("device_unavailable", True)
    assert not library.sessions
    asked = runtime_of(ForgedLibrary(devices=devices))
    assert asked.health(device) == DeviceHealth(), "nothing is loaded just to ask"
    assert asked.probe(device).code == "device_unavailable"
    assert asked.health(device).state == "failed"


def test_a_plug_in_whose_package_is_missing_or_broken_is_unavailable(file: ModelFile) -> None:
    def missing(package: str) -> str:
        raise ModuleNotFoundError(f"No module named {package!r}")

    error = refusal(openvino(), file, "openvino-cpu", missing)
    assert (error.code, error.hint) == ("runtime_unavailable", "pip install 'edged[ort-openvino]'")
    broken = refusal(openvino(), file, "npu", lambda package: "/packages/broken.so")
    assert (broken.code, "Failed to load library" in broken.message) == ("runtime_unavailable", True)


# --- probes, health, faults ---


def test_a_probe_computes_on_a_built_in_provider_and_lists_a_plug_ins_device() -> None:
    library = gpu(runs=[RuntimeError("CUDA failure 209: no kernel image is available for execution on the device")])
    assert OnnxRuntime(library).probe("gpu").code == "runtime_unavailable"
    good = OnnxRuntime(gpu()).probe("gpu")
    assert (good.usable, good.devices[0].kind, good.devices[0].name) == (True, "gpu", CUDA)
    found = runtime_of(openvino(listed(OPENVINO, "NPU"))).probe("openvino-npu")
    assert (found.usable, found.devices[0].vendor, found.versions[OPENVINO]) == (True, "ACME", "9.9")


def test_the_model_of_the_probe_is_a_relu(tmp_path: Path) -> None:
    path = tmp_path / "probe.onnx"
    path.write_bytes(PROBE_MODEL)
    model = OnnxRuntime().load(open_model(path, allow_unsigned=True), "cpu", LoadOptions())
    x = np.array([[-1, 0, 1, 2]], np.float32)
    assert model.infer({"x": x}, deadline_s=1)["y"].tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ort_errors.Fail("CUDA failure 700: an illegal memory access was encountered ; GPU=0"), "device_lost"),
        (ort_errors.EPFail("CUDA failure 719: unspecified launch failure"), "device_lost"),
        (ort_errors.RuntimeException("CUDA error 999: unknown error"), "device_lost"),
        (ort_errors.DeviceReset("the NPU was reset"), "device_lost"),
        (ort_errors.Fail("DXGI_ERROR_DEVICE_REMOVED: device removed"), "device_lost"),
        (ort_errors.Fail("CUDA failure 2: out of memory ; GPU=0"), "out_of_memory"),
        (ort_errors.RuntimeException("BFCArena::AllocateRawInternal Failed to allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (ort_errors.Fail("CUDA failure 701: too many resources requested for launch"), "infer_failed"),
        (ort_errors.Fail("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED"), "infer_failed"),
        (ort_errors.InvalidArgument("Got invalid dimensions for input: x"), "invalid_input"),
        (ort_errors.Fail("Non-zero status code returned while running Gather node"), "infer_failed"),
    ],
)
def test_what_a_device_says_while_it_computes_becomes_a_code(file: ModelFile, said: Exception, code: str) -> None:
    model = OnnxRuntime(gpu(runs=[said])).load(file, "gpu", LoadOptions())
    with pytest.raises(InferenceError) as caught:
        model.infer({"x": X}, deadline_s=1)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ort_errors.RuntimeException("CUDA failure 100: no CUDA-capable device is detected"), "device_unavailable"),
        (ort_errors.RuntimeException("CUDA failure 35: driver version is insufficient"), "device_unavailable"),
        (ort_errors.DeviceReset("the NPU was reset"), "device_unavailable"),
        (ort_errors.RuntimeException("CUDA failure 2: out of memory"), "out_of_memory"),
        (ort_errors.EPFail("the backend refused the graph"), "load_failed"),
        (ort_errors.Fail("what nobody has seen before"), "load_failed"),
        (ort_errors.InvalidProtobuf("Protobuf parsing failed."), "corrupt"),
    ],
)
def test_what_a_device_says_while_it_loads_becomes_a_code(file: ModelFile, said: Exception, code: str) -> None:
    assert refusal(gpu(failures=[said]), file, "gpu").code == code


# --- the real library ---


def test_the_real_library_says_which_provider_computes_each_node(tmp_path: Path) -> None:
    model = OnnxRuntime().load(open_model(sum_model(tmp_path / "m.onnx"), allow_unsigned=True), "cpu", LoadOptions())
    assert model.info.placement == ((CPU, 1),)


@pytest.mark.parametrize("device", [device for device in PLACES if device != "cpu"])
def test_on_a_machine_without_it_every_other_device_is_refused_and_none_becomes_the_processor(
    tmp_path: Path, device: str
) -> None:
    """In a process of its own: what a provider loads stays there, and OpenVINO's keeps the package out."""
    path = unary(tmp_path / "m.onnx", "Abs")
    said = in_a_process(
        f"probe = RUNTIME.probe({device!r})\n"
        f"if probe.usable: print('usable')\n"
        "else:\n"
        f"    try: RUNTIME.load(open_model(Path({str(path)!r}), allow_unsigned=True), {device!r}, LoadOptions())\n"
        "    except ModelError as error: print(probe.code, error.code)\n"
    )
    if said == "usable":
        pytest.skip(f"onnxruntime:{device} is usable here")
    assert said in ("device_unavailable device_unavailable", "runtime_unavailable runtime_unavailable")


def in_a_process(code: str) -> str:
    """What a process says that has nothing loaded but onnxruntime."""
    imports = (
        "from pathlib import Path\n"
        "from edged.errors import ModelError\n"
        "from edged.infer.loading import open_model\n"
        "from edged.infer.registry import find_runtime\n"
        "from edged.infer.runtime import LoadOptions\n"
        "RUNTIME = find_runtime('onnxruntime')\n"
    )
    done = subprocess.run([sys.executable, "-c", imports + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_two_copies_of_openvino_do_not_come_into_one_process() -> None:
    """The second to come would use the library of the first, without an error, and lack what that lacks."""
    pytest.importorskip("onnxruntime_ep_openvino", reason="there is no provider of OpenVINO for this processor")
    package_last = "try: find_runtime('openvino')\nexcept ModelError as error: print(error.code, error)\n"
    assert in_a_process(f"RUNTIME.probe('openvino-cpu')\n{package_last}").startswith(
        "runtime_unavailable Cannot use the runtime 'openvino': onnxruntime has loaded its own OpenVINO"
    )
    provider_last = "probe = RUNTIME.probe('openvino-cpu')\nprint(probe.code, probe.reason)\n"
    assert in_a_process(f"find_runtime('openvino')\n{provider_last}").startswith(
        "runtime_unavailable Cannot use onnxruntime:openvino-cpu: this process has loaded the package openvino"
    )


def test_a_system_that_does_not_tell_what_is_loaded_is_believed_to_have_nothing(tmp_path: Path) -> None:
    assert not is_loaded("libc", tmp_path / "maps")


def test_closing_ends_a_call_in_progress_before_its_next_node(tmp_path: Path) -> None:
    """So a call that its host has given up does not compute to the end."""
    side, nodes = 600, 400
    names = ["x", *(f"h{number}" for number in range(1, nodes)), "y"]
    graph = [onnx.helper.make_node("MatMul", [names[at], "w"], [names[at + 1]]) for at in range(nodes)]
    weights = onnx.numpy_helper.from_array(np.eye(side, dtype=np.float32), "w")
    port = (onnx.TensorProto.FLOAT, ["n", side])
    path = save(tmp_path / "m.onnx", graph, {"x": port}, {"y": port}, initializer=[weights])
    model = OnnxRuntime().load(open_model(path, allow_unsigned=True), "cpu", LoadOptions())
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model.infer, {"x": np.ones((side, side), np.float32)}, deadline_s=60)
        model.close()
        with pytest.raises(InferenceError) as caught:
            call.result()
    assert caught.value.code == "closed"
