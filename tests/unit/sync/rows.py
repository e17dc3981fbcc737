"""Rows to seal and open: those a gateway makes, and those that only the types allow."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from edged.messages import RecordColumns, ResultColumns, ResultContext, TelemetryColumns
from edged.sync.plans import Columns
from edged.sync.protocol import Stream

CONTEXT = ResultContext("pump", "bearing", "3", "ab" * 32, "onnxruntime:cpu", "normal", False, "synced", "boot-1")
FALLBACK = msgspec.structs.replace(CONTEXT, runtime="rules", mode="degraded", degraded=True)


def single(value: float) -> float:
    """The nearest float of single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def results(n: int, devices: int = 7, per_call: int = 3) -> ResultColumns:
    """What a model and its fallback make of some devices, with a failed inference here and there."""
    chance = random.Random(n)
    calls = [row // per_call for row in range(n)]
    times = [(chance.randrange(10, 400), chance.randrange(20, 60)) for _ in range(n)]
    scores = [single(chance.random()) for _ in range(n)]
    failed = [row % 50 == 49 for row in range(n)]
    return ResultColumns(
        contexts=[CONTEXT, FALLBACK],
        context=[1 if call % 11 == 10 else 0 for call in calls],
        device=[f"pump-{row % devices}" for row in range(n)],
        topic=[f"plant/pump/{row % devices}" for row in range(n)],
        event_seq=[1_000 + row * 4 for row in range(n)],
        in_seq=[500 + row // devices for row in range(n)],
        ts=[1_790_000_000_000 + 1_000 * (row // devices) + row % devices for row in range(n)],
        produced=[1_790_000_000_500 + 40 * call for call in calls],
        mono_ns=[5_000_000_000 + 40_000_000 * call + 1_000 * sum(times[call]) + call % 7 for call in calls],
        label=[None if bad else "ok" if score < 0.8 else "worn" for bad, score in zip(failed, scores, strict=True)],
        score=[None if bad else scores[row - row % 2] for row, bad in enumerate(failed)],
        values=[None if bad else {"wear": scores[row], "hours": row / 4} for row, bad in enumerate(failed)],
        queue_us=[times[call][0] for call in calls],
        infer_us=[times[call][1] for call in calls],
        quality=[0 if bad else 192 for bad in failed],
        reasons=[("infer_failed", "deadline_missed") if bad else () for bad in failed],
    )


def telemetry(n: int, devices: int = 7) -> TelemetryColumns:
    return TelemetryColumns(
        source=["pump"] * n,
        device=[f"pump-{row % devices}" for row in range(n)],
        topic=[f"plant/pump/{row % devices}" for row in range(n)],
        ts=[1_790_000_000_000 + 250 * row for row in range(n)],
        in_seq=[None if row % devices == 3 else row for row in range(n)],
        boot=[None] * n,
        flags=[row % 2 for row in range(n)],
        payload=[b'{"temp":%d.5,"seq":%d}' % (20 + row % 3, row) for row in range(n)],
        arrival_wall_ms=[1_790_000_000_003 + 250 * row for row in range(n)],
        arrival_mono_ns=[7_000_000_000 + 250_000_000 * row for row in range(n)],
        gateway_boot=["boot-1"] * n,
        clock=["synced"] * n,
    )


def records(n: int) -> RecordColumns:
    return RecordColumns(
        kind=["mode" if row % 3 else "gap" for row in range(n)],
        wall_ms=[1_790_000_000_000 + 900 * row for row in range(n)],
        mono_ns=[3_000_000_000 + 900_000_000 * row for row in range(n)],
        boot=["boot-1"] * n,
        clock=["holdover"] * n,
        payload=[b'{"v":"edged.gap/1","count":%d}' % row for row in range(n)],
    )


def rows_of(stream: Stream, n: int) -> Columns:
    made: dict[Stream, Any] = {"result": results, "telemetry": telemetry, "alarm": records, "health": records}
    columns: Columns = made[stream](n)
    return columns


# --- whatever the types allow -----------------------------------------------------------------------------------

INT = st.integers(-(2**63), 2**63 - 1) | st.integers(-100, 100)
TEXT = st.text(max_size=6) | st.sampled_from(["", "a", "b"])
FLOAT = st.floats() | st.floats(width=32) | st.integers(-500, 500).map(lambda cents: cents / 100)
BYTES = st.binary(max_size=12) | TEXT.map(str.encode)
VALUES = st.dictionaries(TEXT, FLOAT | st.lists(FLOAT, max_size=4), max_size=3)


def column(n: int, one: SearchStrategy[Any]) -> SearchStrategy[list[Any]]:
    """Entries that differ, or are drawn from a few: what repeats is written otherwise."""
    few = st.lists(one, min_size=1, max_size=3).flatmap(
        lambda some: st.lists(st.sampled_from(some), min_size=n, max_size=n)
    )
    return st.lists(one, min_size=n, max_size=n) | few


@st.composite
def any_results(draw: DrawFn) -> ResultColumns:
    n = draw(st.integers(1, 12))

    def some(one: SearchStrategy[Any]) -> list[Any]:
        return draw(column(n, one))

    return ResultColumns(
        contexts=[CONTEXT, FALLBACK],
        context=some(st.integers(0, 1)),
        device=some(TEXT),
        topic=some(TEXT),
        event_seq=some(INT),
        in_seq=some(st.none() | INT),
        ts=some(INT),
        produced=some(INT),
        mono_ns=some(INT),
        label=some(st.none() | TEXT),
        score=some(st.none() | FLOAT),
        values=some(st.none() | VALUES),
        queue_us=some(INT),
        infer_us=some(INT),
        quality=some(INT),
        reasons=some(st.lists(TEXT, max_size=2).map(tuple)),
    )


@st.composite
def any_telemetry(draw: DrawFn) -> TelemetryColumns:
    n = draw(st.integers(1, 12))
    kinds = (TEXT, TEXT, TEXT, INT, st.none() | INT, st.none() | TEXT, INT, BYTES, INT, INT, TEXT, TEXT)
    return TelemetryColumns(*(draw(column(n, kind)) for kind in kinds))


@st.composite
def any_records(draw: DrawFn) -> RecordColumns:
    n = draw(st.integers(1, 12))
    return RecordColumns(*(draw(column(n, kind)) for kind in (TEXT, INT, INT, TEXT, TEXT, BYTES)))


def exactly(value: Any) -> Any:
    """Equal only for what is the same in value and type, to the bit: NaN is itself, 1 is not 1.0, 0.0 is not -0.0."""
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else value.hex()
    if isinstance(value, msgspec.Struct):
        return type(value), [exactly(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return "dict", [(name, exactly(one)) for name, one in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [exactly(one) for one in value]
    return type(value), value
