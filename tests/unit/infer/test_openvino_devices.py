"""OpenVINO on devices that are not here, with a forged core; and what importing it must not do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import DeviceHealth, LoadOptions
from edged.infer.runtimes.openvino_library import call_error, core, load_error
from edged.infer.runtimes.openvino_runtime import OpenvinoRuntime
from tests.unit.infer.models import sum_model

# Raises where anything would leave the process, and says what was tried.
GUARD = """
import sys
PROCESSES = {"os.fork", "os.posix_spawn", "subprocess.Popen"}
def guard(event, args):
    if event in PROCESSES or event.startswith(("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.")):
        print("tried", event, flush=True)
        raise RuntimeError("no traffic in a test")
sys.addaudithook(guard)
"""


class ForgedCore:
    """Finds other devices and compiles for the real processor; says that `placed` computes."""

    def __init__(self, found: Sequence[str], *, placed: Sequence[str] = (), failure: Exception | None = None) -> None:
        self.available_devices = list(found)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._placed, self._failure = list(placed), failure

    def get_property(self, device: str, name: str) -> str:
        if self._failure is not None:
            raise self._failure
        return "ACME 9"

    def compile_model(self, graph: Any, device: str, properties: dict[str, Any]) -> Any:
        self.asked.append((device, properties))
        if self._failure is not None:
            raise self._failure
        return ForgedCompiled(core().compile_model(graph, "CPU"), self._placed)


class ForgedCompiled:
    def __init__(self, real: Any, placed: Sequence[str]) -> None:
        self._real, self._placed = real, placed

    def get_property(self, name: str) -> Sequence[str]:
        assert name == "EXECUTION_DEVICES"
        return self._placed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(sum_model(tmp_path / "sum.onnx"), allow_unsigned=True)


def test_a_gpu_and_an_npu_belong_into_a_process_and_the_processor_into_a_thread() -> None:
    declared = {device: OpenvinoRuntime().abilities(device) for device in ("cpu", "gpu", "gpu:1", "npu")}
    assert {device: (each.isolation, each.prepares) for device, each in declared.items()} == {
        "cpu": ("thread", False),
        "gpu": ("process", True),
        "gpu:1": ("process", True),
        "npu": ("process", True),
    }


def test_a_gpu_computes_float32_as_float32_and_keeps_what_it_compiled(file: ModelFile, tmp_path: Path) -> None:
    forged = ForgedCore(["CPU", "GPU"], placed=["GPU"])
    runtime = OpenvinoRuntime(lambda: forged)
    runtime.prepare(file, "gpu", LoadOptions(cache=tmp_path))
    model = runtime.load(file, "gpu", LoadOptions())
    (prepared, loaded) = forged.asked
    assert prepared[1]["CACHE_DIR"] == str(tmp_path / "openvino")
    assert loaded == (
        "GPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
        },
    )
    assert (model.info.runtime, model.info.placement[0][0]) == ("openvino:gpu", "GPU")


def test_without_a_cache_or_on_the_processor_there_is_nothing_to_prepare(file: ModelFile, tmp_path: Path) -> None:
    forged = ForgedCore(["CPU", "GPU"])
    OpenvinoRuntime(lambda: forged).prepare(file, "gpu", LoadOptions())
    OpenvinoRuntime(lambda: forged).prepare(file, "cpu", LoadOptions(cache=tmp_path))
    assert forged.asked == []


def test_a_graph_that_computes_elsewhere_than_it_was_told_to_is_refused(file: ModelFile) -> None:
    forged = ForgedCore(["CPU", "NPU"], placed=["CPU"])
    with pytest.raises(ModelError) as caught:
        OpenvinoRuntime(lambda: forged).load(file, "npu", LoadOptions())
    assert caught.value.code == "placement_rejected"


def test_the_real_processor_says_how_many_nodes_it_computes(file: ModelFile) -> None:
    ((device, nodes),) = OpenvinoRuntime().load(file, "cpu", LoadOptions()).info.placement
    assert (device, nodes > 0) == ("CPU", True)


def test_a_probe_names_the_device_or_says_why_not() -> None:
    good = OpenvinoRuntime(lambda: ForgedCore(["CPU", "GPU.0", "GPU.1"])).probe("gpu:1")
    assert (good.usable, good.devices[0].id, good.devices[0].kind, good.devices[0].name) == (
        True,
        "GPU.1",
        "gpu",
        "ACME 9",
    )
    absent = OpenvinoRuntime(lambda: ForgedCore(["CPU"])).probe("npu")
    assert (absent.usable, absent.code) == (False, "device_unavailable")
    broken = OpenvinoRuntime(lambda: ForgedCore(["GPU"], failure=RuntimeError("libOpenCL.so.1"))).probe("gpu")
    assert (broken.usable, broken.code, broken.reason) == (False, "device_unavailable", "libOpenCL.so.1")


def test_the_processor_is_well_a_listed_device_unknown_and_an_absent_one_failed() -> None:
    runtime = OpenvinoRuntime(lambda: ForgedCore(["CPU", "GPU"]))
    assert [runtime.health(device).state for device in ("cpu", "gpu", "npu")] == ["ok", "unknown", "failed"]
    assert runtime.health("gpu") == DeviceHealth()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("[GPU] clWaitForEvents, error code: CL_OUT_OF_HOST_MEMORY", "out_of_memory"),
        ("[GPU] Failed to allocate 12 bytes", "out_of_memory"),
        ("L0 zeFenceHostSynchronize result: ZE_RESULT_ERROR_DEVICE_LOST, code 0x70000001 - device hung", "device_lost"),
        ("Check 'x' failed\nwhat nobody has seen before", "infer_failed"),
    ],
)
def test_what_a_device_says_becomes_a_code(file: ModelFile, said: str, code: str) -> None:
    called = call_error("m", RuntimeError(said))
    assert isinstance(called, InferenceError)
    assert called.code == code
    expected = {"device_lost": "device_unavailable", "infer_failed": "unsupported"}.get(code, code)
    assert load_error(file, RuntimeError(said)).code == expected


def _guarded(code: str, home: Path) -> str:
    """What a process says that may do nothing outside of itself. Nothing tells it that this is a test."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", f"{GUARD}\n{code}"], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


def test_openvino_reports_nothing_to_its_maker_and_leaves_no_identity_behind(tmp_path: Path) -> None:
    model = sum_model(tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "from pathlib import Path\n"
        "from edged.infer.loading import open_model\n"
        "from edged.infer.runtime import LoadOptions\n"
        "from edged.infer.registry import find_runtime\n"
        f"file = open_model(Path({str(model)!r}), allow_unsigned=True)\n"
        "find_runtime('openvino').load(file, 'cpu', LoadOptions())\n"
        "print('loaded', any(name.startswith('openvino_telemetry.') for name in sys.modules))\n"
    )
    assert _guarded(code, home) == "loaded False\n"
    assert list(home.iterdir()) == []


def test_the_guard_sees_what_openvino_does_when_it_is_left_alone(tmp_path: Path) -> None:
    """A process is forked to post to an analytics service, and an identity is made in the home of the user."""
    said = _guarded(
        "import openvino\nfrom openvino_telemetry import Telemetry\nTelemetry().force_shutdown(2)\n", tmp_path
    )
    assert "tried os.fork" in said
    assert [path.name for path in tmp_path.iterdir()] == ["intel"]
