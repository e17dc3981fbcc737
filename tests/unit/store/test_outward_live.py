"""What the uplink reads while things happen: commits, checkpoints, damage, stripped rows, a program that knew less."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from edged.errors import StoreCorrupt
from edged.messages import RecordColumns, ResultColumns, TelemetryColumns
from edged.store.outward import PIECE_BYTES, REASON_MISSING, OutwardStore
from edged.store.tombstones import REASON_DAMAGE
from edged.sync.piece import Piece
from edged.sync.protocol import STREAMS, Stream
from tests.unit.store.homeward import gateway
from tests.unit.store.plant import flip
from tests.unit.store.samples import results

pytestmark = pytest.mark.allow_blocking(reason="the uplink is another process; here it reads between two steps")


def read(outward: OutwardStore, stream: Stream, seq: int, limit: int = 1000) -> Piece:
    piece = outward.piece(stream, seq, limit)
    assert piece is not None
    return piece


def change(folder: Path, *statements: str) -> None:
    """Behind the back of a store that is closed."""
    connection = apsw.Connection(str(folder / "store.db"))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def walk(outward: OutwardStore, stream: Stream, until: Callable[[], bool]) -> list[Piece]:
    """Follow a stream as it grows, until it has been read to its end after `until` came true."""
    pieces: list[Piece] = []
    seq, over = 1, False
    while True:
        piece = outward.piece(stream, seq, 40)
        if piece is not None:
            pieces.append(piece)
            seq = piece.last + 1
        elif over:
            return pieces
        else:
            over = until()


async def test_while_a_writer_commits_and_brings_its_wal_home_every_row_is_read_once(tmp_path: Path) -> None:
    made = await gateway(tmp_path, *STREAMS, budget_bytes=3_000_000)
    committed = threading.Event()

    def follow() -> list[Piece]:
        outward = OutwardStore(tmp_path)
        pieces = walk(outward, "result", committed.is_set)
        outward.close()
        return pieces

    reading = asyncio.create_task(asyncio.to_thread(follow))
    for _ in range(300):
        await made.unit(8, 8)
    committed.set()
    pieces = await asyncio.wait_for(reading, 30)
    assert [piece.first for piece in pieces[1:]] == [piece.last + 1 for piece in pieces[:-1]]
    assert pieces[-1].last == 2400
    for piece in pieces:
        assert isinstance(piece.rows, ResultColumns)
        assert piece.rows == results(piece.first, piece.last - piece.first + 1)
    assert (await made.journal.statistics()).checkpoints > 0
    await made.journal.close()


async def test_a_reader_that_stands_still_does_not_hold_up_the_wal(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "result", budget_bytes=3_000_000)
    await made.unit()
    outward = OutwardStore(tmp_path)
    assert read(outward, "result", 1).last == 5
    for _ in range(400):
        await made.unit(8, 8)
    assert (tmp_path / "store.db-wal").stat().st_size < 2 * 2 * 183 * 1048
    outward.close()
    await made.journal.close()


async def test_events_are_found_in_the_surroundings_of_alarms_between_rows_that_were_stripped(tmp_path: Path) -> None:
    made = await gateway(tmp_path, *STREAMS, budget_bytes=400_000, alarm_surroundings_s=1.0)
    for i in range(20):
        await made.unit(at_s=100.0 * i, alarms=i in (5, 6, 12))
    made.journal.answered_upto = 100
    await made.journal.save_snapshot(100, b"folded")
    for i in range(20, 120):
        await made.unit(at_s=100.0 * i)
    outward = OutwardStore(tmp_path)
    pieces = walk(outward, "telemetry", lambda: True)
    there = [(piece.first, piece.last) for piece in pieces if piece.lost is None]
    assert there[:2] == [(26, 35), (61, 65)]
    assert there[-1][1] == 600
    assert {piece.lost.reason for piece in pieces if piece.lost is not None} == {"budget"}
    outward.close()
    await made.journal.close()


async def test_records_behind_one_that_a_former_program_removed_are_still_found(tmp_path: Path) -> None:
    made = await gateway(tmp_path, *STREAMS)
    for _ in range(4):
        await made.unit(health=2)
    await made.journal.close()
    change(tmp_path, "DELETE FROM journal WHERE batch IN (2, 3)")
    outward = OutwardStore(tmp_path)
    assert [(p.first, p.last, p.lost is None) for p in walk(outward, "health", lambda: True)] == [
        (1, 2, True),
        (3, 6, False),
        (7, 8, True),
    ]
    gap = read(outward, "health", 3)
    assert gap.lost is not None
    assert gap.lost.reason == REASON_MISSING
    outward.close()


async def test_a_summary_that_is_damaged_is_left_out_and_the_loss_is_told(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "result", budget_bytes=400_000)
    for _ in range(200):
        await made.unit()
    await made.journal.close()
    outward = OutwardStore(tmp_path)
    told = read(outward, "result", 1)
    assert told.lost is not None
    assert sum(row.n for row in told.lost.summary) == told.last
    outward.close()
    change(tmp_path, "UPDATE aggregate SET data = x'0100'")
    outward = OutwardStore(tmp_path)
    again = read(outward, "result", 1)
    assert again.lost is not None
    assert (again.last, again.lost.summary, again.lost.interval_s) == (told.last, (), 0)
    outward.close()


async def test_rows_that_are_damaged_are_never_told(tmp_path: Path) -> None:
    made = await gateway(tmp_path, *STREAMS)
    await made.unit(health=1)
    await made.journal.close()
    change(tmp_path, "UPDATE journal SET results = x'0102', events = NULL, notices = NULL")
    outward = OutwardStore(tmp_path)
    with pytest.raises(StoreCorrupt):
        outward.piece("result", 1, 10)
    assert read(outward, "telemetry", 1).lost is not None
    assert read(outward, "health", 1).lost is not None
    outward.close()


async def test_large_events_end_a_piece_earlier(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "telemetry", budget_bytes=200_000_000)
    for _ in range(10):
        await made.unit(1, 0, noise=PIECE_BYTES // 8)
    outward = OutwardStore(tmp_path)
    piece = read(outward, "telemetry", 1)
    assert isinstance(piece.rows, TelemetryColumns)
    assert 1 < len(piece.rows.payload) < 10
    assert piece.last == len(piece.rows.payload)
    outward.close()
    await made.journal.close()


async def test_damage_begins_an_epoch_and_what_was_salvaged_keeps_its_own(tmp_path: Path) -> None:
    made = await gateway(tmp_path, *STREAMS, budget_bytes=3_000_000)
    for i in range(60):
        await made.unit(alarms=i % 10 == 0, health=1)
    first = made.journal.epoch
    await made.journal.close()
    flip(tmp_path / "store.db", 60 * 1024, 3000)
    again = await gateway(tmp_path, *STREAMS, budget_bytes=3_000_000)
    assert again.store.recovered.salvage is not None
    second = again.journal.epoch
    assert second != first
    await again.unit(alarms=1, health=1)
    outward = OutwardStore(tmp_path)
    for stream, made_before in (("result", 300), ("telemetry", 300), ("alarm", 6), ("health", 60)):
        pieces = walk(outward, stream, lambda: True)  # type: ignore[arg-type]
        assert [piece.first for piece in pieces[1:]] == [piece.last + 1 for piece in pieces[:-1]]
        assert {piece.epoch for piece in pieces if piece.first <= made_before} == {first}, stream
        assert pieces[-1].epoch == second
        assert pieces[-1].first == pieces[-1].base == made_before + 1
        reasons = {piece.lost.reason for piece in pieces if piece.lost is not None}
        assert reasons <= {REASON_DAMAGE, REASON_MISSING}, stream
        if stream in ("result", "telemetry"):
            assert reasons == {REASON_DAMAGE}
    rows = read(outward, "alarm", 7).rows
    assert isinstance(rows, RecordColumns)
    assert rows.payload == [b'{"n":7}']
    outward.close()
    await again.journal.close()
