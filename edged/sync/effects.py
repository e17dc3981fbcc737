"""What the sender asks of the rim, and what the rim hands it: values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edged.sync.lanes import Lane
from edged.sync.protocol import Stream
from edged.sync.ranges import Ranges


class SayHello(NamedTuple):
    """Read the store's extents (`Sender.moved`), then send a hello with them. `key` comes back with `carried`."""

    key: int


class Look(NamedTuple):
    """Read the store's extents again (`Sender.moved`): a stream has rows that is not known yet."""


class Read(NamedTuple):
    """Read what stands at `first` and behind it, at most `limit` numbers, seal it, and answer with `Sender.sealed`."""

    key: int
    lane: Lane
    first: int
    limit: int


class Sealed(NamedTuple):
    """A batch ready to leave: consecutive numbers of one epoch. payload: header line and body."""

    epoch: str
    first: int
    last: int
    lost: bool
    payload: bytes


class Send(NamedTuple):
    """Hand these bytes to the link; `key` comes back with `carried`. The same key again: the same bytes again."""

    key: int
    stream: Stream
    payload: bytes


class Home(NamedTuple):
    """These numbers are home: remember it, and free what they occupy."""

    stream: Stream
    ranges: Ranges


class GiveUp(NamedTuple):
    """The hub will never take these numbers: keep a copy of the batch.

    tombstone: put one in their place, and answer with `Sender.gave_up`; False when they are a tombstone already.
    """

    stream: Stream
    first: int
    last: int
    reason: str
    payload: bytes
    tombstone: bool


class Parted(NamedTuple):
    """From `seq` on another history stands under our numbers: our rows need a new epoch. Nothing is sent any more."""

    epoch: str
    seq: int


class Raise(NamedTuple):
    """A condition that people must see began or ended; `code` is one of docs/modes.md."""

    code: str
    active: bool
    detail: str


Effect = SayHello | Look | Read | Send | Home | GiveUp | Parted | Raise


@dataclass(slots=True)
class Counts:
    """What the sender counts since it was made.

    strange: answers not for us, or about nothing we know. foreign: answers of another receiver. fallbacks: how often
    live rows became backlog. shrunk: batches read again because they came out too large.
    """

    hellos: int = 0
    batches: int = 0
    rows: int = 0
    bytes: int = 0
    alarm_batches: int = 0
    lost_batches: int = 0
    resends: int = 0
    answers: int = 0
    retries: int = 0
    rejects: int = 0
    bad_rows: int = 0
    given_up: int = 0
    strange: int = 0
    foreign: int = 0
    timeouts: int = 0
    fallbacks: int = 0
    shrunk: int = 0


class Standing(NamedTuple):
    """How the sender stands. lag: numbers not home, by stream. ranges: how many the home is made of, by stream."""

    state: str
    receiver: str
    lag: dict[str, int]
    ranges: dict[str, int]
    in_flight: int
    in_flight_bytes: int
    rate_bytes_s: int
    link_delay_ms: int
    ack_delay_ms: int
    slowdowns: int
