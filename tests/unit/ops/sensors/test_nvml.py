"""NVIDIA GPUs by the driver's library: what it says, what it cannot say, and a GPU that is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edged.ops.sensors.nvml import Gpu, Nvml, NvmlReading
from tests.doubles.nvml import FUNCTION_NOT_FOUND, GPU_IS_LOST, NOT_SUPPORTED, NvmlLibrary

SOURCE = Path(__file__).resolve().parents[3] / "doubles" / "nvml.c"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the functions and structures of the real one (tests/doubles/nvml.c)."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc libc6-dev")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(SOURCE)], check=True)
    return library


FIRST = Gpu(
    number=0,
    name="Test GPU 0",
    uuid="GPU-00000000",
    problem=None,
    celsius=61.0,
    slowdown_c=93.0,
    shutdown_c=98.0,
    slowed_by=("hw_thermal",),
    power_w=70.5,
    power_limit_w=None,
    load_share=0.37,
    memory_used_bytes=2 << 30,
    memory_total_bytes=8 << 30,
    uncorrected_errors=3,
    repair_pending=True,
    repair_failed=False,
)
SECOND = FIRST._replace(
    number=1, name="Test GPU 1", uuid="GPU-00000001", celsius=62.0, slowdown_c=None, shutdown_c=None, slowed_by=()
)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells the compiled library what happens."""
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_library_of_the_real_shape_tells_everything_it_knows(compiled: Path, state: Path) -> None:
    nvml = Nvml(str(compiled))
    assert nvml.read() == NvmlReading(None, (FIRST, SECOND))
    nvml.close()
    nvml.close()
    assert nvml.read().gpus == (FIRST, SECOND)
    nvml.close()


@pytest.mark.parametrize("word", ["lost", "gone"])
def test_a_lost_gpu_is_a_value_its_neighbour_is_still_told_and_it_may_return(
    compiled: Path, state: Path, word: str
) -> None:
    nvml = Nvml(str(compiled))
    state.write_text(word)
    first, second = nvml.read().gpus
    assert first == FIRST
    assert (second.number, second.problem, second.celsius, second.memory_total_bytes) == (1, "gpu_is_lost", None, None)
    state.write_text("ok")
    assert nvml.read().gpus == (FIRST, SECOND)


def test_a_driver_that_was_not_there_is_found_when_it_has_come(compiled: Path, state: Path) -> None:
    nvml = Nvml(str(compiled))
    state.write_text("unloaded")
    assert nvml.read() == NvmlReading("driver_not_loaded")
    state.write_text("ok")
    assert nvml.read().problem is None
    state.write_text("reset")
    assert nvml.read() == NvmlReading("reset_required")
    state.write_text("ok")
    assert nvml.read().gpus == (FIRST, SECOND)


def test_a_box_without_the_driver_has_no_library_and_no_gpus() -> None:
    assert Nvml("libnvidia-ml-that-is-nowhere.so.1").read() == NvmlReading("library_not_found")


def read(answers: dict[str, int | tuple[int, ...]], gpus: int = 1) -> NvmlReading:
    return Nvml("any", lambda _: NvmlLibrary(answers, gpus)).read()


def one(answers: dict[str, int | tuple[int, ...]]) -> Gpu:
    (gpu,) = read(answers).gpus
    return gpu


def test_a_library_that_knows_next_to_nothing_leaves_everything_unknown() -> None:
    assert one({}) == Gpu(0, None, None, None)


def test_a_card_that_supports_nothing_leaves_everything_unknown() -> None:
    functions = (
        "Name UUID Temperature TemperatureThreshold CurrentClocksEventReasons CurrentClocksThrottleReasons PowerUsage "
        "EnforcedPowerLimit UtilizationRates MemoryInfo TotalEccErrors RemappedRows RetiredPagesPendingStatus"
    )
    assert one({f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in functions.split()}) == Gpu(0, None, None, None)


def test_the_temperature_comes_by_the_new_function_where_the_old_one_is_gone() -> None:
    def loader(_: str) -> Any:
        library = NvmlLibrary({"nvmlDeviceGetTemperature": FUNCTION_NOT_FOUND})

        class Newer:
            def __getattr__(self, name: str) -> Any:
                return getattr(library, name)

            def nvmlDeviceGetTemperatureV(self, _handle: Any, reference: Any) -> int:  # noqa: N802  NVML's name
                assert (reference._obj.version, reference._obj.sensor) == (0x0100000C, 0)
                reference._obj.celsius = 44
                return 0

        return Newer()

    (gpu,) = Nvml("any", loader).read().gpus
    assert gpu.celsius == 44.0


@pytest.mark.parametrize("function", ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons"])
def test_clock_reasons_come_by_either_name(function: str) -> None:
    assert one({f"nvmlDeviceGet{function}": (0x1 | 0x4 | 0x20 | 0x80,)}).slowed_by == (
        "power_cap",
        "sw_thermal",
        "hw_power_brake",
    )


@pytest.mark.parametrize("celsius", [201, 4_294_967_295])
def test_an_implausible_temperature_is_unknown(celsius: int) -> None:
    assert one({"nvmlDeviceGetTemperature": (celsius,)}).celsius is None


def test_retired_pages_speak_for_older_cards() -> None:
    gpu = one({"nvmlDeviceGetRetiredPagesPendingStatus": (1,)})
    assert (gpu.repair_pending, gpu.repair_failed) == (True, None)
    gpu = one({"nvmlDeviceGetRemappedRows": (0, 0, 0, 1), "nvmlDeviceGetRetiredPagesPendingStatus": (1,)})
    assert (gpu.repair_pending, gpu.repair_failed) == (False, True)


def test_no_more_than_16_gpus_are_read() -> None:
    assert len(read({}, gpus=40).gpus) == 16


def test_an_error_without_a_name_is_told_by_its_number() -> None:
    assert read({"nvmlDeviceGetCount_v2": 77}) == NvmlReading("nvml_error_77")


def test_after_trouble_the_library_is_let_go_and_opened_anew() -> None:
    opened: list[NvmlLibrary] = []

    def loader(_: str) -> NvmlLibrary:
        answers = {"nvmlDeviceGetHandleByIndex_v2": GPU_IS_LOST} if not opened else {}
        opened.append(NvmlLibrary(answers))
        return opened[-1]

    nvml = Nvml("any", loader)
    assert nvml.read().gpus[0].problem == "gpu_is_lost"
    assert opened[0].calls[-1] == "nvmlShutdown"
    assert nvml.read().gpus[0].problem is None
    assert nvml.read().gpus[0].problem is None
    assert len(opened) == 2


def test_the_module_brings_no_package_and_opens_nothing_when_it_is_imported() -> None:
    code = "import sys, edged.ops.sensors.nvml; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
