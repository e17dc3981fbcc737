"""Temperature sensors of chips, drives and boards with their limits: /sys/class/hwmon."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edged.ops.sensors.files import count, entries, limit_millidegrees, millidegrees, text

_MOST_CHIPS = 32
_MOST_SENSORS = 16
_MOST_COUNTERS = 8


class HwmonSensor(NamedTuple):
    """One sensor in °C. `high_c`: above it the maker calls it warm; `critical_c`: above it the part protects itself."""

    chip: str
    label: str
    celsius: float | None
    high_c: float | None
    critical_c: float | None


class Supply(NamedTuple):
    """What chips say about the power supply.

    `under_voltage`: the Raspberry Pi's supply is too weak now. `over_current_events`: how often a Jetson slowed itself
    since boot because it drew too much.
    """

    under_voltage: bool | None
    over_current_events: int | None


def read_hwmon(root: Path) -> tuple[HwmonSensor, ...]:
    """Every temperature sensor, chip by chip."""
    return tuple(
        _sensor(text(chip / "name") or chip.name, reading)
        for chip in _chips(root)
        for reading in entries(chip, "temp*_input", _MOST_SENSORS)
    )


def read_supply(root: Path) -> Supply:
    """Under-voltage (chip `rpi_volt`) and over-current (chip `soctherm_oc`)."""
    under_voltage: bool | None = None
    over_current: int | None = None
    for chip in _chips(root):
        name = text(chip / "name")
        if name == "rpi_volt":
            alarm = count(chip / "in0_lcrit_alarm")
            under_voltage = None if alarm is None else alarm > 0
        elif name == "soctherm_oc":
            found = [count(counter) for counter in entries(chip, "oc*_event_cnt", _MOST_COUNTERS)]
            known = [number for number in found if number is not None]
            over_current = sum(known) if known else None
    return Supply(under_voltage, over_current)


def _chips(root: Path) -> list[Path]:
    return entries(root / "sys/class/hwmon", "hwmon*", _MOST_CHIPS)


def _sensor(chip: str, reading: Path) -> HwmonSensor:
    start = reading.name.removesuffix("_input")
    return HwmonSensor(
        chip=chip,
        label=text(reading.with_name(f"{start}_label")) or start,
        celsius=millidegrees(reading),
        high_c=limit_millidegrees(reading.with_name(f"{start}_max")),
        critical_c=limit_millidegrees(reading.with_name(f"{start}_crit")),
    )
