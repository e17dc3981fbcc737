"""What the uplink reads: consecutive numbers of one epoch, as they were made, or why they have no rows."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from edged.errors import StoreError
from edged.messages import RecordColumns, ResultColumns, ResultContext, TelemetryColumns
from edged.store.outward import REASON_MISSING, OutwardStore
from edged.sync.piece import Piece
from edged.sync.protocol import Probe, Stream, StreamExtent
from tests.unit.store.homeward import Gateway, gateway
from tests.unit.store.samples import events, results, unit

pytestmark = pytest.mark.allow_blocking(reason="the uplink is another process; here it reads between two steps")


@pytest.fixture
async def home(tmp_path: Path) -> Gateway:
    return await gateway(tmp_path, "alarm", "result", "telemetry", "health", budget_bytes=10_000_000)


def read(outward: OutwardStore, stream: Stream, seq: int, limit: int = 1000) -> Piece:
    piece = outward.piece(stream, seq, limit)
    assert piece is not None
    return piece


async def test_results_of_many_units_come_as_one_piece_as_they_were_made(home: Gateway) -> None:
    for n in (1, 3, 0, 7):
        await home.unit(1, n)
    outward = OutwardStore(home.folder)
    piece = read(outward, "result", 1)
    assert (piece.first, piece.last, piece.base, piece.epoch, piece.lost) == (1, 11, 1, home.journal.epoch, None)
    assert (piece.boot, piece.clock) == ("boot-1", "synced")
    assert piece.rows == results(1, 11)
    outward.close()
    await home.journal.close()


@pytest.mark.parametrize(("seq", "limit", "last"), [(1, 1, 1), (2, 3, 4), (5, 100, 11), (11, 1, 11), (3, 2, 4)])
async def test_a_piece_begins_and_ends_where_it_is_asked_to(home: Gateway, seq: int, limit: int, last: int) -> None:
    for n in (1, 3, 0, 7):
        await home.unit(n, n)
    outward = OutwardStore(home.folder)
    piece = read(outward, "result", seq, limit)
    assert (piece.first, piece.last) == (seq, last)
    assert isinstance(piece.rows, ResultColumns)
    assert piece.rows == results(seq, last - seq + 1)
    told = read(outward, "telemetry", seq, limit)
    assert isinstance(told.rows, TelemetryColumns)
    expected = events(seq, last - seq + 1, 200)
    assert (told.last, told.rows.payload, told.rows.in_seq) == (last, expected.payload, expected.in_seq)
    assert told.rows.gateway_boot == ["boot-1"] * (last - seq + 1)
    outward.close()
    await home.journal.close()


async def test_different_contexts_keep_their_results(home: Gateway) -> None:
    for i in range(6):
        made = unit(0, 0, 1 + 2 * i, 2)
        assert made.results is not None
        other = ResultContext(f"pipe-{i % 3}", "m", "1", "0" * 64, "r", "normal", False, "synced", "b")
        made.results.contexts = [made.results.contexts[0], other]
        made.results.context = [1, 0]
        await home.commit(made)
    outward = OutwardStore(home.folder)
    columns = read(outward, "result", 1).rows
    assert isinstance(columns, ResultColumns)
    assert [columns.contexts[at].pipeline for at in columns.context] == [
        "pipe-0",
        "pump",
        "pipe-1",
        "pump",
        "pipe-2",
        "pump",
    ] * 2
    assert len(columns.contexts) == 4
    outward.close()
    await home.journal.close()


async def test_records_are_found_by_their_own_numbers(home: Gateway) -> None:
    await home.unit(health=2, at_s=1)
    await home.unit()
    await home.unit(alarms=1, health=1, at_s=2)
    await home.unit(alarms=2, at_s=3)
    outward = OutwardStore(home.folder)
    alarms = read(outward, "alarm", 2)
    assert alarms.rows == RecordColumns(
        ["alarm"] * 2,
        [1_790_000_000_000] * 2,
        [3_000_000_000] * 2,
        ["boot-1"] * 2,
        ["synced"] * 2,
        [b'{"n":2}', b'{"n":3}'],
    )
    health = read(outward, "health", 1, 2)
    assert (health.first, health.last) == (1, 2)
    assert isinstance(health.rows, RecordColumns)
    assert health.rows.mono_ns == [1_000_000_000] * 2
    assert read(outward, "health", 2).last == 3
    outward.close()
    await home.journal.close()


@pytest.mark.parametrize("stream", ["alarm", "result", "telemetry", "health"])
async def test_what_is_not_made_yet_is_nothing(home: Gateway, stream: Stream) -> None:
    outward = OutwardStore(home.folder)
    assert outward.piece(stream, 1, 10) is None
    await home.unit(2, 2, alarms=2, health=2)
    assert read(outward, stream, 1).last == 2
    assert outward.piece(stream, 3, 10) is None
    assert outward.piece(stream, 0, 10) is None
    outward.close()
    await home.journal.close()


async def test_what_the_receiver_refuses_is_lost_although_its_rows_are_there(home: Gateway) -> None:
    for _ in range(3):
        await home.unit(5, 5, alarms=1)
    await home.journal.give_up("result", 4, 7, "rejected:bad_body")
    await home.journal.give_up("alarm", 2, 2, "rejected:bad_body")
    outward = OutwardStore(home.folder)
    assert read(outward, "result", 1).last == 3
    lost = read(outward, "result", 4)
    assert (lost.first, lost.last, lost.rows) == (4, 7, None)
    assert lost.lost is not None
    assert (lost.lost.reason, lost.lost.interval_s, lost.lost.since_ms) == ("rejected:bad_body", 0, 1_790_000_000_000)
    assert (read(outward, "result", 8).first, read(outward, "result", 8).last) == (8, 15)
    assert [read(outward, "alarm", seq).lost is None for seq in (1, 2, 3)] == [True, False, True]
    assert read(outward, "telemetry", 1).last == 15
    assert len(await home.journal.read_results(4, 1)) == 1, "the plant's broker gets them"
    outward.close()
    await home.journal.close()


async def test_results_that_are_to_go_home_as_a_summary_do_and_the_plant_still_gets_their_rows(home: Gateway) -> None:
    for _ in range(3):
        await home.unit(5, 5, alarms=1)
    home.home(result=2)
    await home.journal.give_up("result", 9, 9, "rejected:bad_body")
    await home.journal.summarize(1, 12, "pressure")
    await home.journal.summarize(1, 12, "pressure")  # once more changes nothing
    outward = OutwardStore(home.folder)
    pieces = [read(outward, "result", seq) for seq in (3, 9, 10, 13)]
    assert [(piece.first, piece.last) for piece in pieces] == [(3, 8), (9, 9), (10, 12), (13, 15)]
    assert [piece.lost.reason if piece.lost else None for piece in pieces] == [
        "pressure", "rejected:bad_body", "pressure", None,
    ]  # fmt: skip
    summaries = [piece.lost.summary for piece in pieces if piece.lost]
    assert [sum(row.n for row in summary) for summary in summaries] == [6, 0, 3]
    assert read(outward, "alarm", 1).lost is None
    assert len(await home.journal.read_results(3, 100)) == 3, "the plant's broker gets them"
    outward.close()
    await home.journal.close()


async def test_a_summary_never_tells_of_both_sides_of_a_start(tmp_path: Path) -> None:
    """An epoch may begin there."""
    first = await gateway(tmp_path, "result")
    await first.unit(5, 5)
    await first.journal.close()
    second = await gateway(tmp_path, "result")
    await second.unit(5, 5)
    await second.journal.summarize(1, 10, "pressure")
    outward = OutwardStore(tmp_path)
    assert [read(outward, "result", seq).last for seq in (1, 6)] == [5, 10]
    outward.close()
    await second.journal.close()


async def test_rows_that_are_gone_without_a_word_are_missing_up_to_the_next_row(home: Gateway) -> None:
    for _ in range(4):
        await home.unit(5, 5, alarms=1)
    await home.journal.close()
    connection = apsw.Connection(str(home.folder / "store.db"))
    connection.execute("DELETE FROM journal WHERE batch IN (2, 3)")
    connection.close()
    outward = OutwardStore(home.folder)
    streams: tuple[tuple[Stream, int], ...] = (("result", 5), ("telemetry", 5), ("alarm", 1))
    for stream, n in streams:
        piece = read(outward, stream, n + 1)
        assert (piece.first, piece.last, piece.rows) == (n + 1, 3 * n, None)
        assert piece.lost is not None
        assert piece.lost.reason == REASON_MISSING
        assert read(outward, stream, 3 * n + 1).rows is not None
    outward.close()


async def test_extents_and_probes_tell_of_every_start(tmp_path: Path) -> None:
    first = await gateway(tmp_path, "result")
    await first.unit(3, 2, alarms=1)
    await first.journal.close()
    quiet = await gateway(tmp_path, "result")
    await quiet.journal.close()
    again = await gateway(tmp_path, "result")
    await again.unit(1, 2, health=2)
    await again.unit(1, 2)
    outward = OutwardStore(tmp_path)
    epoch = again.journal.epoch
    assert outward.extents() == (
        StreamExtent(epoch, "alarm", 1, 2),
        StreamExtent(epoch, "result", 1, 7),
        StreamExtent(epoch, "telemetry", 1, 6),
        StreamExtent(epoch, "health", 1, 3),
    )
    assert outward.probes(0, 10) == (Probe(epoch, 1, "boot-1", 1000), Probe(epoch, 3, "boot-1", 3000))
    assert outward.probes(0, 1) == (Probe(epoch, 3, "boot-1", 3000),)
    assert outward.probes(2, 10) == (Probe(epoch, 3, "boot-1", 3000),)
    assert outward.probes(3, 10) == ()
    outward.close()
    await again.journal.close()


async def test_after_a_fork_nothing_crosses_the_border_of_the_epochs(tmp_path: Path) -> None:
    first = await gateway(tmp_path, "result", "alarm", "telemetry")
    await first.unit(3, 4, alarms=2)
    await first.journal.close()
    second = await gateway(tmp_path, "result", "alarm", "telemetry")
    await second.unit(3, 4, alarms=2)
    old, new = second.journal.epoch, await second.journal.fork(6)
    assert new != old
    await second.journal.close()
    third = await gateway(tmp_path, "result", "alarm", "telemetry")
    assert third.journal.epoch == new
    assert [third.journal.epoch_of_result(seq) for seq in (4, 5, 9)] == [old, new, new]
    await third.unit(3, 4, alarms=2)
    outward = OutwardStore(tmp_path)
    assert [(e.epoch, e.base, e.next) for e in outward.extents() if e.stream == "result"] == [(old, 1, 5), (new, 5, 13)]
    assert [(e.epoch, e.base, e.next) for e in outward.extents() if e.stream == "alarm"] == [(old, 1, 3), (new, 3, 7)]
    for stream, last in (("result", 4), ("alarm", 2), ("telemetry", 3)):
        assert (read(outward, stream, 1).last, read(outward, stream, 1).epoch) == (last, old)  # type: ignore[arg-type]
        after = read(outward, stream, last + 1)  # type: ignore[arg-type]
        assert (after.epoch, after.base, after.last) == (new, last + 1, 3 * last)
    outward.close()
    await third.journal.close()


async def test_a_fork_before_every_known_start_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    only = await gateway(tmp_path, "result")
    await only.unit(3, 4)
    await only.journal.close()
    connection = apsw.Connection(str(tmp_path / "store.db"))
    connection.execute("DELETE FROM start; UPDATE epoch SET first_result = 3")
    connection.close()
    again = await gateway(tmp_path, "result")
    with pytest.raises(StoreError, match="no start"):
        await again.journal.fork(1)
    assert again.rows("SELECT count(*) FROM epoch") == [(1,)]
    await again.unit(1, 1)
    await again.journal.close()


async def test_a_file_that_was_put_in_its_place_is_noticed(home: Gateway) -> None:
    await home.unit()
    await home.journal.close()
    outward = OutwardStore(home.folder)
    read(outward, "result", 1)
    path = home.folder / "store.db"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="another file"):
        outward.piece("result", 1, 10)
    path.unlink()
    with pytest.raises(StoreError, match="another file"):
        outward.extents()
    outward.close()


def test_where_no_store_is_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="opening"):
        OutwardStore(tmp_path)
