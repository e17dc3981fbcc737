"""Columns of a batch as rows of a table, the same for both databases. Pure.

Everything a column needs is done to the column as a whole; what does not fit is named, and left out when rows are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

import msgspec

from edged.hub.database import fitting
from edged.hub.database.fitting import INT64_MAX, SPAN_MAX, TIME_MAX_MS, TIME_MIN_MS, Reasons
from edged.messages import RecordColumns, ResultColumns, ResultContext, TelemetryColumns
from edged.sync.protocol import BatchHeader, Lost, Range

Columns = ResultColumns | TelemetryColumns | RecordColumns
Row = tuple[Any, ...]

KEY = ("stream_id", "seq")  # the first two columns of every row


class Sheet(NamedTuple):
    """One batch for one table. names: of the columns, without the key. bad: place of a row → why it is set aside."""

    table: str
    names: tuple[str, ...]
    columns: list[Sequence[Any]]
    bad: Reasons
    contexts: list[Row]

    def rows(self, stream_id: int, first: int, missing: Sequence[Range]) -> Iterator[Row]:
        """Those with a number in `missing`. first: number of the first row."""
        for low, high in missing:
            begin, end = low - first, high - first + 1
            parts = [column[begin:end] for column in self.columns] if end - begin < self.n else self.columns
            rows = zip(repeat(stream_id), range(low, high + 1), *parts)
            if self.bad:
                yield from (row for place, row in enumerate(rows, begin) if place not in self.bad)
            else:
                yield from rows

    @property
    def n(self) -> int:
        return len(self.columns[0])


def count(rows: Columns) -> int | None:
    """How many rows there are; None when the columns differ in length."""
    lengths = {len(getattr(rows, name)) for name in rows.__struct_fields__ if name != "contexts"}
    return lengths.pop() if len(lengths) == 1 else None


def sheet(rows: Columns) -> Sheet:
    maker: Callable[[Any], Sheet] = _MAKERS[type(rows)]
    return maker(rows)


def raw_row(rows: Columns, place: int) -> str:
    """A row as JSON, whatever it holds: for the quarantine."""
    row = {name: getattr(rows, name)[place] for name in rows.__struct_fields__ if name != "contexts"}
    if isinstance(rows, ResultColumns) and type(row["context"]) is int and 0 <= row["context"] < len(rows.contexts):
        row["context"] = rows.contexts[row["context"]]
    return fitting.as_text(row)


# --- results ---


CONTEXT_NAMES = ("id", *ResultContext.__struct_fields__)


def context_id(context: ResultContext) -> int:
    """From the content, so that no worker and no restored database ever gives one number to two contexts."""
    digest = hashlib.sha256(msgspec.json.encode(context)).digest()
    return int.from_bytes(digest[:8], signed=True)


def _context_fits(context: ResultContext) -> bool:
    values = list(msgspec.structs.astuple(context))
    switches = [value for value in values if type(value) is bool]
    return len(switches) == 2 and not fitting.texts([value for value in values if type(value) is not bool])


def _results(rows: ResultColumns) -> Sheet:
    usable = {place: context for place, context in enumerate(rows.contexts) if _context_fits(context)}
    numbers = {place: context_id(context) for place, context in usable.items()}
    less = len(numbers) < len(rows.contexts)
    values, bad_values = fitting.objects(rows.values)
    reasons, bad_reasons = fitting.lists(rows.reasons)
    bad = merged(
        fitting.integers(rows.context, 0, len(rows.contexts) - 1),
        {place: "bad_context" for place, c in enumerate(rows.context) if c not in numbers} if less else {},
        _times(rows.ts),
        _times(rows.produced),
        _spans(rows.mono_ns, rows.queue_us, rows.infer_us),
        fitting.texts(rows.device),
        fitting.texts(rows.topic),
        fitting.texts(rows.label, optional=True),
        fitting.integers(rows.event_seq, -INT64_MAX, INT64_MAX),
        fitting.integers(rows.in_seq, -INT64_MAX, INT64_MAX, optional=True),
        fitting.integers(rows.quality, -32_768, 32_767),
        fitting.floats(rows.score),
        bad_values,
        bad_reasons,
    )  # fmt: skip
    context = (
        [None if place in bad else numbers[c] for place, c in enumerate(rows.context)]
        if bad
        else list(map(numbers.__getitem__, rows.context))
    )
    return Sheet(
        "result",
        (
            "ts", "context_id", "device", "topic", "event_seq", "in_seq", "produced_ms", "mono_ns", "label", "score",
            "values", "queue_us", "infer_us", "quality", "reasons",
        ),
        [
            rows.ts, context, rows.device, rows.topic, rows.event_seq, rows.in_seq, rows.produced, rows.mono_ns,
            rows.label, rows.score, values, rows.queue_us, rows.infer_us, rows.quality, reasons,
        ],
        bad,
        [(numbers[place], *msgspec.structs.astuple(found)) for place, found in usable.items()],
    )  # fmt: skip


# --- telemetry and records ---


def _telemetry(rows: TelemetryColumns) -> Sheet:
    bad = merged(
        _times(rows.ts),
        _times(rows.arrival_wall_ms),
        _spans(rows.arrival_mono_ns),
        *map(fitting.texts, (rows.source, rows.device, rows.topic, rows.gateway_boot, rows.clock)),
        fitting.texts(rows.boot, optional=True),
        fitting.integers(rows.in_seq, -INT64_MAX, INT64_MAX, optional=True),
        fitting.integers(rows.flags, 0, 32_767),
        fitting.documents(rows.payload),
    )
    return Sheet(
        "event",
        (
            "ts", "source", "device", "topic", "in_seq", "sensor_boot", "flags", "payload", "arrival_ms", "mono_ns",
            "boot", "clock",
        ),
        [
            rows.ts, rows.source, rows.device, rows.topic, rows.in_seq, rows.boot, rows.flags,
            _decoded(rows.payload, bad), rows.arrival_wall_ms, rows.arrival_mono_ns, rows.gateway_boot, rows.clock,
        ],
        bad,
        [],
    )  # fmt: skip


def _records(rows: RecordColumns) -> Sheet:
    bad = merged(
        _times(rows.wall_ms),
        _spans(rows.mono_ns),
        *map(fitting.texts, (rows.kind, rows.boot, rows.clock)),
        fitting.documents(rows.payload),
    )
    return Sheet(
        "record",
        ("ts", "kind", "mono_ns", "boot", "clock", "payload"),
        [rows.wall_ms, rows.kind, rows.mono_ns, rows.boot, rows.clock, _decoded(rows.payload, bad)],
        bad,
        [],
    )


_MAKERS: dict[type, Callable[[Any], Sheet]] = {
    ResultColumns: _results,
    TelemetryColumns: _telemetry,
    RecordColumns: _records,
}


def _decoded(payloads: Sequence[bytes], bad: Reasons) -> list[str | None]:
    if not bad:
        return list(map(bytes.decode, payloads))
    return [None if place in bad else payload.decode() for place, payload in enumerate(payloads)]


def _times(column: Sequence[Any]) -> Reasons:
    return fitting.integers(column, TIME_MIN_MS, TIME_MAX_MS)


def _spans(*columns: Sequence[Any]) -> Reasons:
    return merged(*(fitting.integers(column, -SPAN_MAX, SPAN_MAX) for column in columns))


def merged(*found: Reasons) -> Reasons:
    """The first reason counts."""
    return dict(chain.from_iterable(reasons.items() for reasons in reversed(found)))


# --- what the clock records say ---


class ClockRecord(msgspec.Struct, frozen=True):
    """Payload of a record `clock`: from then on this boot's wall time is `mono_ns + offset_ns`, ± `err_ns`."""

    boot: str
    wall_ms: int
    mono_ns: int
    offset_ns: int
    err_ns: int = 0


