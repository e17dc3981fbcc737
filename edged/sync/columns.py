"""Rows of a stream as the body of a batch, and back: columnar JSON. Pure; the same rows give the same bytes."""

from __future__ import annotations

import msgspec

from edged.errors import BugError
from edged.messages import RecordColumns, ResultColumns, TelemetryColumns
from edged.sync.protocol import BATCH_ROWS_MAX, Stream

Columns = ResultColumns | TelemetryColumns | RecordColumns

_TYPES: dict[Stream, type[Columns]] = {
    "alarm": RecordColumns,
    "health": RecordColumns,
    "result": ResultColumns,
    "telemetry": TelemetryColumns,
}


def encode_rows(stream: Stream, rows: Columns) -> bytes:
    """Raises `BugError` for rows that are not of this stream, or columns of different lengths."""
    if not isinstance(rows, _TYPES[stream]):
        raise BugError(f"encoding rows of stream {stream}: got {type(rows).__name__}")
    return msgspec.json.encode(rows)


def decode_rows(stream: Stream, data: bytes, n: int) -> Columns:
    """The rows that were encoded. Raises `ValueError` for anything that is not `n` rows of this stream."""
    if not 1 <= n <= BATCH_ROWS_MAX:
        raise ValueError(f"expected 1 to {BATCH_ROWS_MAX} rows, got {n}")
    try:
        rows = msgspec.json.decode(data, type=_TYPES[stream])
    except RecursionError:
        raise ValueError("nested too deeply") from None
    lengths = {len(getattr(rows, name)) for name in rows.__struct_fields__ if name != "contexts"}
    if lengths != {n}:
        raise ValueError(f"expected columns of {n} entries, got {sorted(lengths)}")
    return rows
