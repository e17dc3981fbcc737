"""Batches as a gateway would send them, and questions to the database behind the hub's back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw
import asyncpg
import msgspec

from edged.hub.ports import Batch
from edged.messages import RecordColumns, ResultColumns, ResultContext, TelemetryColumns
from edged.sync.protocol import BatchHeader, Hello, Lost, Probe, StreamExtent, SummaryRow

SITE, GATEWAY, EPOCH = "lyon", "gw-1", "e1"
NOW_MS = 1_790_000_000_000
BOOT = "boot-1"
CONTEXT = ResultContext("pump", "bearing", "3", "ab" * 32, "onnxruntime:cpu", "normal", False, "synced", BOOT)
SUMMARY = SummaryRow("pump", "hall-1", NOW_MS, 60, 64, (60, 0.25, 0.75, 0.5), {"rms": (60, 1.0, 3.0, 2.0)}, {"ok": 60})


def header(first: int, last: int, stream: Any = "result", kind: Any = "rows", **other: Any) -> BatchHeader:
    said: dict[str, Any] = {
        "v": "edged-sync/1", "site": SITE, "gateway": GATEWAY, "epoch": EPOCH, "stream": stream, "kind": kind,
        "first": first, "last": last, "n": last - first + 1, "base": 1, "encoding": "zstd", "sha256": "",
        "boot": BOOT, "clock": "synced",
    }  # fmt: skip
    return BatchHeader(**said | other)


def result_rows(first: int, last: int, contexts: Iterable[ResultContext] = (CONTEXT,)) -> ResultColumns:
    """Rows that follow from their numbers, failed ones and repeated contexts among them."""
    seqs = range(first, last + 1)
    known = list(contexts)
    return ResultColumns(
        contexts=known,
        context=[seq % len(known) for seq in seqs],
        device=[f"hall-{seq % 5}" for seq in seqs],
        topic=[f"plant/hälle/pump/{seq % 5}" for seq in seqs],
        event_seq=[seq * 8 for seq in seqs],
        in_seq=[seq if seq % 3 else None for seq in seqs],
        ts=[NOW_MS + seq for seq in seqs],
        produced=[NOW_MS + 5 + seq for seq in seqs],
        mono_ns=[seq * 1_000_000 for seq in seqs],
        label=["ok" if seq % 7 else None for seq in seqs],
        score=[seq / 8 if seq % 7 else None for seq in seqs],
        values=[{"wear": [0.1, seq / 3], "rms": 1e300} if seq % 7 else None for seq in seqs],
        queue_us=[120 + seq for seq in seqs],
        infer_us=[41] * len(seqs),
        quality=[192 if seq % 7 else 0 for seq in seqs],
        reasons=[() if seq % 7 else ("infer_failed", "deadline_missed") for seq in seqs],
    )


def results(first: int, last: int, *, rows: ResultColumns | None = None, **said: Any) -> Batch:
    return Batch(header(first, last, **said), rows or result_rows(first, last), None)


def lost(first: int, last: int, *, summary: tuple[SummaryRow, ...] = (), **said: Any) -> Batch:
    why = Lost(reason="budget", since_ms=NOW_MS, interval_s=60 if summary else 0, summary=summary)
    return Batch(header(first, last, kind="lost", **said), None, why)


def record_rows(records: list[tuple[str, Any]], *, clock: str = "synced", boot: str = BOOT) -> RecordColumns:
    """records: (kind, payload); a payload that is not bytes is written as JSON. One second apart."""
    n = len(records)
    return RecordColumns(
        kind=[kind for kind, _ in records],
        wall_ms=[NOW_MS + 1000 * i for i in range(n)],
        mono_ns=[1_000_000_000 * (i + 1) for i in range(n)],
        boot=[boot] * n,
        clock=[clock] * n,
        payload=[payload if isinstance(payload, bytes) else msgspec.json.encode(payload) for _, payload in records],
    )


def records(first: int, said: list[tuple[str, Any]], stream: str = "health", **other: Any) -> Batch:
    rows = record_rows(said, **{key: other.pop(key) for key in ("clock", "boot") if key in other})
    return Batch(header(first, first + len(said) - 1, stream, **other), rows, None)


def telemetry_rows(first: int, last: int, *, clock: str = "synced", flags: int = 0) -> TelemetryColumns:
    seqs = range(first, last + 1)
    n = len(seqs)
    return TelemetryColumns(
        source=["pump"] * n,
        device=["hall-1"] * n,
        topic=["plant/hall/pump/1"] * n,
        ts=[NOW_MS + seq for seq in seqs],
        in_seq=[seq if seq % 2 else None for seq in seqs],
        boot=[None] * n,
        flags=[flags] * n,
        payload=[b'{"rms": %d.50, "name":"\xc3\xa4"}' % seq for seq in seqs],
        arrival_wall_ms=[NOW_MS + seq for seq in seqs],
        arrival_mono_ns=[seq * 1_000_000 for seq in seqs],
        gateway_boot=[BOOT] * n,
        clock=[clock] * n,
    )


def hello(*extents: StreamExtent, probes: tuple[Probe, ...] = (), epoch: str = EPOCH) -> Hello:
    return Hello(
        v="edged-sync/1", site=SITE, gateway=GATEWAY, instance="i", version="0", epoch=epoch, extents=extents,
        probes=probes,
    )  # fmt: skip


async def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """Rows as an analyst gets them."""
    if url.startswith("sqlite:///"):
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
    analyst = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await analyst.fetch(query)]
    finally:
        await analyst.close()


async def numbers(url: str, table: str = "result") -> list[int]:
    return [row[0] for row in await ask(url, f"SELECT seq FROM {table} ORDER BY seq")]
