"""One look at every device of the box, and the same as a flat list of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edged.ops.sensors.coral import Apex, UsbTpu, read_apex, read_usb_tpus
from edged.ops.sensors.disk import Disk, FlashWear, read_disk, read_flash
from edged.ops.sensors.hwmon import HwmonSensor, Supply, read_hwmon, read_supply
from edged.ops.sensors.jetson import Jetson, read_jetson
from edged.ops.sensors.memory import Memory, read_memory
from edged.ops.sensors.nvml import Gpu, Nvml, NvmlReading
from edged.ops.sensors.pressure import Stalls, read_stalls
from edged.ops.sensors.processor import Processor, read_processor
from edged.ops.sensors.thermal import CoolingDevice, ThermalZone, read_cooling, read_zones

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_RESERVES = ("normal", "warning", "urgent")


class DeviceReport(NamedTuple):
    """Everything that the box says about itself. Empty tuples: no such device, or no driver for it."""

    zones: tuple[ThermalZone, ...]
    cooling: tuple[CoolingDevice, ...]
    processor: Processor
    hwmon: tuple[HwmonSensor, ...]
    supply: Supply
    apex: tuple[Apex, ...]
    usb_tpus: tuple[UsbTpu, ...]
    nvidia: NvmlReading | None
    jetson: Jetson | None
    cpu_stalls: Stalls | None
    memory_stalls: Stalls | None
    io_stalls: Stalls | None
    memory: Memory
    disk: Disk | None
    flash: tuple[FlashWear, ...]


def read_devices(root: Path = Path("/"), *, nvml: Nvml | None = None, state_dir: Path | None = None) -> DeviceReport:
    """Read everything once, in a thread or a child process. Never raises for what the box lacks.

    Without `nvml` no NVIDIA library is touched, without `state_dir` no disk is looked at.
    """
    return DeviceReport(
        zones=read_zones(root),
        cooling=read_cooling(root),
        processor=read_processor(root),
        hwmon=read_hwmon(root),
        supply=read_supply(root),
        apex=read_apex(root),
        usb_tpus=read_usb_tpus(root),
        nvidia=None if nvml is None else nvml.read(),
        jetson=read_jetson(root),
        cpu_stalls=read_stalls(root, "cpu"),
        memory_stalls=read_stalls(root, "memory"),
        io_stalls=read_stalls(root, "io"),
        memory=read_memory(root),
        disk=None if state_dir is None else read_disk(state_dir),
        flash=read_flash(root),
    )


def readings(report: DeviceReport) -> dict[str, float]:
    """Every number by a name of small letters, digits and `_`, ending in its unit; truth values are 0 and 1.

    What is unknown is absent, never 0. Of devices with the same name the later ones are numbered (`_2`).
    """
    found: dict[str, float] = {}
    for device, values in _named(report):
        start = _free(device, values, found)
        for name, value in values:
            if value is not None:
                found[f"{start}_{name}"] = float(value)
    return found


_Values = tuple[tuple[str, float | int | None], ...]


def _named(report: DeviceReport) -> Iterator[tuple[str, _Values]]:
    yield from _temperatures(report)
    yield from _host(report)
    if report.nvidia is not None and report.nvidia.problem != "library_not_found":
        yield "nvidia", (("answers", report.nvidia.problem is None),)
        for gpu in report.nvidia.gpus:
            yield f"gpu_{gpu.number}", _gpu(gpu)
    if report.jetson is not None:
        jetson = report.jetson
        yield (
            "jetson_gpu",
            (
                ("load_share", jetson.gpu_load_share),
                ("hz", jetson.gpu_hz),
                ("most_hz", jetson.gpu_most_hz),
            ),
        )


def _temperatures(report: DeviceReport) -> Iterator[tuple[str, _Values]]:
    for zone in report.zones:
        yield (
            f"zone_{_plain(zone.name)}",
            (
                ("c", zone.celsius),
                ("passive_c", zone.passive_c),
                ("hot_c", zone.hot_c),
                ("critical_c", zone.critical_c),
            ),
        )
    for cooling in report.cooling:
        if cooling.slows:
            yield f"cooling_{_plain(cooling.name)}", (("state", cooling.state), ("most", cooling.most))
    for sensor in report.hwmon:
        yield (
            f"hwmon_{_plain(sensor.chip)}_{_plain(sensor.label)}",
            (("c", sensor.celsius), ("high_c", sensor.high_c), ("critical_c", sensor.critical_c)),
        )
    for apex in report.apex:
        alive = None if apex.status is None else apex.status == "ALIVE"
        trip_c = apex.trips_c[0] if apex.trips_c else None
        yield _plain(apex.name), (("c", apex.celsius), ("trip_c", trip_c), ("alive", alive))
    if report.usb_tpus:
        yield "usb_tpus", (("count", len(report.usb_tpus)),)


def _host(report: DeviceReport) -> Iterator[tuple[str, _Values]]:
    processor = report.processor
    yield (
        "cpu",
        (
            ("hz", processor.current_hz),
            ("limit_hz", processor.limit_hz),
            ("full_hz", processor.full_hz),
            ("core_throttle_events", processor.core_throttle_events),
            ("package_throttle_events", processor.package_throttle_events),
        ),
    )
    if processor.pi is not None:
        yield "pi", (("under_voltage", processor.pi.under_voltage), ("slowed", processor.pi.slowed))
    yield (
        "supply",
        (
            ("under_voltage", report.supply.under_voltage),
            ("over_current_events", report.supply.over_current_events),
        ),
    )
    for name, stalls in (("cpu", report.cpu_stalls), ("memory", report.memory_stalls), ("io", report.io_stalls)):
        if stalls is not None:
            yield (
                f"{name}_stalls",
                (
                    ("some_avg10_percent", stalls.some_avg10_percent),
                    ("full_avg10_percent", stalls.full_avg10_percent),
                    ("some_total_us", stalls.some_total_us),
                    ("full_total_us", stalls.full_total_us),
                ),
            )
    memory = report.memory
    yield (
        "memory",
        (
            ("available_bytes", memory.available_bytes),
            ("total_bytes", memory.total_bytes),
            ("group_used_bytes", None if memory.group is None else memory.group.used_bytes),
            ("group_limit_bytes", None if memory.group is None else memory.group.limit_bytes),
            ("available_share", memory.available_share),
        ),
    )
    if report.disk is not None:
        disk = report.disk
        yield (
            "disk",
            (
                ("free_bytes", disk.free_bytes),
                ("total_bytes", disk.total_bytes),
                ("free_share", disk.free_share),
            ),
        )
    for flash in report.flash:
        reserve = None if flash.reserve is None else _RESERVES.index(flash.reserve)
        yield f"flash_{_plain(flash.device)}", (("used_share", flash.used_share), ("reserve", reserve))


def _gpu(gpu: Gpu) -> _Values:
    return (
        ("answers", gpu.problem is None),
        ("c", gpu.celsius),
        ("slowdown_c", gpu.slowdown_c),
        ("shutdown_c", gpu.shutdown_c),
        ("power_w", gpu.power_w),
        ("power_limit_w", gpu.power_limit_w),
        ("load_share", gpu.load_share),
        ("memory_used_bytes", gpu.memory_used_bytes),
        ("memory_total_bytes", gpu.memory_total_bytes),
        ("uncorrected_errors", gpu.uncorrected_errors),
        ("repair_pending", gpu.repair_pending),
        ("repair_failed", gpu.repair_failed),
        ("slowed", None if gpu.slowed_by is None else bool(gpu.slowed_by)),
    )


def _plain(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name.lower()).strip("_") or "unnamed"


def _free(device: str, values: _Values, taken: Iterable[str]) -> str:
    """`device`, or with the first number that makes all of its names new."""
    used = set(taken)
    number, start = 1, device
    while any(f"{start}_{name}" in used for name, _ in values):
        number += 1
        start = f"{device}_{number}"
    return start
