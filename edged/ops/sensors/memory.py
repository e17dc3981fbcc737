"""How much memory is left, on the box and inside the control group that may hold us: /proc/meminfo, cgroup v2."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edged.ops.sensors.files import count, text

_MOST_LEVELS = 16


class Group(NamedTuple):
    """The tightest control group above us. `used_bytes` leaves out cached files that the kernel may drop.

    `limit_bytes`: memory.max, or memory.high where that is lower (there the kernel slows us down).
    """

    used_bytes: int
    limit_bytes: int


class Memory(NamedTuple):
    """Bytes; None: this box does not say."""

    available_bytes: int | None
    total_bytes: int | None
    group: Group | None

    @property
    def available_share(self) -> float | None:
        """What is left of the box or of our control group, whichever is less: 0 to 1."""
        shares = []
        if self.available_bytes is not None and self.total_bytes:
            shares.append(self.available_bytes / self.total_bytes)
        if self.group is not None and self.group.limit_bytes > 0:
            shares.append(1 - self.group.used_bytes / self.group.limit_bytes)
        return None if not shares else min(1.0, max(0.0, min(shares)))


def read_memory(root: Path) -> Memory:
    """One look."""
    numbers = _labelled(text(root / "proc/meminfo") or "")
    available_kib, total_kib = numbers.get("MemAvailable:"), numbers.get("MemTotal:")
    return Memory(
        available_bytes=None if available_kib is None else available_kib * 1024,
        total_bytes=None if total_kib is None else total_kib * 1024,
        group=_group(root),
    )


def _group(root: Path) -> Group | None:
    """The group with the least room among ours and those above it, which limit us as well; None without any limit."""
    mount = root / "sys/fs/cgroup"
    ours = next((line[3:] for line in (text(root / "proc/self/cgroup") or "").splitlines() if line[:3] == "0::"), "/")
    names = [name for name in ours.split("/") if name not in {"", ".."}][:_MOST_LEVELS]  # .. : outside our namespace
    found = []
    for depth in range(len(names) + 1):
        group = _limited(mount.joinpath(*names[:depth]))
        if group is not None:
            found.append(group)
    return min(found, key=lambda group: group.limit_bytes - group.used_bytes, default=None)


def _limited(folder: Path) -> Group | None:
    current = count(folder / "memory.current")
    limits = [limit for limit in (count(folder / "memory.max"), count(folder / "memory.high")) if limit is not None]
    if current is None or not limits:  # "max" is no number: no limit
        return None
    droppable = _labelled(text(folder / "memory.stat") or "").get("inactive_file", 0)
    return Group(max(0, current - droppable), min(limits))


def _labelled(lines: str) -> dict[str, int]:
    """`name number …` by line; lines of another form are left out."""
    found = {}
    for line in lines.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isascii() and words[1].isdecimal():
            found[words[0]] = int(words[1])
    return found
