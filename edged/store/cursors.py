"""What is no longer needed here: how far everything was delivered, and what is home. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.sync import ranges
from edged.sync.protocol import Range
from edged.sync.ranges import Ranges

TABLE_STREAM: Mapping[str, str] = {"telemetry": "event"}
"""The name of a stream in the tables, where it is another one than on the way home."""


def table_stream(stream: str) -> str:
    return TABLE_STREAM.get(stream, stream)


@dataclass
class Cursors:
    """Kept up to date by the engine; read in the writer thread.

    results, events: newest seq delivered to the plant's broker; answered. notice_batch: the same for notices, by batch.
    folded: every event up to here is in the snapshot. home: what the receiver has, by stream, as the tables name them.
    outward: streams (as the tables name them) whose rows must be home before they are free; empty without a receiver.
    """

    results: int = 0
    events: int = 0
    notice_batch: int = 0
    folded: int = 0
    home: dict[str, Ranges] = field(default_factory=dict)
    outward: frozenset[str] = frozenset()

    def is_home(self, stream: str, first: int, last: int) -> bool:
        """Whether nobody waits for first..last of `stream` on the other side."""
        return stream not in self.outward or ranges.covers(self.home.get(stream, ()), first, last)

    def next_home(self, stream: str, seq: int) -> int | None:
        """Where the first range that begins behind `seq` begins."""
        return next((first for first, _ in self.home.get(stream, ()) if first > seq), None)

    def not_home(self, stream: str, first: int, last: int) -> list[Range]:
        """The parts of first..last that somebody on the other side waits for."""
        if stream not in self.outward:
            return []
        return ranges.missing(self.home.get(stream, ()), first, last)

    def lost_results(self, first: int, last: int) -> Ranges:
        """What would be lost of first..last: not delivered to the plant's broker, or not home."""
        return ranges.normalise([*self.not_home("result", first, last), (max(first, self.results + 1), last)])

    def lost_events(self, first: int, last: int) -> Ranges:
        """What would be lost of first..last: not answered, or to go home and not there."""
        return ranges.normalise([*self.not_home("event", first, last), (max(first, self.events + 1), last)])

    @property
    def settled_events(self) -> int:
        """Events up to here are answered and folded: nothing on this side needs them."""
        return min(self.events, self.folded)

    def seen(self) -> Seen:
        return Seen(self.results, self.settled_events, self.notice_batch, dict(self.home), self.outward)


class Seen(NamedTuple):
    """What the cursors were at some moment, to find out later what has become free since."""

    results: int
    events: int
    notice_batch: int
    home: dict[str, Ranges]
    outward: frozenset[str]


def first_new(before: Ranges, now: Ranges) -> int | None:
    """The lowest number that is in `now` and not in `before`."""
    return min((part[0] for first, last in now for part in ranges.missing(before, first, last)), default=None)
