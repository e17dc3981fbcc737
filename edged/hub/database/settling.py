"""What a batch changes in the books of its stream. Pure: both databases ask here, inside their transaction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.sync import ranges
from edged.sync.protocol import (
    RANGES_MAX,
    VERSION,
    Ack,
    AckStatus,
    BadRow,
    BatchHeader,
    Cursor,
    Fork,
    Hello,
    HelloAck,
    Range,
    Stream,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edged.sync.ranges import Ranges

RANGES_KEPT_MAX = 4 * RANGES_MAX  # a gateway keeps within 64; one that does not waits until its ranges merge
BUSY_RETRY_MS = 5_000
BAD_NAMED_MAX = 200  # in one answer; all of them stand in the table `quarantine`
CURSORS_MAX = 128  # in one answer, newest streams first
EXTENTS_MAX = 512
PROBES_MAX = 512
NUMBER_MAX = 2**53
NAME_MAX_CHARS = 128

_NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{NAME_MAX_CHARS}}}")
_decode_ranges = msgspec.json.Decoder(tuple[Range, ...]).decode


class Standing(NamedTuple):
    """What is home of a stream: everything from `base` to `upto`, and `beyond`."""

    base: int
    upto: int
    beyond: Ranges

    @property
    def home(self) -> Ranges:
        return ((self.base, self.upto), *self.beyond) if self.upto >= self.base else self.beyond

    @property
    def newest(self) -> int:
        """The highest number that is home; base - 1 when none is."""
        return self.beyond[-1][1] if self.beyond else self.upto


def standing(base: int, upto: int, beyond: str) -> Standing:
    """As it stands in the table: `beyond` is JSON."""
    return Standing(base, upto, _decode_ranges(beyond))


def beyond_text(books: Standing) -> str:
    return msgspec.json.encode(books.beyond).decode()


def rebased(books: Standing, base: int) -> Standing:
    """A smaller base is believed: more is missing than was known. A larger one hides nothing that is missing."""
    base = min(base, books.base)
    return Standing(base, *ranges.contiguous(books.home, base))


def added(books: Standing, first: int, last: int) -> Standing:
    return Standing(books.base, *ranges.contiguous(ranges.add(books.home, first, last), books.base))


def scattered(books: Standing) -> bool:
    """More ranges than are remembered: this batch has to wait until others have filled the holes."""
    return len(books.beyond) > RANGES_KEPT_MAX


def unusable(header: BatchHeader, rows: int | None) -> str:
    """Why a batch can never be committed, as a code of the protocol; "" when it can. rows: None for a lost range."""
    named = all(map(_NAME.fullmatch, (header.site, header.gateway, header.epoch)))
    if not named or not 1 <= header.base <= header.last <= NUMBER_MAX or header.first > header.last:
        return "bad_header"
    if header.first < header.base:
        return "before_base"
    if rows is not None and rows != header.last - header.first + 1:
        return "bad_body"
    return ""


def unusable_hello(hello: Hello) -> str:
    names = (hello.site, hello.gateway, hello.epoch, *(extent.epoch for extent in hello.extents))
    few = len(hello.extents) <= EXTENTS_MAX and len(hello.probes) <= PROBES_MAX
    in_order = all(1 <= extent.base <= extent.next <= NUMBER_MAX + 1 for extent in hello.extents)
    return "" if few and in_order and all(map(_NAME.fullmatch, names)) else "bad_header"


def ack(
    header: BatchHeader,
    receiver: str,
    status: AckStatus = "ok",
    *,
    books: Standing | None = None,
    bad: Iterable[tuple[int, str]] = (),
    reason: str = "",
    retry_ms: int = 0,
) -> Ack:
    upto, beyond = (books.upto, books.beyond) if books else (0, ())
    return Ack(
        v=VERSION,
        receiver=receiver,
        site=header.site,
        gateway=header.gateway,
        epoch=header.epoch,
        stream=header.stream,
        first=header.first,
        last=header.last,
        status=status,
        upto=upto,
        ranges=beyond,
        bad=tuple(BadRow(seq, why) for seq, why in bad),
        reason=reason,
        retry_ms=retry_ms,
    )


def hello_ack(
    hello: Hello,
    receiver: str,
    streams: Iterable[tuple[str, Stream, int, int, str]],
    mismatches: Iterable[tuple[str, int]],
) -> HelloAck:
    """streams: (epoch, stream, base, upto, ranges as in the table), newest first. mismatches: see `forks`."""
    cursors, newest = [], {}
    for epoch, stream, base, upto, beyond in streams:
        books = standing(base, upto, beyond)
        cursors.append(Cursor(epoch, stream, books.upto, books.beyond[:RANGES_MAX]))
        newest[epoch, str(stream)] = books.newest
    return HelloAck(
        v=VERSION,
        receiver=receiver,
        site=hello.site,
        gateway=hello.gateway,
        instance=hello.instance,
        status="ok",
        cursors=tuple(cursors),
        forks=forks(hello, newest, mismatches),
    )


def parted(
    hello: Hello, streams: Iterable[tuple[str, Stream, int, int, str]], mismatches: Iterable[tuple[str, int]]
) -> bool:
    """Whether its history is another one than ours: then its numbers will change, and must not be expected."""
    return bool(hello_ack(hello, "", streams, mismatches).forks)


def hello_refused(hello: Hello, receiver: str, reason: str) -> HelloAck:
    answer = hello_ack(hello, receiver, (), ())
    return msgspec.structs.replace(answer, status="reject", reason=reason, forks=())


def forks(hello: Hello, newest: dict[tuple[str, str], int], mismatches: Iterable[tuple[str, int]]) -> tuple[Fork, ...]:
    """The first number of each epoch from which on its history is another one than ours.

    newest: highest number that is home, by (epoch, stream). mismatches: (epoch, seq) of probes under whose number we
    have a row of another maker.
    """
    found = dict[str, int]()
    for epoch, seq in mismatches:
        found[epoch] = min(seq, found.get(epoch, seq))
    current = {extent.stream: extent.next for extent in hello.extents if extent.epoch == hello.epoch}
    behind = [next_ for stream, next_ in current.items() if next_ <= newest.get((hello.epoch, stream), 0)]
    if behind:
        seq = current.get("result", behind[0])
        found[hello.epoch] = min(seq, found.get(hello.epoch, seq))
    return tuple(Fork(epoch, seq) for epoch, seq in sorted(found.items()))
