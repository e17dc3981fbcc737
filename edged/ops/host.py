"""What the box says about itself: memory, disk, temperature. Unknown is None, never 0 and never "fine".

Reads files: call it from a thread, not on the loop.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_PLAUSIBLE_C = (-60.0, 200.0)  # some zones report garbage while a sensor sleeps


class HostHealth(NamedTuple):
    """One look at the host. Each value may be None: this box does not say."""

    rss_bytes: int | None
    available_bytes: int | None
    disk_free_bytes: int | None
    temperature_c: float | None
    load_1m: float | None


def read_host(state_dir: Path, *, root: Path = Path("/")) -> HostHealth:
    """Read everything once. `root` replaces / for /proc and /sys."""
    return HostHealth(
        rss_bytes=_rss_bytes(root),
        available_bytes=_available_bytes(root),
        disk_free_bytes=disk_free_bytes(state_dir),
        temperature_c=_temperature_c(root),
        load_1m=_load_1m(root),
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 when it does not exist. What vanishes while we look is not counted."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:  # deleted between the listing and the look
                continue
    return total


def disk_free_bytes(path: Path) -> int | None:
    """Bytes that an unprivileged process may still write on the file system of `path`."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _rss_bytes(root: Path) -> int | None:
    try:
        return int((root / "proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _available_bytes(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # as unknown as a kernel that has no such line
    return None


def _temperature_c(root: Path) -> float | None:
    """The hottest thermal zone."""
    lowest, highest = _PLAUSIBLE_C
    found = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp")):
        try:
            celsius = int(zone.read_text(encoding="ascii")) / 1000
        except (OSError, ValueError):  # this zone is asleep or broken, another may answer
            continue
        if lowest < celsius < highest:
            found.append(celsius)
    return max(found, default=None)


def _load_1m(root: Path) -> float | None:
    try:
        return float((root / "proc/loadavg").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
