"""The place of one device: its process, what is known of those before it, and who may load into it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from edged.errors import ModelError

if TYPE_CHECKING:
    from edged.infer.hosting.model import HostedModel
    from edged.infer.hosting.process import ProcessState, WorkerProcess

DeviceState = Literal["up", "ending", "down", "needs_power_cycle"]
_STATES: Mapping[ProcessState, DeviceState] = {
    "starting": "up",
    "up": "up",
    "ending": "ending",
    "stuck": "needs_power_cycle",
    "ended": "down",
}


class DeviceStats(NamedTuple):
    """One device now. calls: in all its processes. restarts: processes after the first. rss_bytes: at the last `check`.

    code, detail: why the last process ended; empty while one is up.
    """

    rung: str
    state: DeviceState
    pid: int
    models: int
    calls: int
    restarts: int
    rss_bytes: int
    code: str = ""
    detail: str = ""


class Seat:
    """The place of one device: its process, and what is known of those before it. `lock`: who loads or replaces."""

    def __init__(self, rung: str) -> None:
        self.rung = rung
        self.lock = threading.Lock()
        self.process: WorkerProcess | None = None
        self.models: list[HostedModel] = []
        self.started_ns: deque[int] = deque()
        self.starts = 0
        self.calls_before = 0
        self.rss_bytes = 0
        self.told_end: WorkerProcess | None = None
        self.recycle_from_ns = 0

    def take(self, process: WorkerProcess) -> None:
        """From now on this is the process of the device."""
        self.calls_before += 0 if self.process is None else self.process.calls
        self.process, self.models, self.rss_bytes = process, [], 0


class Turn:
    """Who loads into, or replaces, the process of a device; others wait, but not for ever."""

    def __init__(self, seat: Seat, wait_s: float) -> None:
        self._seat = seat
        self._wait_s = wait_s

    def __enter__(self) -> None:
        if not self._seat.lock.acquire(timeout=self._wait_s):
            text = f"{self._seat.rung}: another model has been loading for {self._wait_s} s"
            raise ModelError("device_unavailable", text, retryable=True)

    def __exit__(self, *_: object) -> None:
        self._seat.lock.release()


def stats_of(seat: Seat) -> DeviceStats:
    """What a device looks like now. Does not block."""
    process = seat.process
    restarts = max(0, seat.starts - 1)
    if process is None:
        return DeviceStats(seat.rung, "down", 0, 0, seat.calls_before, restarts, 0)
    state = _STATES[process.state]
    up = state == "up"
    return DeviceStats(
        seat.rung,
        state,
        0 if state == "down" else process.pid,
        len(process.models) if up else 0,
        seat.calls_before + process.calls,
        restarts,
        seat.rss_bytes if up else 0,
        "" if up else process.end_code,
        "" if up else process.end_message,
    )