CLOCK_NAMES = ("gateway_id", "boot", "stream_id", "seq", "mono_ns", "offset_ns", "err_ns", "wall_ms")
_decode_clock = msgspec.json.Decoder(ClockRecord).decode


def clocks(rows: Columns, gateway_id: int, written: Sequence[Row]) -> list[Row]:
    """Rows of the table `clock` for the records `clock` among the `written` rows; one that says nothing is left out."""
    if not isinstance(rows, RecordColumns):
        return []
    found = []
    for stream_id, seq, _ts, kind, *_, payload in written:
        if kind != "clock":
            continue
        try:
            said = _decode_clock(payload)
        except (ValueError, RecursionError):
            continue  # it stays a record that anybody can read
        numbers = (said.mono_ns, said.offset_ns, said.err_ns)
        if not (_spans(numbers) or _times([said.wall_ms]) or fitting.texts([said.boot])):
            found.append((gateway_id, said.boot, stream_id, seq, *numbers, said.wall_ms))
    return found


# --- what was given up ---

SUMMARY_NAMES = (
    "stream_id", "first", "last", "item", "name", "device", "ts", "interval_s", "n", "worst",
    "score_n", "score_min", "score_max", "score_mean", "values", "labels",
)  # fmt: skip


def summaries(stream_id: int, first: int, last: int, lost: Lost) -> list[Row]:
    """Rows of the table `summary`; one that no column takes is left out: its `item` is missing among the others."""
    rows = []
    for item, row in enumerate(lost.summary):
        score = row.score or (None, None, None, None)
        fields = (row.start_ms, lost.interval_s, row.n, row.worst)
        fit = not (
            _times([row.start_ms])
            or fitting.integers(fields[1:], -SPAN_MAX, SPAN_MAX)
            or fitting.integers([score[0]], -SPAN_MAX, SPAN_MAX, optional=True)
            or fitting.floats([None if part is None else float(part) for part in score[1:]])
            or fitting.texts([row.name, row.device, *row.values, *row.labels])
        )
        if fit:
            values, labels = fitting.encode_json(row.values).decode(), fitting.encode_json(row.labels).decode()
            rows.append((stream_id, first, last, item, row.name, row.device, *fields, *score, values, labels))
    return rows


TOMBSTONE_NAMES = (
    "stream_id", "first", "last", "batch_first", "batch_last", "reason", "ts", "boot", "clock", "interval_s",
)  # fmt: skip


def tombstones(stream_id: int, header: BatchHeader, missing: Sequence[Range], lost: Lost) -> list[Row]:
    """Rows of the table `tombstone`. What a lost range says of itself is made to fit: no tombstone is refused."""
    since_ms = min(max(lost.since_ms, TIME_MIN_MS), TIME_MAX_MS)
    interval_s = min(max(lost.interval_s, 0), SPAN_MAX)
    words = (_clean(header.boot), _clean(header.clock), interval_s)
    return [
        (stream_id, low, high, header.first, header.last, _clean(lost.reason), since_ms, *words)
        for low, high in missing
    ]


def _clean(said: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in said[:200])
