"""Units and a clock to store them with."""

from __future__ import annotations

import random

from edged.messages import EventColumns, Notice, ResultColumns, ResultContext, Unit
from edged.ports import ClockQuality

CONTEXT = ResultContext("pump", "bearing", "3", "ab" * 32, "onnxruntime:cpu", "normal", False, "synced", "boot-1")


class SteppingClock:
    """Every look at the monotonic clock is 1 ms later than the last; the wall stands still until a test moves it."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.now_ns = 0
        self.now_ms = 1_790_000_000_000

    def mono_ns(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def wall_ms(self) -> int:
        return self.now_ms

    def quality(self) -> ClockQuality:
        return "synced"

    def error_ns(self) -> int:
        return 0


def payload(seq: int, noise: int) -> bytes:
    """One sensor event as JSON, with `noise` bytes in it that do not compress."""
    return b'{"accel_rms":%d.5,"current_a":12.25,"temp_c":61.0,"seq":%d,"noise":"%s"}' % (
        seq,
        seq,
        random.Random(seq).randbytes(noise).hex().encode(),
    )


def events(first: int, n: int, noise: int = 0) -> EventColumns:
    seqs = range(first, first + n)
    return EventColumns(
        source=["pump"] * n,
        device=[f"hall-{seq % 50}" for seq in seqs],
        topic=[f"plant/hall/pump/{seq % 50}" for seq in seqs],
        ts=[1_790_000_000_000 + seq for seq in seqs],
        in_seq=[seq if seq % 3 else None for seq in seqs],
        boot=[None] * n,
        flags=[0] * n,
        payload=[payload(seq, noise) for seq in seqs],
    )


def results(first: int, n: int) -> ResultColumns:
    seqs = range(first, first + n)
    return ResultColumns(
        contexts=[CONTEXT],
        context=[0] * n,
        device=[f"hall-{seq % 50}" for seq in seqs],
        topic=[f"plant/hall/pump/{seq % 50}" for seq in seqs],
        event_seq=list(seqs),
        in_seq=[seq if seq % 3 else None for seq in seqs],
        ts=[1_790_000_000_000 + seq for seq in seqs],
        produced=[1_790_000_000_005 + seq for seq in seqs],
        mono_ns=[seq * 1000 for seq in seqs],
        label=["ok" if seq % 7 else None for seq in seqs],
        score=[0.5 if seq % 7 else None for seq in seqs],
        values=[{"ok": 0.5, "wear": [0.25, 0.25]} if seq % 7 else None for seq in seqs],
        queue_us=[120] * n,
        infer_us=[40] * n,
        quality=[192 if seq % 7 else 0 for seq in seqs],
        reasons=[() if seq % 7 else ("infer_failed",) for seq in seqs],
    )


def notices(n: int) -> list[Notice]:
    return [Notice(f"gap/{i}", b'{"v":"edged.gap/1"}', retain=bool(i % 2)) for i in range(n)]


def unit(
    event_first: int = 1,
    n_events: int = 0,
    result_first: int = 1,
    n_results: int = 0,
    n_notices: int = 0,
    meta: bytes = b'{"received":1}',
    noise: int = 0,
) -> Unit:
    return Unit(
        event_first=event_first,
        result_first=result_first,
        events=events(event_first, n_events, noise) if n_events else None,
        results=results(result_first, n_results) if n_results else None,
        notices=notices(n_notices),
        meta=meta,
        arrival_wall_ms=1_790_000_000_000,
        arrival_mono_ns=42,
        boot="boot-1",
        clock="synced",
    )
