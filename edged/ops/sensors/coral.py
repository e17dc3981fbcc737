"""Coral Edge TPUs: the PCIe ones with their temperature (/sys/class/apex), the USB ones by their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from edged.ops.sensors.files import count, entries, limit_millidegrees, millidegrees, text

_MOST_APEX = 16
_MOST_USB = 64
_USB_IDS: dict[tuple[str, str], Literal["unopened", "opened"]] = {
    ("1a6e", "089a"): "unopened",  # as plugged in: the firmware comes with the first open
    ("18d1", "9302"): "opened",  # the same stick afterwards
}


class Apex(NamedTuple):
    """One PCIe Edge TPU in °C. The clock is stepped down at each of `trips_c`.

    `warn_c` and `shutdown_c` are the chip's own alarms, None where not switched on. `status`: the driver's word
    (ALIVE, LAMED, DEAD).
    """

    name: str
    celsius: float | None
    trips_c: tuple[float, ...]
    warn_c: float | None
    shutdown_c: float | None
    status: str | None


class UsbTpu(NamedTuple):
    """One USB Edge TPU: it tells no temperature. `speed_mbit_s` below 5000: behind a USB 2 port, and slow."""

    port: str
    state: Literal["unopened", "opened"]
    speed_mbit_s: int | None


def read_apex(root: Path) -> tuple[Apex, ...]:
    """Every PCIe Edge TPU whose driver runs."""
    return tuple(_apex(folder) for folder in entries(root / "sys/class/apex", "apex_*", _MOST_APEX))


def read_usb_tpus(root: Path) -> tuple[UsbTpu, ...]:
    """Every USB Edge TPU on the bus, opened or not, among the first 64 devices."""
    found = []
    for device in entries(root / "sys/bus/usb/devices", "[0-9]*-*[0-9]", 4 * _MOST_USB):
        if ":" in device.name:  # an interface of a device
            continue
        state = _USB_IDS.get(((text(device / "idVendor") or ""), (text(device / "idProduct") or "")))
        if state is not None:
            found.append(UsbTpu(device.name, state, count(device / "speed")))
    return tuple(found[:_MOST_USB])


def _apex(folder: Path) -> Apex:
    trips = [limit_millidegrees(folder / f"trip_point{number}_temp") for number in range(3)]
    return Apex(
        name=folder.name,
        celsius=millidegrees(folder / "temp"),
        trips_c=tuple(trip for trip in trips if trip is not None),
        warn_c=_alarm_c(folder, "hw_temp_warn1"),
        shutdown_c=_alarm_c(folder, "hw_temp_warn2"),
        status=text(folder / "status") or None,
    )


def _alarm_c(folder: Path, name: str) -> float | None:
    return limit_millidegrees(folder / name) if count(folder / f"{name}_en") else None
