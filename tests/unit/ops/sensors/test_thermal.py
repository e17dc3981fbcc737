"""Zones, their limits and what the kernel does against heat."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.ops.sensors.thermal import CoolingDevice, ThermalZone, read_cooling, read_zones
from tests.doubles.sysfs import Box


def test_a_zone_tells_its_name_its_temperature_and_the_lowest_limit_of_each_kind(tmp_path: Path) -> None:
    Box(tmp_path).zone(
        0, "cpu-thermal", 61.5, ("active", 50), ("passive", 85), ("passive", 80), ("hot", 95), ("critical", 105)
    )
    assert read_zones(tmp_path) == (ThermalZone("cpu-thermal", 61.5, 80.0, 95.0, 105.0),)


def test_a_box_without_zones_has_none_and_does_not_complain(tmp_path: Path) -> None:
    assert read_zones(tmp_path) == ()
    assert read_cooling(tmp_path) == ()


@pytest.mark.parametrize("said", ["-127000", "-273000", "200001", "999999", "", "n/a", "1e3", "-"])
def test_a_sensor_that_says_the_impossible_says_nothing(tmp_path: Path, said: str) -> None:
    Box(tmp_path).zone(0, "cpu", said)
    (zone,) = read_zones(tmp_path)
    assert zone.celsius is None


@pytest.mark.parametrize(("said", "celsius"), [("-60000", -60.0), ("-5500", -5.5), ("0", 0.0), ("200000", 200.0)])
def test_a_cold_cabinet_is_plausible(tmp_path: Path, said: str, celsius: float) -> None:
    Box(tmp_path).zone(0, "board", said)
    assert read_zones(tmp_path)[0].celsius == celsius


@pytest.mark.parametrize("limit", [0, -274, 20.8, 39.9, 201])
def test_a_limit_that_stands_for_none_or_is_nonsense_is_no_limit(tmp_path: Path, limit: float) -> None:
    Box(tmp_path).zone(0, "acpitz", 27.8, ("critical", limit), ("passive", limit))
    (zone,) = read_zones(tmp_path)
    assert (zone.celsius, zone.passive_c, zone.critical_c) == (27.8, None, None)


def test_a_zone_that_always_tells_the_same_number_measures_nothing(tmp_path: Path) -> None:
    Box(tmp_path).zone(0, "PMIC-Die", 100, ("critical", 120))
    assert read_zones(tmp_path) == (ThermalZone("PMIC-Die", None, None, None, 120.0),)


def test_a_zone_without_a_name_goes_by_its_number(tmp_path: Path) -> None:
    Box(tmp_path).write("sys/class/thermal/thermal_zone7/temp", 40_000)
    assert read_zones(tmp_path) == (ThermalZone("thermal_zone7", 40.0, None, None, None),)


def test_zones_come_by_number_and_no_more_than_32_are_read(tmp_path: Path) -> None:
    box = Box(tmp_path)
    for number in range(40):
        box.zone(number, f"zone-{number}", 40)
    assert [zone.name for zone in read_zones(tmp_path)] == [f"zone-{number}" for number in range(32)]


@pytest.mark.parametrize(
    ("name", "slows"),
    [
        ("Processor", True),
        ("cpufreq-cpu0", True),
        ("thermal-devfreq-0", True),
        ("intel_powerclamp", True),
        ("gpu-throttle-alert", True),
        ("hot-surface-alert", True),
        ("cpu-balanced", True),
        ("pwm-fan", False),
        ("Fan", False),
        ("TCC Offset", False),
    ],
)
def test_what_slows_the_box_is_told_from_what_blows_air(tmp_path: Path, name: str, slows: bool) -> None:
    Box(tmp_path).cooling(0, name, 3, 7)
    assert read_cooling(tmp_path) == (CoolingDevice(name, 3, 7, slows),)


def test_a_cooling_device_below_zero_has_no_known_state(tmp_path: Path) -> None:
    Box(tmp_path).cooling(0, "intel_powerclamp", -1, 50)
    assert read_cooling(tmp_path)[0].state is None
