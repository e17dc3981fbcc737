"""How long tasks wait for processor, memory and disk: the kernel's pressure stall information, /proc/pressure."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from edged.ops.sensors.files import text

Resource = Literal["cpu", "memory", "io"]


class Stalls(NamedTuple):
    """Share of the last 10 s in which some, or all, tasks waited (percent), and all waiting since boot (µs)."""

    some_avg10_percent: float | None
    full_avg10_percent: float | None
    some_total_us: int | None
    full_total_us: int | None


def read_stalls(root: Path, resource: Resource) -> Stalls | None:
    """None where the kernel does not count (before 4.20, or started with psi=0)."""
    said = text(root / "proc/pressure" / resource)
    if said is None:
        return None
    lines: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        kind, _, rest = line.partition(" ")
        lines[kind] = dict(item.split("=", 1) for item in rest.split() if "=" in item)
    some, full = lines.get("some", {}), lines.get("full", {})
    return Stalls(_percent(some), _percent(full), _total_us(some), _total_us(full))


def _percent(line: dict[str, str]) -> float | None:
    try:
        found = float(line["avg10"])
    except (KeyError, ValueError):
        return None
    return found if 0 <= found <= 100 else None  # NaN is neither


def _total_us(line: dict[str, str]) -> int | None:
    found = line.get("total", "")
    return int(found) if found.isascii() and found.isdecimal() else None
