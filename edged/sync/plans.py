"""What the columns of each stream are written beside, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, compress
from operator import add, sub
from types import NoneType
from typing import Any, NamedTuple

from edged.messages import RecordColumns, ResultColumns, TelemetryColumns
from edged.sync import packing
from edged.sync.frame import Frame, gather, spread
from edged.sync.nodes import LEAST, MOST, Beside, ByCall, ByGroup, Chain, GroupDeltas, Node, OfGroup
from edged.sync.packing import Choice
from edged.sync.protocol import Stream

Columns = ResultColumns | TelemetryColumns | RecordColumns
Writer = Callable[[list[Any], Frame], Choice]


def group_codes(frame: Frame) -> Choice:
    """How the group of each row is written."""
    return packing.cheapest(packing.integers(frame.codes), _by_call(frame.codes, frame, packing.integers))


def _wrapped(kind: Callable[[Node], Node], inner: Choice) -> Choice:
    return Choice(inner.bits, lambda: kind(inner.make()))


def _by_call(values: list[Any], frame: Frame, write: Callable[[list[Any]], Choice]) -> Choice | None:
    if 2 * len(frame.call_rows) > frame.n:
        return None
    place, heads = 0, []
    for count in frame.call_rows:
        heads.append(values[place])
        place += count
    if spread(heads, frame.call_rows) != values:
        return None
    return _wrapped(ByCall, write(heads))


def _few(write: Callable[[list[Any]], Choice]) -> Writer:
    """What the rows of a group mostly have in common."""

    def written(values: list[Any], frame: Frame) -> Choice:
        if values.count(values[0]) == len(values):
            return write(values[:1])
        table = dict(zip(frame.codes, values, strict=True))
        if list(map(table.__getitem__, frame.codes)) == values:
            return _wrapped(OfGroup, write([table[code] for code in range(frame.groups)]))
        grouped = _wrapped(ByGroup, write(gather(values, frame.order)))
        return packing.cheapest(write(values), grouped, _by_call(values, frame, write))

    return written


def _counting(values: list[Any], frame: Frame) -> Choice:
    """Integers that go on in their group, or altogether."""
    if None in values:
        return _wrapped(ByGroup, packing.optional(gather(values, frame.order), packing.integers))
    return packing.cheapest(packing.integers(values), _group_deltas(values, frame))


def _group_deltas(values: list[int], frame: Frame) -> Choice | None:
    if 2 * frame.groups > frame.n:
        return None
    ordered = gather(values, frame.order)
    starts = list(accumulate(frame.sizes[:-1], initial=0))
    goes_on = bytearray(b"\x01") * frame.n
    for start in starts:
        goes_on[start] = 0
    firsts = [ordered[start] for start in starts]
    rest = list(compress(map(sub, ordered[1:], ordered), goes_on[1:]))
    first, more = packing.integers(firsts), packing.integers(rest)
    return Choice(first.bits + more.bits, lambda: GroupDeltas(first.make(), more.make()))


def _score(values: list[Any], frame: Frame) -> Choice:
    return _wrapped(ByGroup, packing.optional(gather(values, frame.order), packing.floats))


def _names(values: list[Any], frame: Frame) -> Choice:
    """The groups themselves."""
    return packing.texts(list(dict.fromkeys(values)))


def _alone(values: list[Any], frame: Frame) -> Choice:
    return packing.integers(values)


def _waited(values: list[Any], frame: Frame) -> Choice:
    """The calls of one turn follow each other: each waited for the ones before it."""
    before = list(map(add, values, frame.columns["infer_us"]))
    rest = packing.integers(list(map(sub, values[1:], before)))
    chained = Choice(rest.bits, lambda: Chain("infer_us", values[0], rest.make()))
    return packing.cheapest(packing.integers(values), chained)


def _ended(values: list[Any], frame: Frame) -> Choice:
    """The calls of one turn have the same arrival: what came later was waiting and computing."""
    took = map(add, frame.columns["queue_us"], frame.columns["infer_us"])
    rest = packing.integers([value - 1000 * each for value, each in zip(values, took, strict=True)])
    beside = Choice(rest.bits, lambda: Beside(["queue_us", "infer_us"], 1000, 0, 1, rest.make()))
    return packing.cheapest(packing.integers(values), beside)


def _wall(mono: str) -> Writer:
    """Two clocks that run alike."""

    def written(values: list[Any], frame: Frame) -> Choice:
        monos = frame.columns[mono]
        offset = max(wall * 1_000_000 - ns for wall, ns in zip(values, monos, strict=True))
        if not LEAST <= offset <= MOST:
            return packing.integers(values)
        rest = packing.integers([wall - (ns + offset) // 1_000_000 for wall, ns in zip(values, monos, strict=True)])
        beside = Choice(rest.bits, lambda: Beside([mono], 1, offset, 1_000_000, rest.make()))
        return packing.cheapest(packing.integers(values), beside)

    return written


def _values(values: list[Any], frame: Frame) -> Choice:
    return _wrapped(ByGroup, packing.objects(gather(values, frame.order)))


def _payload(values: list[Any], frame: Frame) -> Choice:
    return _wrapped(ByGroup, packing.blobs(gather(values, frame.order)))


# --- what the streams consist of --------------------------------------------------------------------------------


Types = frozenset[type]


class Column(NamedTuple):
    write: Writer
    types: Types


class Plan(NamedTuple):
    """group: the column that rows are grouped by. calls: columns that rows of one call share.

    columns: in the order in which they need each other.
    """

    type: type[Columns]
    group: str
    calls: tuple[str, ...]
    columns: dict[str, Column]

    def length(self, name: str, frame: Frame) -> int:
        """How many entries are written of this column."""
        return frame.groups if name == self.group else len(frame.call_rows) if name in self.calls else frame.n


_INT: Types = frozenset({int})
_MAYBE_INT: Types = frozenset({int, NoneType})
_TEXT: Types = frozenset({str})
_MAYBE_TEXT: Types = frozenset({str, NoneType})
_MAYBE_FLOAT: Types = frozenset({float, NoneType})
_MAYBE_OBJECT: Types = frozenset({dict, NoneType})
_TUPLE: Types = frozenset({tuple})
_BYTES: Types = frozenset({bytes})

_RESULT = Plan(
    ResultColumns,
    "device",
    ("infer_us", "queue_us", "mono_ns", "produced"),
    {
        "device": Column(_names, _TEXT),
        "infer_us": Column(_alone, _INT),
        "queue_us": Column(_waited, _INT),
        "mono_ns": Column(_ended, _INT),
        "produced": Column(_wall("mono_ns"), _INT),
        "context": Column(_few(packing.integers), _INT),
        "topic": Column(_few(packing.texts), _TEXT),
        "event_seq": Column(_counting, _INT),
        "in_seq": Column(_counting, _MAYBE_INT),
        "ts": Column(_counting, _INT),
        "label": Column(_few(packing.texts), _MAYBE_TEXT),
        "score": Column(_score, _MAYBE_FLOAT),
        "values": Column(_values, _MAYBE_OBJECT),
        "quality": Column(_few(packing.integers), _INT),
        "reasons": Column(_few(packing.tuples), _TUPLE),
    },
)
_TELEMETRY = Plan(
    TelemetryColumns,
    "device",
    ("arrival_mono_ns", "arrival_wall_ms"),
    {
        "device": Column(_names, _TEXT),
        "arrival_mono_ns": Column(_alone, _INT),
        "arrival_wall_ms": Column(_wall("arrival_mono_ns"), _INT),
        "gateway_boot": Column(_few(packing.texts), _TEXT),
        "clock": Column(_few(packing.texts), _TEXT),
        "source": Column(_few(packing.texts), _TEXT),
        "topic": Column(_few(packing.texts), _TEXT),
        "boot": Column(_few(packing.texts), _MAYBE_TEXT),
        "in_seq": Column(_counting, _MAYBE_INT),
        "ts": Column(_counting, _INT),
        "flags": Column(_few(packing.integers), _INT),
        "payload": Column(_payload, _BYTES),
    },
)
_RECORDS = Plan(
    RecordColumns,
    "kind",
    ("mono_ns", "wall_ms"),
    {
        "kind": Column(_names, _TEXT),
        "mono_ns": Column(_alone, _INT),
        "wall_ms": Column(_wall("mono_ns"), _INT),
        "boot": Column(_few(packing.texts), _TEXT),
        "clock": Column(_few(packing.texts), _TEXT),
        "payload": Column(_payload, _BYTES),
    },
)
PLANS: dict[Stream, Plan] = {"result": _RESULT, "telemetry": _TELEMETRY, "alarm": _RECORDS, "health": _RECORDS}
