"""Rows of a stream as the body of a batch, and back: columnar JSON. Pure; the same rows give the same bytes.

Rows of one *call* (of the model, or of one arrival) follow each other and share their times. Rows of one *group* (a
device) resemble the row before of the same group: a counter goes on by one, event time by the same step, a score comes
again. How each column is written is said in the JSON: edged/sync/nodes.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edged.errors import BugError
from edged.messages import ResultColumns, ResultContext
from edged.sync import packing
from edged.sync.frame import Frame, spread
from edged.sync.nodes import LEAST, MOST, Count, Node
from edged.sync.plans import PLANS, Columns, Plan, group_codes
from edged.sync.protocol import BATCH_ROWS_MAX, Stream
from edged.sync.unpacking import indices, parts, read

ENTRIES_MAX = 1_000_000  # of all lists in the JSON of a batch, more or less


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch of rows as JSON.

    groups, group: how many there are, and which one each row is of. calls, call_rows: how many there are, and how many
    rows each has. columns: the others by name, in the order in which they are read.
    """

    groups: Count
    group: Node
    calls: Count
    call_rows: Node
    columns: dict[str, Node]
    contexts: list[ResultContext] = []


_decoder = msgspec.json.Decoder(Body)


def encode_rows(stream: Stream, rows: Columns) -> bytes:
    """Raises `ValueError` when it is too much for one batch, `BugError` for what are not rows of this stream."""
    plan = PLANS[stream]
    if not isinstance(rows, plan.type):
        raise BugError(f"encoding rows of stream {stream}: got {type(rows).__name__}")
    columns = {name: getattr(rows, name) for name in plan.columns}
    n = len(columns[plan.group])
    lengths = {name: len(column) for name, column in columns.items()}
    if n == 0 or set(lengths.values()) != {n}:
        raise BugError(f"encoding rows of stream {stream}: expected columns of one length, got {lengths}")
    text = msgspec.json.encode(_encoded(plan, columns, n, getattr(rows, "contexts", [])))
    require_few_entries(text)
    return text


def _encoded(plan: Plan, columns: dict[str, list[Any]], n: int, contexts: list[ResultContext]) -> Body:
    frame = Frame(n)
    table = list(dict.fromkeys(columns[plan.group]))
    frame.group(packing.coded(columns[plan.group], table), len(table))
    calls, frame.call_rows = packing.run_lengths(list(zip(*(columns[name] for name in plan.calls), strict=True)))
    frame.columns = dict(zip(plan.calls, map(list, zip(*calls, strict=True)), strict=True))
    written: dict[str, Node] = {}
    for name, column in plan.columns.items():
        values = frame.columns.get(name) or columns[name]
        if int in column.types and not _is_64_bit(values):
            raise BugError(f"encoding rows: an integer in {name} has more than 64 bits")
        written[name] = column.write(values, frame).make()
    call_rows = packing.integers(frame.call_rows).make()
    return Body(len(table), group_codes(frame).make(), len(calls), call_rows, written, contexts)


def decode_rows(stream: Stream, data: bytes, n: int) -> Columns:
    """The rows that were encoded. Raises `ValueError` for anything that is not `n` rows of this stream."""
    if not 1 <= n <= BATCH_ROWS_MAX:
        raise ValueError(f"expected 1 to {BATCH_ROWS_MAX} rows, got {n}")
    require_few_entries(data)
    try:
        return _decoded(PLANS[stream], _decoder.decode(data), n)
    except RecursionError:
        raise ValueError("nodes inside of nodes without end") from None


def _decoded(plan: Plan, body: Body, n: int) -> Columns:
    if not (1 <= body.groups <= n and 1 <= body.calls <= n):
        raise ValueError(f"{body.groups} groups and {body.calls} calls of {n} rows")
    frame = Frame(n)
    frame.call_rows = parts(body.call_rows, body.calls, frame, n)
    frame.group(indices(body.group, n, frame, body.groups), body.groups)
    for name, column in plan.columns.items():
        node = body.columns.get(name)
        if node is None:
            raise ValueError(f"column {name} is missing")
        values = read(node, plan.length(name, frame), frame)
        if not column.types.issuperset(map(type, values)):
            raise ValueError(f"column {name}: expected {column.types}, got {set(map(type, values)) - column.types}")
        if int in column.types and not _is_64_bit(values):
            raise ValueError(f"column {name}: an integer has more than 64 bits")
        frame.columns[name] = values
    columns = {name: _rows_of(plan, name, frame) for name in plan.columns}
    if plan.type is not ResultColumns:
        return plan.type(**columns)
    if not 0 <= min(columns["context"]) <= max(columns["context"]) < len(body.contexts):
        raise ValueError(f"a context is named that is not among the {len(body.contexts)}")
    return ResultColumns(contexts=body.contexts, **columns)


def _rows_of(plan: Plan, name: str, frame: Frame) -> list[Any]:
    values = frame.columns[name]
    if name == plan.group:
        return list(map(values.__getitem__, frame.codes))
    return spread(values, frame.call_rows) if name in plan.calls else values


def _is_64_bit(values: list[int | None]) -> bool:
    there = [value for value in values if value is not None]
    return not there or LEAST <= min(there) <= max(there) <= MOST


def require_few_entries(text: bytes) -> None:
    """Every entry takes a comma: short ones must not become a multiple of their size in memory."""
    if text.count(b",") > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} commas")
