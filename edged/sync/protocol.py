"""The nouns of `edged-sync/1`; docs/reference/sync.md describes them for people. Values only.

A *stream* is a dense sequence of numbers under the epoch of a store. A number is *home* when the receiver has committed
its row, or the word that it is lost (a tombstone). Everything is resent until it is home; the receiver is idempotent.
"""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = "edged-sync/1"

Stream = Literal["alarm", "result", "telemetry", "health"]
STREAMS: tuple[Stream, ...] = ("alarm", "result", "telemetry", "health")

Kind = Literal["rows", "lost"]
Encoding = Literal["zstd", "gzip", "identity"]
AckStatus = Literal["ok", "retry", "reject"]

HEADER_MAX_BYTES = 4_096  # the line before the body; a longer one is refused unread
BODY_MAX_BYTES = 1_048_576  # as it travels
DECODED_MAX_BYTES = 16_777_216  # what a body may become: a zip bomb ends here
BATCH_ROWS_MAX = 20_000
BATCH_TARGET_BYTES = 262_144  # what the sender aims at on a fast link
RANGES_MAX = 64  # ranges beyond the contiguous part that either side remembers
REASON_MAX_CHARS = 200

Range = tuple[int, int]
"""First and last number, both inclusive."""


class BatchHeader(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a batch, JSON. `n` = last - first + 1: a batch has no holes.

    base: first number of the stream in this epoch, so that the receiver knows what is missing from the beginning.
    sha256: hex, of the body as it travels. boot, clock: of the newest row; empty when all are lost.
    """

    v: str
    site: str
    gateway: str
    epoch: str
    stream: Stream
    kind: Kind
    first: int
    last: int
    n: int
    base: int
    encoding: Encoding
    sha256: str
    boot: str
    clock: str


class BadRow(msgspec.Struct, frozen=True):
    """A row that the receiver set aside: accounted for, never asked for again."""

    seq: int
    reason: str


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver has committed, said only after the commit.

    first, last: the batch that is answered. upto: everything from `base` to here is home. ranges: what else is home.
    retry: send it again after `retry_ms`. reject: sending these bytes again is useless (`reason`); the sender gives the
    range up as lost, with the reason, so that nothing behind it waits.
    """

    v: str
    receiver: str
    site: str
    gateway: str
    epoch: str
    stream: Stream
    first: int
    last: int
    status: AckStatus
    upto: int = 0
    ranges: tuple[Range, ...] = ()
    retry_ms: int = 0
    reason: str = ""
    bad: tuple[BadRow, ...] = ()


class Probe(msgspec.Struct, frozen=True):
    """First result that a start of the daemon made: does the receiver have the same row under this number?

    A store that was put back from a copy uses numbers again; only their makers tell the rows apart.
    """

    epoch: str
    seq: int
    boot: str
    mono_ns: int


class StreamExtent(msgspec.Struct, frozen=True):
    """Numbers of one stream in one epoch: the first ever, and the next to be used (or one past its end)."""

    epoch: str
    stream: Stream
    base: int
    next: int


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Sent by the gateway at every connect, and again until it is answered."""

    v: str
    site: str
    gateway: str
    instance: str
    version: str
    epoch: str
    extents: tuple[StreamExtent, ...]
    probes: tuple[Probe, ...] = ()


class Cursor(msgspec.Struct, frozen=True):
    """What the receiver has of one stream in one epoch. `upto` is `base - 1` when it has nothing."""

    epoch: str
    stream: Stream
    upto: int
    ranges: tuple[Range, ...] = ()


class Fork(msgspec.Struct, frozen=True):
    """From `seq` on the receiver has other rows under the same numbers: the store was put back from a copy."""

    epoch: str
    seq: int


class HelloAck(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver's answer. `receiver` identifies its database, whichever worker answers.

    spread_s: the gateway waits a random part of it before its backlog, so that a fleet does not return at once.
    retry, reject: as in `Ack`; cursors are valid only with ok.
    """

    v: str
    receiver: str
    site: str
    gateway: str
    instance: str
    status: AckStatus
    cursors: tuple[Cursor, ...] = ()
    forks: tuple[Fork, ...] = ()
    retry_ms: int = 0
    spread_s: int = 0
    reason: str = ""


class SummaryRow(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of the rows of one pipeline (or source) and device in one minute or hour that were given up.

    start_ms: event time, Unix ms, start of the interval. worst: the lowest quality code, 500 (stale) counting as 32.
    score, values: (count, min, max, mean) of the numbers that were there. labels: how often each was said.
    """

    name: str
    device: str
    start_ms: int
    n: int
    worst: int
    score: tuple[int, float, float, float] | None
    values: dict[str, tuple[int, float, float, float]]
    labels: dict[str, int]


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a batch of kind `lost`: why the numbers have no rows, and what is kept of them.

    reason: budget | pressure | damage | rejected:… | missing (docs/reference/reasons.md). since_ms: Unix ms.
    interval_s: length of the summary's intervals, 60 or 3600; 0 without a summary.
    """

    reason: str
    since_ms: int
    interval_s: int = 0
    summary: tuple[SummaryRow, ...] = ()
