"""A store as the uplink sees it, made of lists."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from edged.errors import StoreError
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


class FileOutward:
    """Implements `edged.ports.Outward` over a JSON file that a test rewrites while another process reads it.

    {"next": {stream: number}, "lost": [[stream, first, last, reason], ...], "base": {stream: number}}
    """

    EPOCH = "epoch-1"

    def __init__(self, file: Path) -> None:
        self._file = file

    def _listed(self) -> ListedOutward:
        try:
            told = json.loads(self._file.read_text())
        except OSError as error:
            raise StoreError(f"reading the listed store: {error}") from None
        spans: list[Span] = []
        for stream, number in told["next"].items():
            first = told.get("base", {}).get(stream, 1)
            for name, low, high, reason in sorted(told.get("lost", ())):
                if name == stream and low >= first:
                    if low > first:
                        spans.append(Span(stream, self.EPOCH, first, low - 1))
                    spans.append(Span(stream, self.EPOCH, low, high, reason))
                    first = high + 1
            if first < number:
                spans.append(Span(stream, self.EPOCH, first, number - 1))
        return ListedOutward(*spans)

    def extents(self) -> tuple[StreamExtent, ...]:
        return self._listed().extents()

    def probes(self, after_seq: int, limit: int) -> tuple[Probe, ...]:
        return ()

    def piece(self, stream: Stream, seq: int, limit: int) -> Piece | None:
        return self._listed().piece(stream, seq, limit)

    def close(self) -> None:
        """Nothing is open."""


def _noise(seq: int, n_bytes: int) -> bytes:
    """Hex digits that do not compress beyond half."""
    return Random(seq).randbytes(n_bytes // 2).hex().encode()
