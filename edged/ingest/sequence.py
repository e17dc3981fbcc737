"""Duplicates and gaps in the numbers that sensors give their events. Pure: the caller passes the time.

Each device has streams of numbers, newest last: one per boot id, and one more whenever a sensor without a boot id
starts over. A stream knows its highest number and the ranges below it that never came; that is all there is to know.
A fold over the same events and times always gives the same state, so the state may be dumped, loaded and replayed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from edged.ingest.spec import SequenceSpec

DUPLICATE: Final = "duplicate"
TOO_MANY_DEVICES: Final = "too_many_devices"

RESET_LOW_SEQ = 1  # a sensor that starts over counts from 0 or 1 ...
RESET_MIN_HI = 16  # ... and has counted at least this far, else it is the reordering of a first burst
RESET_JUMP_BACK = 1024  # further back than any retry window seen in practice
STREAMS_KEPT = 4  # per device: the present one and three former boots, whose late events must still be judged
_FORMAT = 1
_KEY_BYTES = 8

GapKind = Literal["sequence", "filled", "sequence_reset"]


class Gap(msgspec.Struct, array_like=True, frozen=True):
    """What `R/gap` says of numbered events; `first` and `last` are inclusive.

    kind: `sequence`: these numbers never came · `filled`: reported missing before, came after all ·
    `sequence_reset`: the sensor went from `first` back to `last`; `count` is 0, nothing is known to be missing.
    """

    device: str
    boot: str | None
    first: int
    last: int
    count: int
    kind: GapKind


class _Range(msgspec.Struct, array_like=True, gc=False):
    """Missing numbers, inclusive; `since_ms` is the caller's monotonic time."""

    first: int
    last: int
    since_ms: int
    reported: bool = False


class _Stream(msgspec.Struct, array_like=True, gc=False):
    """Numbers of one boot. `begun_ts`/`ts`: event times of the first and the highest number; `missing` ascends."""

    boot: str | None
    begun_ts: int
    ts: int
    hi: int
    missing: list[_Range]


class _State(msgspec.Struct, array_like=True):
    format: int
    streams: dict[str, list[_Stream]]
    keys: list[bytes]
    reports: list[Gap]
    forgotten: int


_decode_state = msgspec.msgpack.Decoder(_State).decode


