"""What the demo's threads report to its main thread, as values; the main thread alone keeps the books."""

from __future__ import annotations

from queue import Queue
from typing import NamedTuple

FACTS_LIMIT = 100_000  # beyond it the reporting thread waits, and the broker queues for it


class Published(NamedTuple):
    """The plant hands an event to its socket."""

    device: str
    seq: int
    at_ns: int


class Acknowledged(NamedTuple):
    """The broker acknowledged an event to the plant."""

    device: str
    seq: int
    at_ns: int


class Heard(NamedTuple):
    """SCADA received a message below the gateway's root."""

    topic: str
    payload: bytes
    retained: bool
    at_ns: int


class Broken(NamedTuple):
    """A thread cannot go on."""

    what: str


Fact = Published | Acknowledged | Heard | Broken
Facts = Queue[Fact]


def make_facts() -> Facts:
    return Queue(FACTS_LIMIT)
