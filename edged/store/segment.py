"""A unit's columns as the blobs of one journal row, and back.

Every blob checks itself: a flipped bit becomes `StoreCorrupt`, never a wrong answer.
"""

from __future__ import annotations

import zlib
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec
import zstandard

from edged.errors import BugError, StoreCorrupt
from edged.messages import EventColumns, Notice, ResultColumns, Unit
from edged.sync.protocol import SummaryRow

PLAIN = 1  # format byte, crc32 (4 bytes, little endian), msgpack
ZSTD = 2  # format byte, zstd frame with content checksum, of msgpack

COMPRESS_ABOVE_BYTES = 256  # below, the frame and the CPU cost more than zstd saves
ZSTD_LEVEL = 1
DECODED_LIMIT_BYTES = 256 * 1024 * 1024  # a damaged length field must not take the memory of the box

# All columns at once, without a look-up by name for each: a backlog has millions of units.
event_fields = attrgetter(*EventColumns.__struct_fields__)
result_fields = attrgetter(*(name for name in ResultColumns.__struct_fields__ if name != "contexts"))

T = TypeVar("T")


class Segment(NamedTuple):
    """What one row holds besides its numbers, in the order of its columns; None where the unit had nothing of it."""

    meta: bytes
    notices: bytes | None
    results: bytes | None
    events: bytes | None


class Packer:
    """Encodes; not thread-safe (zstd contexts are not), so each thread has its own."""

    def __init__(self) -> None:
        self._msgpack = msgspec.msgpack.Encoder()
        self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)

    def segment(self, unit: Unit) -> Segment:
        return Segment(
            self.pack_bytes(unit.meta),
            self.pack(unit.notices) if unit.notices else None,
            self.pack(unit.results) if unit.results and unit.results.context else None,
            self.pack(unit.events) if unit.events and unit.events.source else None,
        )

    def pack(self, value: object) -> bytes:
        return self.pack_bytes(self._msgpack.encode(value))

    def pack_bytes(self, raw: bytes) -> bytes:
        if len(raw) >= COMPRESS_ABOVE_BYTES:
            packed = self._zstd.compress(raw)
            if len(packed) < len(raw):
                return bytes((ZSTD,)) + packed
        return bytes((PLAIN,)) + zlib.crc32(raw).to_bytes(4, "little") + raw


class Unpacker:
    """Decodes and checks; not thread-safe.

    Every method raises `StoreCorrupt` for bytes that `Packer` did not write.
    """

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()
        self._events = msgspec.msgpack.Decoder(EventColumns)
        self._results = msgspec.msgpack.Decoder(ResultColumns)
        self._notices = msgspec.msgpack.Decoder(list[Notice])
        self._summary = msgspec.msgpack.Decoder(list[SummaryRow])

    def events(self, blob: bytes, n: int) -> EventColumns:
        columns = self._decode(self._events, blob)
        _require_lengths("events", event_lengths(columns), n)
        return columns

    def results(self, blob: bytes, n: int) -> ResultColumns:
        columns = self._decode(self._results, blob)
        _require_lengths("results", result_lengths(columns), n)
        return columns

    def notices(self, blob: bytes, n: int) -> list[Notice]:
        notices = self._decode(self._notices, blob)
        _require_lengths("notices", {len(notices)}, n)
        return notices

    def summary(self, blob: bytes, n: int) -> list[SummaryRow]:
        rows = self._decode(self._summary, blob)
        _require_lengths("summary", {len(rows)}, n)
        return rows

    def unpack_bytes(self, blob: bytes) -> bytes:
        kind = blob[0] if blob else 0
        if kind == PLAIN:
            raw = blob[5:]
            if zlib.crc32(raw).to_bytes(4, "little") != blob[1:5]:
                raise StoreCorrupt(f"reading a stored blob of {len(blob)} bytes: checksum differs")
            return raw
        if kind == ZSTD:
            return self._decompress(blob[1:])
        raise StoreCorrupt(f"reading a stored blob of {len(blob)} bytes: expected format 1 or 2, got {kind}")

    def _decompress(self, frame: bytes) -> bytes:
        try:
            size = zstandard.frame_content_size(frame)
            if not 0 <= size <= DECODED_LIMIT_BYTES:
                raise StoreCorrupt(f"reading a stored blob: {size} bytes announced, limit {DECODED_LIMIT_BYTES}")
            return self._zstd.decompress(frame)
        except zstandard.ZstdError as error:
            raise StoreCorrupt(f"reading a stored blob of {len(frame)} bytes: {error}") from error

    def _decode(self, decoder: msgspec.msgpack.Decoder[T], blob: bytes) -> T:
        raw = self.unpack_bytes(blob)
        try:
            return decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(f"reading a stored blob of {len(raw)} bytes: {error}") from error


def event_lengths(columns: EventColumns) -> set[int]:
    return set(map(len, event_fields(columns)))


def result_lengths(columns: ResultColumns) -> set[int]:
    return set(map(len, result_fields(columns)))


def counts(unit: Unit) -> tuple[int, int, int]:
    """(events, results, notices) of a unit.

    Raises `BugError` for columns of different lengths: entry i would mean different things in each.
    """
    events = _count("events", event_lengths(unit.events)) if unit.events else 0
    results = _count("results", result_lengths(unit.results)) if unit.results else 0
    return events, results, len(unit.notices)


def trim_results(columns: ResultColumns, skip: int) -> ResultColumns:
    """The same columns without their first `skip` entries."""
    return ResultColumns(
        columns.contexts,
        *(getattr(columns, name)[skip:] for name in columns.__struct_fields__ if name != "contexts"),
    )


def trim_events(columns: EventColumns, skip: int) -> EventColumns:
    """The same columns without their first `skip` entries."""
    return EventColumns(*(getattr(columns, name)[skip:] for name in columns.__struct_fields__))


def _count(what: str, lengths: set[int]) -> int:
    if len(lengths) != 1:
        raise BugError(f"{what} columns of one unit have different lengths: {sorted(lengths)}")
    return next(iter(lengths))


def _require_lengths(what: str, lengths: set[int], n: int) -> None:
    if lengths != {n}:
        raise StoreCorrupt(f"reading stored {what}: expected {n} entries, got {sorted(lengths)}")
