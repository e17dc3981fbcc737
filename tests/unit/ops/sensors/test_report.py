"""The whole report: nothing raises, nothing unknown becomes a number, and what it means to the governor."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.ops.sensors.facts import facts
from edged.ops.sensors.nvml import Gpu, Nvml, NvmlReading
from edged.ops.sensors.report import DeviceReport, read_devices, readings
from edged.policy.governor import Facts
from tests.doubles.nvml import NvmlLibrary
from tests.doubles.sysfs import Box


def report(root: Path) -> DeviceReport:
    return read_devices(root)


def with_gpus(found: DeviceReport, *gpus: Gpu) -> DeviceReport:
    return found._replace(nvidia=NvmlReading(None, gpus))


def everything(root: Path) -> Box:
    """A box that has one of each."""
    box = Box(root).zone(0, "cpu-thermal", 70, ("passive", 85), ("critical", 105)).zone(1, "cpu-thermal", 60)
    box.cooling(0, "cpufreq-cpu0", 0).cooling(1, "pwm-fan", 2).cpufreq(0, 1000, 2000, 2000).throttle_counts(0, 1, 2)
    box.raspberry("0").chip(0, "nvme", temp1_input=50_000, temp1_crit=85_000).chip(1, "rpi_volt", in0_lcrit_alarm=0)
    box.apex(0, 60).usb("1-1", "1a6e", "089a").jetson().memory(1_000_000).in_group("edged")
    box.group("edged", 50, 200).emmc(0, "0x02 0x01", "0x01")
    for resource in ("cpu", "memory", "io"):
        box.stalls(resource, "1.00", "0.50")
    return box


def test_an_empty_box_gives_an_empty_report_no_numbers_and_no_facts(tmp_path: Path) -> None:
    found = read_devices(tmp_path, state_dir=tmp_path / "gone", nvml=Nvml("nowhere.so.1"))
    assert readings(found) == {}
    assert facts(found) == facts(found, found) == Facts()


def test_a_box_that_has_one_of_each_is_told_with_units_and_devices_of_one_name_are_numbered(tmp_path: Path) -> None:
    everything(tmp_path)
    library = NvmlLibrary({"nvmlDeviceGetTemperature": (55,), "nvmlDeviceGetCurrentClocksEventReasons": (0,)})
    found = readings(read_devices(tmp_path, nvml=Nvml("any", lambda _: library), state_dir=tmp_path))
    disk = {name: found.pop(name) for name in ("disk_free_bytes", "disk_total_bytes", "disk_free_share")}
    assert disk["disk_free_bytes"] > 0
    stalls = {name: number for name, number in found.items() if "_stalls_" in name}
    assert len(stalls) == 12
    assert {name: number for name, number in found.items() if name not in stalls} == {
        "zone_cpu_thermal_c": 70.0,
        "zone_cpu_thermal_passive_c": 85.0,
        "zone_cpu_thermal_critical_c": 105.0,
        "zone_cpu_thermal_2_c": 60.0,
        "cooling_cpufreq_cpu0_state": 0.0,
        "cooling_cpufreq_cpu0_most": 10.0,
        "hwmon_nvme_temp1_c": 50.0,
        "hwmon_nvme_temp1_critical_c": 85.0,
        "apex_0_c": 60.0,
        "apex_0_trip_c": 85.0,
        "apex_0_alive": 1.0,
        "usb_tpus_count": 1.0,
        "cpu_hz": 1_000_000.0,
        "cpu_limit_hz": 2_000_000.0,
        "cpu_full_hz": 2_000_000.0,
        "cpu_core_throttle_events": 1.0,
        "cpu_package_throttle_events": 2.0,
        "pi_under_voltage": 0.0,
        "pi_slowed": 0.0,
        "supply_under_voltage": 0.0,
        "memory_available_bytes": 1_024_000_000.0,
        "memory_total_bytes": 4_096_000_000.0,
        "memory_group_used_bytes": 50.0,
        "memory_group_limit_bytes": 200.0,
        "memory_available_share": 0.25,
        "flash_mmcblk0_used_share": 0.2,
        "flash_mmcblk0_reserve": 0.0,
        "nvidia_answers": 1.0,
        "gpu_0_answers": 1.0,
        "gpu_0_c": 55.0,
        "gpu_0_slowed": 0.0,
        "jetson_gpu_load_share": 0.503,
        "jetson_gpu_hz": 918_000_000.0,
        "jetson_gpu_most_hz": 1_020_000_000.0,
    }


def test_names_are_fit_for_metrics_whatever_a_device_calls_itself(tmp_path: Path) -> None:
    Box(tmp_path).zone(0, "Tboard °C (front)", 40).zone(1, "///", 41).chip(
        0, "k10temp", temp1_input=1, temp1_label="T*"
    )
    names = readings(report(tmp_path))
    assert set(names) == {"zone_tboard_c_front_c", "zone_unnamed_c", "hwmon_k10temp_t_c"}
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)


def test_a_driver_without_an_answer_is_told_and_a_box_without_a_driver_is_not(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert readings(found._replace(nvidia=NvmlReading("driver_not_loaded"))) == {"nvidia_answers": 0.0}
    assert readings(with_gpus(found, Gpu(0, None, None, "gpu_is_lost"))) == {
        "nvidia_answers": 1.0,
        "gpu_0_answers": 0.0,
    }


def test_a_flash_without_a_word_about_its_reserve_and_an_apex_without_a_state_are_unknown(tmp_path: Path) -> None:
    box = Box(tmp_path).emmc(0, "0x02 0x01", "?")
    box.write("sys/class/apex/apex_0/temp", 50_000)
    assert readings(report(tmp_path)) == {"flash_mmcblk0_used_share": 0.2, "apex_0_c": 50.0}


def test_the_tightest_margin_of_all_parts_counts(tmp_path: Path) -> None:
    box = Box(tmp_path).zone(0, "cpu", 70, ("passive", 85), ("critical", 105))
    assert facts(report(tmp_path))[:2] == (15.0, 35.0)
    box.chip(0, "nvme", temp1_input=60_000, temp1_crit=85_000)
    assert facts(report(tmp_path))[:2] == (15.0, 25.0)
    box.chip(1, "coretemp", temp1_input=91_000, temp1_crit=100_000)
    assert facts(report(tmp_path))[:2] == (9.0, 25.0)
    box.apex(0, 80, alarms=True)
    assert facts(report(tmp_path))[:2] == (5.0, 20.0)
    gpu = Gpu(0, None, None, None, celsius=91, slowdown_c=93, shutdown_c=98)
    assert facts(with_gpus(report(tmp_path), gpu))[:2] == (2.0, 7.0)
    box.zone(1, "hot", 90, ("hot", 95))
    assert facts(report(tmp_path)).critical_margin_c == 5.0


def test_a_temperature_without_a_limit_presses_on_nobody(tmp_path: Path) -> None:
    Box(tmp_path).zone(0, "cpu", 99)
    assert facts(report(tmp_path))[:2] == (None, None)


def test_a_box_is_slowed_as_soon_as_one_part_says_so(tmp_path: Path) -> None:
    box = Box(tmp_path).cooling(0, "pwm-fan", 3)
    assert facts(report(tmp_path)).throttled is None
    box.cooling(1, "cpufreq-cpu0", "?")
    assert facts(report(tmp_path)).throttled is None
    box.cooling(1, "cpufreq-cpu0", 0)
    assert facts(report(tmp_path)).throttled is False
    box.cooling(1, "cpufreq-cpu0", 1)
    assert facts(report(tmp_path)).throttled is True


def test_a_raspberry_an_edge_tpu_or_a_gpu_may_be_what_is_slowed(tmp_path: Path) -> None:
    box = Box(tmp_path).raspberry("0").apex(0, 60)
    assert facts(report(tmp_path)).throttled is False
    assert facts(with_gpus(report(tmp_path), Gpu(0, None, None, None, slowed_by=("hw_thermal",)))).throttled is True
    assert facts(with_gpus(report(tmp_path), Gpu(0, None, None, None, slowed_by=("power_cap",)))).throttled is False
    assert facts(with_gpus(report(tmp_path), Gpu(0, None, None, "gpu_is_lost"))).throttled is False
    box.apex(0, 85)
    assert facts(report(tmp_path)).throttled is True
    box.apex(0, 60).raspberry("4")
    assert facts(report(tmp_path)).throttled is True


def test_counters_of_throttling_speak_only_when_they_grow(tmp_path: Path) -> None:
    box = Box(tmp_path).throttle_counts(0, 5, 5)
    first = report(tmp_path)
    assert facts(first).throttled is None
    assert facts(report(tmp_path), first).throttled is False
    box.throttle_counts(0, 5, 6)
    assert facts(report(tmp_path), first).throttled is True
    box.throttle_counts(0, 0, 0)  # the driver was loaded anew
    assert facts(report(tmp_path), first).throttled is False
    box.chip(0, "soctherm_oc", oc1_event_cnt=1)
    second = report(tmp_path)
    box.chip(0, "soctherm_oc", oc1_event_cnt=2)
    assert facts(report(tmp_path), second).throttled is True


def test_memory_pressure_and_disk_are_handed_on(tmp_path: Path) -> None:
    everything(tmp_path)
    found = facts(read_devices(tmp_path, state_dir=tmp_path))
    assert (found.memory_available_share, found.memory_some_avg10_percent) == (0.25, 1.0)
    assert found.disk_free_bytes is not None
    assert found.disk_free_share is not None


@pytest.fixture(scope="module")
def files() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        everything(Path(folder))
        return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_stands_in_the_files_nothing_raises_and_every_number_is_finite(
    files: list[str], data: st.DataObject
) -> None:
    said = st.one_of(
        st.sampled_from(
            [b"", b"-1\n", b"nan", b"inf", b"0x", b"99999999999999999999", b"max", b"some avg10", b"0::/.."]
        ),
        st.binary(max_size=40),
        st.integers().map(lambda number: str(number).encode()),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        everything(root)
        for name in data.draw(st.lists(st.sampled_from(files), unique=True)):
            path = root / name
            path.unlink()
            if data.draw(st.booleans()):
                path.write_bytes(data.draw(said))
        found = read_devices(root)
        assert all(abs(number) < float("inf") for number in readings(found).values())
        facts(found, found)
