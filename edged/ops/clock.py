"""The host's clocks: monotonic time, wall time, the boot id, and how far the wall clock can be trusted."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edged.ports import ClockQuality

KernelClock = Literal["synced", "unsynced", "unknown"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIMESYNCD_SYNCED = Path("/run/systemd/timesync/synchronized")
_QUALITY_CACHE_NS = 1_000_000_000  # quality changes in minutes; asking the kernel per batch would be waste
_TIME_ERROR = 5
_STA_UNSYNC = 0x0040


class _Timex(ctypes.Structure):
    """`struct timex` of <sys/timex.h>; only `modes` (0: read only), `status` and `maxerror` are used."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_sec", ctypes.c_long),
        ("time_usec", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_byte * 128),
    )


def read_kernel_clock() -> KernelClock:
    """What the kernel says about its clock; `unknown` where the call is not allowed (some sandboxes)."""
    state, timex = _adjtimex()
    if state < 0:
        return "unknown"
    return "unsynced" if state == _TIME_ERROR or timex.status & _STA_UNSYNC else "synced"


def read_kernel_error_ns() -> int | None:
    """The kernel's bound of the error of its clock; None where the call is not allowed."""
    state, timex = _adjtimex()
    return None if state < 0 else int(timex.maxerror) * 1000


def _adjtimex() -> tuple[int, _Timex]:
    """(-1 when it is not allowed, what the kernel filled in)."""
    timex = _Timex()
    try:
        return int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))), timex
    except (OSError, AttributeError):
        return -1, timex


class SystemClock:
    """The real clock (implements `edged.ports.Clock`).

    synced_before: the caller knows, from its own records of *this* boot, that the clock was right once.
    """

    def __init__(
        self,
        *,
        kernel_clock: Callable[[], KernelClock] = read_kernel_clock,
        kernel_error_ns: Callable[[], int | None] = read_kernel_error_ns,
        synced_marker: Path = _TIMESYNCD_SYNCED,
        boot_id_file: Path = _BOOT_ID,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        synced_before: bool = False,
    ) -> None:
        self._kernel_clock = kernel_clock
        self.error_ns = kernel_error_ns
        self._boot_id = _read_boot_id(boot_id_file)
        self._wall_ns = wall_ns
        # systemd-timesyncd leaves this file at its first success in this boot. Read once: quality() runs on the loop.
        self._was_synced = synced_before or synced_marker.exists()
        self._quality: ClockQuality = "unsynced"
        self._asked_ns: int | None = None
        self.mono_ns = mono_ns

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def wall_ms(self) -> int:
        return self._wall_ns() // 1_000_000

    def quality(self) -> ClockQuality:
        """`synced`, `holdover` (was synced earlier in this boot), or `unsynced`; asked of the kernel once a second."""
        now_ns = self.mono_ns()
        if self._asked_ns is None or now_ns - self._asked_ns >= _QUALITY_CACHE_NS:
            self._asked_ns = now_ns
            self._quality = self._ask()
        return self._quality

    def _ask(self) -> ClockQuality:
        if self._kernel_clock() == "synced":
            self._was_synced = True
            return "synced"
        return "holdover" if self._was_synced else "unsynced"


def _read_boot_id(path: Path) -> str:
    """The kernel's boot id; where /proc hides it, an id of this process: never equal to another boot's."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return f"process-{os.urandom(8).hex()}"
