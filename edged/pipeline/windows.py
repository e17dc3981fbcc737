"""Events of each device → windows of equal length, oldest first.

A window closes as soon as its last event is there: nothing waits for stragglers. An event that comes out of order
takes its place in the windows after it, if it is not too late.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct

import msgspec

from edged.errors import ConfigError
from edged.pipeline.spec import InputSpec

MAX_GRID_POINTS = 10_000  # of one silence that resampling bridges
LATE_RUN = 16  # at least so many late events in a row, and at least a window of them, before a clock went back
_FORMAT = 1

Row = tuple[float, ...]
Block = Row | bytes  # the row itself when a window is one event; else its rows of float64, oldest first, as bytes
Ready = tuple[int, int, Block]  # event time and reference of the newest event, and the block


class _Window(msgspec.Struct, array_like=True, gc=False):
    """What waits for one device.

    due: samples until the next window closes. ts, ref: of the newest event. late_run: events in a row refused as late.
    rows: packed samples, oldest first. times: their ts, kept only where events may come out of order.
    row: the newest event, which resampling starts from; empty at a new start.
    """

    due: int
    ts: int
    ref: int
    late_run: int
    rows: list[bytes]
    times: list[int]
    row: Row


class _State(msgspec.Struct, array_like=True):
    format: int
    shape: tuple[int, ...]
    windows: dict[str, _Window]
    counts: tuple[int, int, int, int]


_decode_state = msgspec.msgpack.Decoder(_State).decode


class WindowBank:
    """The windows of one pipeline.

    single: a window is one event; `push` then keeps nothing and hands the event through.
    late_count: events that came too late and are in no window. restart_count: windows begun anew, after a silence or
    because a device's clock went back. coalesced_count: windows that resampling closed together with a newer one.
    evicted_count: devices forgotten, longest known first, to stay within `max_devices`.

    Raises:
        ConfigError: the spec contradicts itself.
    """

    def __init__(self, spec: InputSpec) -> None:
        _check(spec)
        self._length = spec.window
        self._stride = spec.stride
        self._grid_ms = spec.resample_ms
        self._lateness_ms = spec.lateness_ms
        self._max_gap_ms = _max_gap_ms(spec)
        self._max_devices = spec.max_devices
        self._late_run = max(LATE_RUN, spec.window)
        self._shape = (spec.window, spec.stride, spec.resample_ms, spec.lateness_ms, spec.row_width)
        self._pack = Struct(f"{spec.row_width}d").pack
        self._windows: dict[str, _Window] = {}
        self.single = spec.single
        self.late_count = 0
        self.restart_count = 0
        self.coalesced_count = 0
        self.evicted_count = 0

    def push(self, device: str, ts: int, row: Row, ref: int, in_order: bool = False) -> Ready | None:
        """Take one event; the window it closes, if it does.

        Args:
            ts: event time, Unix ms. row: `row_width` values. ref: the caller's name for the event.
            in_order: the ts is that of arrival. Such an event is the newest, even if the wall clock went back.
        """
        if self.single:
            return ts, ref, row
        window = self._windows.get(device)
        if window is None:
            window = self._open(device)
        elif ts < window.ts and in_order:
            if self._grid_ms or self._lateness_ms:
                self._restart(window)  # these two need times that ascend; counting needs only the order
        elif ts < window.ts:
            if self._has_place_for(window, ts):
                return self._insert(window, ts, row)
            if not self._clock_went_back(window):
                return None
            self._restart(window)
        elif ts - window.ts > self._max_gap_ms:
            self._restart(window)
        if self._grid_ms:
            return self._resample(window, ts, row, ref)
        window.ts = ts
        window.ref = ref
        window.late_run = 0
        if self._lateness_ms:
            window.times.append(ts)
        window.rows.append(self._pack(*row))
        return self._close(window)

    def _close(self, window: _Window) -> Ready | None:
        """After a sample was added: forget the oldest, hand out the window if it is due."""
        rows = window.rows
        if len(rows) > self._length:
            del rows[0], window.times[:1]
        window.due -= 1
        if window.due:
            return None
        window.due = self._stride
        return window.ts, window.ref, b"".join(rows)

    def _open(self, device: str) -> _Window:
        if len(self._windows) >= self._max_devices:
            del self._windows[next(iter(self._windows))]
            self.evicted_count += 1
        window = self._windows[device] = _Window(self._length, 0, 0, 0, [], [], ())
        return window

    def _restart(self, window: _Window) -> None:
        self.restart_count += 1
        window.due = self._length
        window.rows = []
        window.times = []
        window.row = ()

    def _has_place_for(self, window: _Window, ts: int) -> bool:
        """Whether an event behind the newest is within the lateness and not older than a full window."""
        if window.ts - ts > self._lateness_ms:
            return False
        return len(window.rows) < self._length or ts >= window.times[0]

    def _insert(self, window: _Window, ts: int, row: Row) -> Ready | None:
        place = bisect_right(window.times, ts)
        window.times.insert(place, ts)
        window.rows.insert(place, self._pack(*row))
        return self._close(window)

    def _clock_went_back(self, window: _Window) -> bool:
        """Count a late event; so many in a row mean a clock set back, and waiting for it to catch up loses them all."""
        self.late_count += 1
        window.late_run += 1
        return window.late_run >= self._late_run

    def _resample(self, window: _Window, ts: int, row: Row, ref: int) -> Ready | None:
        """Add the points of the grid in (previous event, this event], on the line between the two."""
        step = self._grid_ms
        before_ts, before = (window.ts, window.row) if window.row else (ts - 1, row)
        window.ts = ts
        window.ref = ref
        window.row = row
        window.late_run = 0
        ready = None
        for point in range(before_ts - before_ts % step + step, ts + 1, step):
            part = (point - before_ts) / (ts - before_ts)
            window.rows.append(self._pack(*(a + (b - a) * part for a, b in zip(before, row, strict=True))))
            closed = self._close(window)
            if closed is not None:
                self.coalesced_count += ready is not None
                ready = closed
        return ready

    def dump(self) -> bytes:
        """The state for a snapshot."""
        counts = (self.late_count, self.restart_count, self.coalesced_count, self.evicted_count)
        return msgspec.msgpack.encode(_State(_FORMAT, self._shape, self._windows, counts))

    def load(self, blob: bytes) -> bool:
        """Take a dumped state. False, and nothing changed, when it is damaged or of differently shaped windows."""
        try:
            state = _decode_state(blob)
        except msgspec.DecodeError:
            return False
        if (state.format, state.shape) != (_FORMAT, self._shape):
            return False
        self._windows = state.windows
        self.late_count, self.restart_count, self.coalesced_count, self.evicted_count = state.counts
        return True


def _max_gap_ms(spec: InputSpec) -> float:
    """Resampling never bridges more than a whole window unless told to: there would be nothing left to interpolate."""
    if spec.max_gap_ms is not None:
        return spec.max_gap_ms
    return spec.window * spec.resample_ms if spec.resample_ms else float("inf")


def _check(spec: InputSpec) -> None:
    if spec.window < 1 or spec.stride < 1:
        raise ConfigError(f"window = {spec.window}, stride = {spec.stride}: both count events and are at least 1")
    if spec.row_width == 0 and not spec.single:
        raise ConfigError(f"window = {spec.window} of waveforms of any length", hint="use window = 1 with arrays")
    if min(spec.resample_ms, spec.lateness_ms, spec.max_gap_ms or 0) < 0:
        raise ConfigError("resample_ms, lateness_ms and max_gap_ms must not be negative")
    if spec.resample_ms and spec.lateness_ms:
        raise ConfigError(
            f"lateness_ms = {spec.lateness_ms} with resample_ms = {spec.resample_ms}: a point of the grid is final",
            hint="set one of them to 0",
        )
    if spec.resample_ms and _max_gap_ms(spec) > MAX_GRID_POINTS * spec.resample_ms:
        raise ConfigError(
            f"max_gap_ms = {spec.max_gap_ms} is more than {MAX_GRID_POINTS} times resample_ms = {spec.resample_ms}",
            hint="lower max_gap_ms: so long a silence cannot be interpolated",
        )
