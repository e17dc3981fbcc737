"""Thermal zones with the temperatures at which the kernel acts, and what it does to cool: /sys/class/thermal."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edged.ops.sensors.files import count, entries, limit_millidegrees, millidegrees, text

_MOST_ZONES = 32
_MOST_TRIPS = 16
_MOST_COOLING = 64
_CONSTANT_ZONES = ("pmic",)  # of Jetson boards: a fixed number, no measurement

# Cooling devices that make the box slower. Fans do not, and "TCC Offset" stands above zero for good.
_SLOWING_STARTS = ("processor", "cpufreq", "thermal-cpufreq", "thermal-devfreq", "devfreq", "intel_powerclamp")
_SLOWING_ENDS = ("-throttle-alert", "hot-surface-alert", "-balanced")


class ThermalZone(NamedTuple):
    """One zone in °C with the lowest trip point of each kind: passive slows the box, hot warns, critical stops it."""

    name: str
    celsius: float | None
    passive_c: float | None
    hot_c: float | None
    critical_c: float | None


class CoolingDevice(NamedTuple):
    """What the kernel may turn up against heat: 0 is off, `most` is all it can. `slows`: it costs speed."""

    name: str
    state: int | None
    most: int | None
    slows: bool


def read_zones(root: Path) -> tuple[ThermalZone, ...]:
    """Every zone in the order of its number. A zone that is off or asleep has no temperature."""
    return tuple(_zone(folder) for folder in entries(root / "sys/class/thermal", "thermal_zone*", _MOST_ZONES))


def read_cooling(root: Path) -> tuple[CoolingDevice, ...]:
    """Every cooling device in the order of its number."""
    return tuple(_cooling(folder) for folder in entries(root / "sys/class/thermal", "cooling_device*", _MOST_COOLING))


def _zone(folder: Path) -> ThermalZone:
    name = text(folder / "type") or folder.name
    constant = name.lower().startswith(_CONSTANT_ZONES)
    trips: dict[str, float] = {}
    for kind_file in entries(folder, "trip_point_*_type", _MOST_TRIPS):
        kind = text(kind_file)
        celsius = limit_millidegrees(kind_file.with_name(kind_file.name.removesuffix("type") + "temp"))
        if kind is not None and celsius is not None:
            trips[kind] = min(celsius, trips.get(kind, celsius))
    return ThermalZone(
        name=name,
        celsius=None if constant else millidegrees(folder / "temp"),
        passive_c=trips.get("passive"),
        hot_c=trips.get("hot"),
        critical_c=trips.get("critical"),
    )


def _cooling(folder: Path) -> CoolingDevice:
    name = text(folder / "type") or folder.name
    kind = name.lower()
    slows = kind.startswith(_SLOWING_STARTS) or kind.endswith(_SLOWING_ENDS)
    return CoolingDevice(name, count(folder / "cur_state"), count(folder / "max_state"), slows)
