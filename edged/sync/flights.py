"""Batches on their way: which, since when, and when to send them again. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edged.sync.effects import Sealed
from edged.sync.lanes import Lane
from edged.sync.protocol import Stream
from edged.sync.ranges import Ranges, normalise

TIMEOUT_NS = 30_000_000_000
TIMEOUT_MAX_NS = 480_000_000_000


@dataclass(slots=True)
class Flight:
    """One batch. due_ns: when it is sent again; asked: because the hub asked for it, not because nobody answered.

    carried: the link has delivered it, so that it does not occupy it any more.
    """

    key: int
    lane: Lane
    batch: Sealed
    sent_ns: int
    due_ns: int
    tries: int = 1
    asked: bool = False
    carried: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.batch.payload)

    @property
    def rows(self) -> int:
        """How many rows may be taken out of it; a tombstone is one thing."""
        return 1 if self.batch.lost else self.batch.last - self.batch.first + 1

    def wait(self, now_ns: int, chance: float) -> None:
        """It was sent (again) just now: wait for its answer, every time twice as long, and never in step."""
        timeout_ns = min(TIMEOUT_MAX_NS, TIMEOUT_NS << (self.tries - 1))
        self.sent_ns = now_ns
        self.due_ns = now_ns + int(timeout_ns * (1 + chance / 4))
        self.asked = self.carried = False


class Flights:
    """All batches on their way; the window bounds their number, `BODY_MAX_BYTES` the bytes of each."""

    def __init__(self) -> None:
        self._by_key: dict[int, Flight] = {}

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, flight: Flight) -> None:
        self._by_key[flight.key] = flight

    def get(self, key: int) -> Flight | None:
        return self._by_key.get(key)

    def find(self, stream: Stream, epoch: str, first: int, last: int) -> Flight | None:
        for flight in self._by_key.values():
            batch = flight.batch
            if (flight.lane.stream, batch.epoch, batch.first, batch.last) == (stream, epoch, first, last):
                return flight
        return None

    def land(self, flight: Flight) -> None:
        self._by_key.pop(flight.key, None)

    def clear(self) -> None:
        self._by_key.clear()

    @property
    def paced(self) -> int:
        return sum(flight.lane.paced for flight in self._by_key.values())

    @property
    def bytes(self) -> int:
        return sum(flight.size_bytes for flight in self._by_key.values())

    @property
    def uncarried_bytes(self) -> int:
        return sum(flight.size_bytes for flight in self._by_key.values() if not flight.carried)

    def ranges(self, stream: Stream) -> Ranges:
        return normalise((f.batch.first, f.batch.last) for f in self._by_key.values() if f.lane.stream == stream)
