"""What a report means to the governor: the tightest margin, whether something is slowed, what is left. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edged.ops.sensors.nvml import SLOWED_BY_DISTRESS
from edged.ops.sensors.report import DeviceReport
from edged.policy.governor import Facts

SMALL_DISK_BYTES = 4_000_000_000
"""Of a smaller file system the bytes that are free say nothing: it never has many. The share does."""

_SLOWS_AT_CRITICAL = frozenset({"coretemp"})  # Intel: there the processor slows itself, it stops only far above


def facts(report: DeviceReport, before: DeviceReport | None = None) -> Facts:
    """The facts that the box itself knows; the caller adds link, store, queue and accelerator with `_replace`.

    `before`: the report of the former sample. Counters of throttling mean something only between two reports.
    """
    stalls = report.memory_stalls
    return Facts(
        throttle_margin_c=min(_margins(_throttles(report)), default=None),
        critical_margin_c=min(_margins(_criticals(report)), default=None),
        throttled=_any(_slowed(report, before)),
        memory_available_share=report.memory.available_share,
        memory_some_avg10_percent=None if stalls is None else stalls.some_avg10_percent,
        disk_free_share=None if report.disk is None else report.disk.free_share,
        disk_free_bytes=_disk_free_bytes(report),
    )


def _disk_free_bytes(report: DeviceReport) -> float | None:
    if report.disk is None:
        return None
    return report.disk.free_bytes if report.disk.total_bytes >= SMALL_DISK_BYTES else math.inf


_Pair = tuple[float | None, float | None]


def _margins(pairs: Iterator[_Pair]) -> Iterator[float]:
    """Limit less temperature, where both are known."""
    for celsius, limit in pairs:
        if celsius is not None and limit is not None:
            yield limit - celsius


def _throttles(report: DeviceReport) -> Iterator[_Pair]:
    yield from ((zone.celsius, zone.passive_c) for zone in report.zones)
    yield from ((each.celsius, each.critical_c) for each in report.hwmon if each.chip in _SLOWS_AT_CRITICAL)
    yield from ((apex.celsius, min(apex.trips_c, default=None)) for apex in report.apex)
    if report.nvidia is not None:
        yield from ((gpu.celsius, gpu.slowdown_c) for gpu in report.nvidia.gpus)


def _criticals(report: DeviceReport) -> Iterator[_Pair]:
    yield from ((zone.celsius, zone.hot_c) for zone in report.zones)
    yield from ((zone.celsius, zone.critical_c) for zone in report.zones)
    yield from ((each.celsius, each.critical_c) for each in report.hwmon if each.chip not in _SLOWS_AT_CRITICAL)
    yield from ((apex.celsius, apex.shutdown_c) for apex in report.apex)
    if report.nvidia is not None:
        yield from ((gpu.celsius, gpu.shutdown_c) for gpu in report.nvidia.gpus)


def _slowed(report: DeviceReport, before: DeviceReport | None) -> Iterator[bool | None]:
    yield from (None if each.state is None else each.state > 0 for each in report.cooling if each.slows)
    if report.processor.pi is not None:
        yield report.processor.pi.slowed
    if report.nvidia is not None:
        for gpu in report.nvidia.gpus:
            yield None if gpu.slowed_by is None else bool(SLOWED_BY_DISTRESS & set(gpu.slowed_by))
    yield from (apex.celsius >= min(apex.trips_c) for apex in report.apex if apex.celsius is not None and apex.trips_c)
    if before is not None:
        yield _grown(before.processor.core_throttle_events, report.processor.core_throttle_events)
        yield _grown(before.processor.package_throttle_events, report.processor.package_throttle_events)
        yield _grown(before.supply.over_current_events, report.supply.over_current_events)


def _grown(before: int | None, now: int | None) -> bool | None:
    return None if before is None or now is None else now > before


def _any(answers: Iterator[bool | None]) -> bool | None:
    """True as soon as one says so; unknown when none says anything."""
    known = [answer for answer in answers if answer is not None]
    return any(known) if known else None
