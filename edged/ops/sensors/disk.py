"""Room on the disk of the state folder, and how worn the flash is: statvfs, /sys/block."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from edged.ops.sensors.files import count, entries, text

_MOST_BLOCK_DEVICES = 32
_EXCEEDED = 0x0B
_PRE_EOL: dict[int, Literal["normal", "warning", "urgent"]] = {1: "normal", 2: "warning", 3: "urgent"}


class Disk(NamedTuple):
    """What an unprivileged process may still write, and all that the file system holds."""

    free_bytes: int
    total_bytes: int

    @property
    def free_share(self) -> float | None:
        """0 to 1; None of a file system without a size."""
        return self.free_bytes / self.total_bytes if self.total_bytes > 0 else None


class FlashWear(NamedTuple):
    """Of one eMMC. `used_share`: upper end of the tenth of its rated life that is gone; 1.1 means exceeded.

    `reserve`: what the chip says of its spare blocks: normal, warning (80 % used) or urgent (90 % used).
    """

    device: str
    used_share: float | None
    reserve: Literal["normal", "warning", "urgent"] | None


def read_disk(folder: Path) -> Disk | None:
    """None when the folder is not there. A network file system whose server is gone may keep this waiting."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def read_flash(root: Path) -> tuple[FlashWear, ...]:
    """Every eMMC that tells its wear. SD cards and NVMe drives tell none here."""
    wears = (_wear(device) for device in entries(root / "sys/block", "mmcblk[0-9]*", _MOST_BLOCK_DEVICES))
    return tuple(wear for wear in wears if wear.used_share is not None or wear.reserve is not None)


def _wear(device: Path) -> FlashWear:
    reserve = count(device / "device/pre_eol_info", 16)
    return FlashWear(
        device=device.name,
        used_share=_used_share(text(device / "device/life_time") or ""),
        reserve=None if reserve is None else _PRE_EOL.get(reserve),
    )


def _used_share(said: str) -> float | None:
    """Two hexadecimal tenths, one per type of cell; 0 means not told. The more worn one counts."""
    try:
        tenths = [int(word, 16) for word in said.split()]
    except ValueError:
        return None
    known = [tenth for tenth in tenths if 1 <= tenth <= _EXCEEDED]
    return max(known) / 10 if known else None
