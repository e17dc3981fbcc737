"""Processors, chips, Edge TPUs, Jetsons: each says what it can, and the rest is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.ops.sensors.coral import Apex, UsbTpu, read_apex, read_usb_tpus
from edged.ops.sensors.hwmon import HwmonSensor, Supply, read_hwmon, read_supply
from edged.ops.sensors.jetson import Jetson, read_jetson
from edged.ops.sensors.processor import PiThrottled, Processor, read_processor
from tests.doubles.sysfs import Box


def test_the_slowest_cluster_decides_the_frequency(tmp_path: Path) -> None:
    Box(tmp_path).cpufreq(0, 1_500_000, 1_800_000, 1_800_000).cpufreq(4, 600_000, 1_200_000, 2_400_000)
    found = read_processor(tmp_path)
    assert (found.current_hz, found.limit_hz, found.full_hz) == (600_000_000, 1_200_000_000, 1_800_000_000)


def test_throttle_events_are_added_over_cores_and_counted_once_per_package(tmp_path: Path) -> None:
    Box(tmp_path).throttle_counts(0, 3, 9).throttle_counts(1, 4, 9)
    found = read_processor(tmp_path)
    assert (found.core_throttle_events, found.package_throttle_events) == (7, 9)


def test_a_virtual_machine_says_nothing_of_its_processor(tmp_path: Path) -> None:
    assert read_processor(tmp_path) == Processor(None, None, None, None, None, None)


def test_a_frequency_of_zero_or_of_words_is_unknown(tmp_path: Path) -> None:
    Box(tmp_path).cpufreq(0, "<unknown>", 0, -1)
    found = read_processor(tmp_path)
    assert (found.current_hz, found.limit_hz, found.full_hz) == (None, None, None)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ("0", PiThrottled(under_voltage=False, slowed=False, since_boot=False)),
        ("50005", PiThrottled(under_voltage=True, slowed=True, since_boot=True)),
        ("0x50000", PiThrottled(under_voltage=False, slowed=False, since_boot=True)),
        ("1", PiThrottled(under_voltage=True, slowed=False, since_boot=False)),
        ("8", PiThrottled(under_voltage=False, slowed=True, since_boot=False)),
        ("throttled", None),
        ("-1", None),
    ],
)
def test_a_raspberry_tells_by_bits(tmp_path: Path, bits: str, expected: PiThrottled | None) -> None:
    Box(tmp_path).raspberry(bits)
    assert read_processor(tmp_path).pi == expected


def test_chips_tell_their_sensors_by_label_with_plausible_limits(tmp_path: Path) -> None:
    Box(tmp_path).chip(
        0, "nvme", temp1_input=41850, temp1_label="Composite", temp1_max=81850, temp1_crit=84850, temp2_input=-128000
    ).chip(1, "drivetemp", temp1_input=33000, temp1_crit=65261850)
    assert read_hwmon(tmp_path) == (
        HwmonSensor("nvme", "Composite", 41.85, 81.85, 84.85),
        HwmonSensor("nvme", "temp2", None, None, None),
        HwmonSensor("drivetemp", "temp1", 33.0, None, None),
    )


def test_a_chip_without_a_name_goes_by_its_number(tmp_path: Path) -> None:
    Box(tmp_path).write("sys/class/hwmon/hwmon3/temp1_input", 30_000)
    assert read_hwmon(tmp_path)[0].chip == "hwmon3"


def test_the_supply_is_unknown_until_a_chip_speaks_of_it(tmp_path: Path) -> None:
    assert read_supply(tmp_path) == Supply(None, None)
    Box(tmp_path).chip(0, "rpi_volt").chip(1, "soctherm_oc")
    assert read_supply(tmp_path) == Supply(None, None)
    Box(tmp_path).chip(0, "rpi_volt", in0_lcrit_alarm=1)
    Box(tmp_path).chip(1, "soctherm_oc", oc1_event_cnt=0, oc2_event_cnt=15, oc3_event_cnt=37)
    assert read_supply(tmp_path) == Supply(under_voltage=True, over_current_events=52)


def test_a_pcie_edge_tpu_tells_temperature_limits_and_state(tmp_path: Path) -> None:
    Box(tmp_path).apex(0, 52.3).apex(1, 91.1, alarms=True, status="DEAD")
    assert read_apex(tmp_path) == (
        Apex("apex_0", 52.3, (85.0, 90.0, 95.0), None, None, "ALIVE"),
        Apex("apex_1", 91.1, (85.0, 90.0, 95.0), 100.0, 100.0, "DEAD"),
    )


def test_a_sleeping_edge_tpu_has_no_temperature(tmp_path: Path) -> None:
    Box(tmp_path).apex(0, "-89700").write("sys/class/apex/apex_0/status", "")
    assert read_apex(tmp_path)[0]._replace(trips_c=()) == Apex("apex_0", None, (), None, None, None)


def test_usb_edge_tpus_are_found_before_and_after_their_firmware(tmp_path: Path) -> None:
    Box(tmp_path).usb("1-1", "1a6e", "089a", 480).usb("2-1.4", "18d1", "9302").usb("2-2", "18d1", "4ee7")
    Box(tmp_path).write("sys/bus/usb/devices/2-1.4:1.0/bInterfaceNumber", "00")
    assert read_usb_tpus(tmp_path) == (UsbTpu("1-1", "unopened", 480), UsbTpu("2-1.4", "opened", 5000))


def test_a_box_without_edge_tpus_has_none(tmp_path: Path) -> None:
    assert (read_apex(tmp_path), read_usb_tpus(tmp_path)) == ((), ())


def test_a_jetson_tells_load_and_clock_of_its_gpu(tmp_path: Path) -> None:
    Box(tmp_path).jetson()
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert read_jetson(tmp_path) == Jetson(model, 0.503, 918_000_000, 1_020_000_000)


def test_the_gpu_is_found_by_its_device_tree_name_as_well(tmp_path: Path) -> None:
    box = (
        Box(tmp_path)
        .write("proc/device-tree/compatible", "nvidia,tegra194\0")
        .write("sys/class/devfreq/13e10000.host1x/cur_freq", 1)
    )
    box.write("sys/class/devfreq/soc-device/device/of_node/name", "GV11B").write(
        "sys/class/devfreq/soc-device/cur_freq", 114_750_000
    )
    box.write("sys/devices/gpu.0/load", 1000)
    assert read_jetson(tmp_path) == Jetson(None, 1.0, 114_750_000, None)


def test_a_jetson_without_a_visible_gpu_node_still_tells_its_load(tmp_path: Path) -> None:
    box = Box(tmp_path).write("proc/device-tree/compatible", "nvidia,tegra210\0")
    assert read_jetson(tmp_path) == Jetson(None, None, None, None)
    box.write("sys/devices/platform/gpu.0/load", 12)
    assert read_jetson(tmp_path) == Jetson(None, 0.012, None, None)


@pytest.mark.parametrize("load", ["1001", "-3", "busy"])
def test_a_load_beyond_the_whole_is_unknown(tmp_path: Path, load: str) -> None:
    Box(tmp_path).jetson(load=load)
    found = read_jetson(tmp_path)
    assert found is not None
    assert found.gpu_load_share is None


def test_another_board_is_no_jetson(tmp_path: Path) -> None:
    Box(tmp_path).write("proc/device-tree/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
    assert read_jetson(tmp_path) is None