class SequenceTracker:
    """Judges the events of one source.

    `forgotten_count`: missing ranges given up to stay within `max_ranges`; each was reported as a gap before, but a
    number of theirs that comes after all is taken for a duplicate.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        self._spec = spec
        self._current: dict[str, _Stream | None] = {}  # None: known by unnumbered events only
        self._former: dict[str, list[_Stream]] = {}
        self._keys: set[bytes] = set()
        self._key_order: deque[bytes] = deque()
        self._reports: list[Gap] = []
        self._waiting: dict[str, None] = {}  # devices with a missing range that is not yet reported
        self._due_ms: float = float("inf")  # when the first of them must be
        self.forgotten_count = 0

    @property
    def device_count(self) -> int:
        return len(self._current)

    def admit(self, device: str, boot: str | None, seq: int, ts: int | None, now_ms: int) -> str | None:
        """Judge a numbered event: None to take it, else `DUPLICATE` or `TOO_MANY_DEVICES`.

        Args:
            ts: event time of the sensor, Unix ms; None when it gives none (the wall clock must not stand in for it).
            now_ms: monotonic time, for the grace of missing numbers.
        """
        stream = self._current.get(device)
        if stream is None:
            return self._begin(device, boot, seq, ts)
        if seq == stream.hi + 1 and boot == stream.boot:
            if ts is None:
                stream.hi = seq
                return None
            if ts >= stream.ts:
                stream.hi = seq
                stream.ts = ts
                return None
        return self._judge(device, boot, seq, ts, now_ms)

    def admit_unnumbered(self, device: str, topic: str, ts: int | None, payload: bytes) -> str | None:
        """Judge an event without a seq by topic, ts and payload.

        Without a ts nothing is a duplicate: a constant reading repeats itself.
        """
        if device not in self._current:
            if len(self._current) >= self._spec.max_devices:
                return TOO_MANY_DEVICES
            self._current[device] = None
        if ts is None:
            return None
        digest = blake2b(payload, digest_size=_KEY_BYTES)
        digest.update(b"%d %s" % (ts, topic.encode()))
        key = digest.digest()
        if key in self._keys:
            return DUPLICATE
        self._keys.add(key)
        self._key_order.append(key)
        if len(self._key_order) > self._spec.max_keys:
            self._keys.discard(self._key_order.popleft())
        return None

    def expire(self, now_ms: int) -> list[Gap]:
        """Everything to be reported since the last call; call it once per turn. A range is reported at most once."""
        if now_ms >= self._due_ms:
            self._report_due(now_ms)
        reports = self._reports
        if reports:
            self._reports = []
        return reports

    def dump(self) -> bytes:
        """The whole state for a snapshot; call `expire` first, or its reports travel along."""
        devices = {device: self._streams(device) for device in self._current}
        state = _State(_FORMAT, devices, list(self._key_order), self._reports, self.forgotten_count)
        return msgspec.msgpack.encode(state)

    def load(self, blob: bytes, now_ms: int) -> bool:
        """Take a dumped state, also of an earlier boot: the grace of what is missing begins anew at `now_ms`.

        Returns False, with the state unchanged, when `blob` is damaged or of another format.
        """
        try:
            state = _decode_state(blob)
        except msgspec.DecodeError:
            return False
        if state.format != _FORMAT:
            return False
        self._current = {device: streams[-1] if streams else None for device, streams in state.streams.items()}
        self._former = {device: streams[:-1] for device, streams in state.streams.items() if len(streams) > 1}
        self._keys = set(state.keys)
        self._key_order = deque(state.keys)
        self._reports = state.reports
        self.forgotten_count = state.forgotten
        self._waiting = {}
        self._due_ms = float("inf")
        for device, streams in state.streams.items():
            for hole in (hole for stream in streams for hole in stream.missing if not hole.reported):
                hole.since_ms = now_ms
                self._wait_for(device, now_ms)
        return True

    # --- the slow path ------------------------------------------------------------------------------------------

    def _begin(self, device: str, boot: str | None, seq: int, ts: int | None) -> str | None:
        """Start a stream: a new device, a new boot, or a sensor that starts over. What it sent before is no gap."""
        if device not in self._current and len(self._current) >= self._spec.max_devices:
            return TOO_MANY_DEVICES
        former = self._streams(device)
        if len(former) >= STREAMS_KEPT:
            lost = former.pop(0)
            for hole in lost.missing:
                self._forget(device, lost, hole)
        if former:
            self._former[device] = former
        self._current[device] = _Stream(boot, ts or 0, ts or 0, seq, [])
        return None

    def _judge(self, device: str, boot: str | None, seq: int, ts: int | None, now_ms: int) -> str | None:
        same_boot = [stream for stream in self._streams(device) if stream.boot == boot]
        if not same_boot:
            return self._begin(device, boot, seq, ts)
        newest = same_boot[-1]
        if boot is None and _starts_over(newest, seq, ts):
            self._reports.append(Gap(device, boot, newest.hi, seq, 0, "sequence_reset"))
            return self._begin(device, boot, seq, ts)
        stream = newest
        if ts is not None:  # an event from before the sensor started over belongs to the stream of that time
            stream = next((known for known in reversed(same_boot) if known.begun_ts <= ts), same_boot[0])
        if seq <= stream.hi:
            return None if self._fill(device, stream, seq) else DUPLICATE
        if seq > stream.hi + 1:
            stream.missing.append(_Range(stream.hi + 1, seq - 1, now_ms))
            self._bound(device, stream)
            self._wait_for(device, now_ms)
        stream.hi = seq
        stream.ts = max(stream.ts, ts or 0)
        return None

    def _streams(self, device: str) -> list[_Stream]:
        """All streams of a device, oldest first."""
        current = self._current.get(device)
        return [*self._former.get(device, ()), *(() if current is None else (current,))]

    def _fill(self, device: str, stream: _Stream, seq: int) -> bool:
        """Take `seq` out of the missing ranges; False if it is in none."""
        place = _place(stream, seq)
        if place is None:
            return False
        hole = stream.missing[place]
        if hole.reported:
            self._report_filled(device, stream.boot, seq)
        below = _Range(hole.first, seq - 1, hole.since_ms, hole.reported)
        above = _Range(seq + 1, hole.last, hole.since_ms, hole.reported)
        stream.missing[place : place + 1] = [part for part in (below, above) if part.first <= part.last]
        self._bound(device, stream)
        return True

    def _bound(self, device: str, stream: _Stream) -> None:
        if len(stream.missing) > self._spec.max_ranges:
            self._forget(device, stream, stream.missing.pop(0))

    def _forget(self, device: str, stream: _Stream, hole: _Range) -> None:
        self.forgotten_count += 1
        if not hole.reported:
            self._report_missing(device, stream, hole)

    def _wait_for(self, device: str, since_ms: int) -> None:
        self._waiting[device] = None
        self._due_ms = min(self._due_ms, since_ms + self._spec.gap_grace_ms)

    def _report_due(self, now_ms: int) -> None:
        waiting, self._waiting, self._due_ms = self._waiting, {}, float("inf")
        for device in waiting:
            for stream in self._streams(device):
                for hole in stream.missing:
                    if hole.reported:
                        continue
                    if now_ms - hole.since_ms >= self._spec.gap_grace_ms:
                        self._report_missing(device, stream, hole)
                    else:
                        self._wait_for(device, hole.since_ms)

    def _report_missing(self, device: str, stream: _Stream, hole: _Range) -> None:
        hole.reported = True
        self._reports.append(Gap(device, stream.boot, hole.first, hole.last, hole.last - hole.first + 1, "sequence"))

    def _report_filled(self, device: str, boot: str | None, seq: int) -> None:
        """Neighbours that come after all in order make one report, not one each."""
        if self._reports:
            before = self._reports[-1]
            if (before.device, before.boot, before.kind, before.last + 1) == (device, boot, "filled", seq):
                self._reports[-1] = Gap(device, boot, before.first, seq, before.count + 1, "filled")
                return
        self._reports.append(Gap(device, boot, seq, seq, 1, "filled"))


def _starts_over(stream: _Stream, seq: int, ts: int | None) -> bool:
    """Whether a sensor without a boot id restarted: far back in numbers, yet later in time.

    Without event times a missing number is taken for a late one, and everything else far back for a restart:
    taking a duplicate twice is better than taking all events after a restart for duplicates.
    """
    back = (seq <= RESET_LOW_SEQ and stream.hi >= RESET_MIN_HI) or seq < stream.hi - RESET_JUMP_BACK
    return back and (_place(stream, seq) is None if ts is None else ts > stream.ts)


def _place(stream: _Stream, seq: int) -> int | None:
    """Index of the missing range that holds `seq`."""
    place = bisect_right(stream.missing, seq, key=lambda hole: hole.first) - 1
    return place if place >= 0 and stream.missing[place].last >= seq else None
