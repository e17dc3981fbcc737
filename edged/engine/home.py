"""What is home: the numbers of each stream that the receiver has committed; and the records that go there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from edged.messages import Notice
from edged.sync import ranges

if TYPE_CHECKING:
    from edged.engine.meta import Meta
    from edged.ports import Clock, Journal
    from edged.sync.protocol import Stream
    from edged.sync.ranges import Ranges

CLOCK_STEP_MS = 50  # a smaller change of the offset is drift, which the next correction tells anyway


class Home:
    """Owned by the loop. Without streams nobody is upstream, and what the plant's broker has is delivered.

    streams: what must go home before its row is free.
    """

    def __init__(self, meta: Meta, journal: Journal, streams: frozenset[Stream]) -> None:
        self._meta = meta
        self._journal = journal
        self.streams = streams
        self.changes = 0
        """Grows with everything that must be remembered; tells the snapshots that the meta has moved."""
        journal.outward_streams = streams
        for stream in streams:
            journal.set_synced(stream, meta.synced.get(stream, ()))

    def arrived(self, stream: Stream, arrived: Sequence[tuple[int, int]]) -> None:
        """The receiver has committed these numbers. Durable with the next unit; what is free may go from then on."""
        home: Ranges = self._meta.synced.get(stream, ())
        for first, last in arrived:
            home = ranges.add(home, first, last)
        if home != self._meta.synced.get(stream, ()):
            self._meta.synced[stream] = home
            self._journal.set_synced(stream, home)
            self.changes += 1

    def adopt(self, receiver: str) -> None:
        """Remember the receiver that answered first."""
        if receiver != self._meta.receiver:
            self._meta.receiver = receiver
            self.changes += 1

    @property
    def receiver(self) -> str:
        return self._meta.receiver

    def newest(self, *, result: int, event: int) -> dict[Stream, int]:
        """Newest durable number of every stream, given those of results and events."""
        made: dict[Stream, int] = {
            "alarm": self._meta.records.get("alarm", 0),
            "health": self._meta.records.get("health", 0),
            "result": result,
            "telemetry": event,
        }
        return {stream: seq for stream, seq in made.items() if stream in self.streams}

    def books(self, *, result: int, event: int) -> dict[str, dict[str, int]]:
        """Rows made = home + waiting, per stream; what was given up counts as home once the receiver knows."""
        books = {}
        for stream, made in self.newest(result=result, event=event).items():
            home = ranges.count(ranges.clip(self._meta.synced.get(stream, ()), 1, made))
            books[str(stream)] = {"made": made, "home": home, "waiting": made - home}
        return books


def number(notices: list[Notice], last: dict[str, int]) -> None:
    """Give the notices that go home the next dense numbers of their streams; `last` holds the newest ones used."""
    for index, notice in enumerate(notices):
        if notice.stream and not notice.seq:
            last[notice.stream] = last.get(notice.stream, 0) + 1
            notices[index] = msgspec.structs.replace(notice, seq=last[notice.stream])


def record(kind: str, body: Mapping[str, object] | bytes) -> Notice:
    """A row of the stream `health` that only the receiver gets."""
    payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Notice("event", payload, stream="health", kind=kind, plant=False)


class ClockWatch:
    """Says when the wall clock has become trustworthy, and when it was set afterwards."""

    def __init__(self) -> None:
        self._offset_ms: int | None = None

    def look(self, clock: Clock) -> Notice | None:
        """A record `clock` the first time the clock is synchronised, and again after each step of it."""
        if clock.quality() != "synced":
            return None
        mono_ns, wall_ms = clock.mono_ns(), clock.wall_ms()
        offset_ms = wall_ms - mono_ns // 1_000_000
        if self._offset_ms is not None and abs(offset_ms - self._offset_ms) < CLOCK_STEP_MS:
            return None
        self._offset_ms = offset_ms
        body = {
            "v": "edged.clock/1",
            "boot": clock.boot_id,
            "wall_ms": wall_ms,
            "mono_ns": mono_ns,
            "offset_ns": wall_ms * 1_000_000 - mono_ns,
            "err_ns": clock.error_ns(),
        }
        return record("clock", body)
