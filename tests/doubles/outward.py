"""A store as the uplink sees it, made of lists."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import msgspec

from edged.messages import RecordColumns, ResultColumns
from edged.sync.piece import Piece
from edged.sync.protocol import Lost, Probe, Stream, StreamExtent
from tests.unit.store.samples import results

CLOCK = "synced"


class Span(NamedTuple):
    """Numbers of one stream in one epoch; `lost` says why they have no rows."""

    stream: Stream
    epoch: str
    first: int
    last: int
    lost: str = ""


class ListedOutward:
    """Implements `edged.ports.Outward` over spans, in order. `boot`: of every row."""

    def __init__(self, *spans: Span, boot: str = "boot-1", payload_bytes: int = 20) -> None:
        self.spans = spans
        self.boot = boot
        self.payload_bytes = payload_bytes
        self.closed = False

    def extents(self) -> tuple[StreamExtent, ...]:
        found: dict[tuple[str, Stream], StreamExtent] = {}
        for span in self.spans:
            known = found.get((span.epoch, span.stream))
            base = known.base if known else span.first
            found[span.epoch, span.stream] = StreamExtent(span.epoch, span.stream, base, span.last + 1)
        return tuple(found.values())

    def probes(self, after_seq: int, limit: int) -> tuple[Probe, ...]:
        firsts = [span for span in self.spans if span.stream == "result" and span.first > after_seq and not span.lost]
        found = [Probe(span.epoch, span.first, self.boot, span.first * 1000) for span in firsts]
        return tuple(found[-limit:])

    def piece(self, stream: Stream, seq: int, limit: int) -> Piece | None:
        for span in self.spans:
            if span.stream == stream and span.first <= seq <= span.last:
                last = min(span.last, seq + limit - 1)
                base = next(e.base for e in self.extents() if (e.epoch, e.stream) == (span.epoch, stream))
                lost = Lost(reason=span.lost, since_ms=1) if span.lost else None
                rows = None if lost else self._rows(stream, seq, last - seq + 1)
                return Piece(stream, span.epoch, base, seq, last, self.boot, CLOCK, rows, lost)
        return None

    def _rows(self, stream: Stream, first: int, n: int) -> ResultColumns | RecordColumns:
        if stream == "result":
            columns = results(first, n)
            columns.contexts = [msgspec.structs.replace(context, boot=self.boot) for context in columns.contexts]
            return columns
        seqs = range(first, first + n)
        return RecordColumns(
            kind=["alarm" if stream == "alarm" else "gap"] * n,
            wall_ms=[1_790_000_000_000 + seq for seq in seqs],
            mono_ns=[seq * 1000 for seq in seqs],
            boot=[self.boot] * n,
            clock=[CLOCK] * n,
            payload=[b'{"n":%d,"x":"%s"}' % (seq, _noise(seq, self.payload_bytes)) for seq in seqs],
        )

    def close(self) -> None:
        self.closed = True


def _noise(seq: int, n_bytes: int) -> bytes:
    """Hex digits that do not compress beyond half."""
    return Random(seq).randbytes(n_bytes // 2).hex().encode()
