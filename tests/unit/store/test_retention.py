"""What goes first, what is kept of it, and what nobody needs any more is given back to the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.messages import ResultColumns
from edged.store.outward import OutwardStore
from edged.store.summary import Summary
from edged.sync.piece import Piece
from tests.unit.store.homeward import Gateway, gateway
from tests.unit.store.samples import events, results

pytestmark = pytest.mark.allow_blocking(reason="the uplink is another process; here it reads between two steps")


async def pressed(home: Gateway, units: int = 150, health: int = 0) -> None:
    """Far more than the budget comes in."""
    for _ in range(units):
        await home.unit(10, 10, health=health)


def pieces(home: Gateway, stream: str, upto: int) -> list[Piece]:
    outward = OutwardStore(home.folder)
    found, seq = [], 1
    while seq <= upto:
        piece = outward.piece(stream, seq, 10_000)  # type: ignore[arg-type]  # one of the streams, by name
        assert piece is not None
        found.append(piece)
        seq = piece.last + 1
    outward.close()
    return found


# --- the classes, in their order ---


async def test_what_is_home_goes_before_anything_that_is_not(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", budget_bytes=1_000_000)
    for i in range(60):
        await home.unit(10, 10)
        if i == 40:
            await home.delivered()
            home.journal.set_synced("result", ((1, 100), (301, 400)))
    while (await home.unit(10, 10)).evicted_results == 0:
        pass
    await pressed(home, 17)
    assert home.tombstones("result") == []
    stored = await home.journal.read_results(1, 10_000)
    assert stored[0].first_seq == 101, "the oldest that is home is gone, what is not home stays"
    gone = set(range(301, 401)) - {
        seq for group in stored for seq in range(group.first_seq, group.first_seq + len(group.columns.context))
    }
    assert gone, "what is home in the middle goes, too"
    await home.journal.close()


async def test_raw_events_go_before_results_and_without_a_word_where_they_are_not_to_go_home(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result")
    for _ in range(12):
        await pressed(home, 10)
        await home.delivered()
        if home.rows("SELECT count(*) FROM journal WHERE event_n = 0") != [(0,)]:
            break
    assert home.tombstones("result") == home.tombstones("event") == []
    assert (await home.journal.read_results(1, 1))[0].first_seq == 1
    (first_event,) = home.rows("SELECT min(event_first) FROM journal WHERE event_n > 0")[0]
    assert (await home.journal.read_events(1, 1))[0].first_seq == first_event
    await home.journal.close()
    again = await gateway(tmp_path, "result")
    assert again.store.recovered.salvage is None
    assert again.store.recovered.next_event == home.next["event"]
    await again.journal.close()


async def test_raw_events_that_were_to_go_home_leave_their_numbers_as_summaries(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "telemetry")
    for _ in range(6):
        await pressed(home, 10)
        await home.delivered()
    lost = [piece for piece in pieces(home, "telemetry", home.next["event"] - 1) if piece.lost is not None]
    assert lost
    for piece in lost:
        assert piece.lost is not None
        summary = Summary()
        summary.add_events(events(piece.first, piece.last - piece.first + 1), 0, piece.last - piece.first + 1)
        assert piece.lost.reason == "budget"
        assert list(piece.lost.summary) == summary.rows()
    await home.journal.close()


async def test_results_that_are_given_up_leave_summaries_that_say_what_they_said(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result")
    await pressed(home)
    found = pieces(home, "result", home.next["result"] - 1)
    assert found[0].lost is not None
    assert [piece.first for piece in found[1:]] == [piece.last + 1 for piece in found[:-1]]
    lost = [piece for piece in found if piece.lost is not None]
    assert sum(piece.last - piece.first + 1 for piece in lost) > 500
    for piece in lost:
        assert piece.lost is not None
        n = piece.last - piece.first + 1
        summary = Summary()
        summary.add_results(results(piece.first, n), 0, n)
        assert (piece.lost.interval_s, sum(row.n for row in piece.lost.summary)) == (60, n)
        assert list(piece.lost.summary) == summary.rows()
    assert isinstance(found[-1].rows, ResultColumns)
    await home.journal.close()


async def test_what_is_home_of_a_row_is_in_no_summary(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result")
    home.home(result=13)
    await pressed(home)
    lost = [piece for piece in pieces(home, "result", 200) if piece.first > 13 and piece.lost is not None]
    assert lost[0].first == 14
    assert all(sum(row.n for row in p.lost.summary) == p.last - p.first + 1 for p in lost if p.lost is not None)
    await home.journal.close()


async def test_records_get_tombstones_by_their_own_numbers(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "health", "result")
    home.home(health=3)
    await pressed(home, health=1)
    (first, last, reason) = home.tombstones("health")[0]
    assert (first, reason) == (4, "budget")
    kept = [piece for piece in pieces(home, "health", home.next_record["health"] - 1) if piece.rows is not None]
    assert kept[0].first > int(str(last))
    assert kept[-1].last == home.next_record["health"] - 1
    await home.journal.close()


async def test_the_surroundings_of_an_alarm_stay_when_all_else_goes(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", alarm_surroundings_s=3.0)
    for second in range(200):
        await home.unit(10, 10, alarms=int(second == 50), at_s=second)
    kept = [group.first_seq for group in await home.journal.read_results(1, 10_000)]
    assert kept[:7] == [471, 481, 491, 501, 511, 521, 531], "three seconds before and after"
    assert kept[7] > 1000
    assert home.rows("SELECT first_batch, last_batch FROM protected") == [(48, 54)]
    await home.journal.close()


async def test_another_boot_ends_the_surroundings(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", alarm_surroundings_s=30.0)
    await home.unit(at_s=100, boot="boot-1")
    await home.unit(at_s=1, boot="boot-2")
    await home.unit(alarms=1, at_s=2, boot="boot-2")
    await home.unit(at_s=3, boot="boot-3")
    assert home.rows("SELECT first_batch, last_batch FROM protected") == [(2, 3)]
    await home.journal.close()


async def test_alarms_close_together_have_one_stretch_and_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", alarm_surroundings_s=10.0)
    for second in range(6):
        await home.unit(alarms=second % 2, at_s=second)
    await home.journal.close()
    again = await gateway(tmp_path, "result", alarm_surroundings_s=10.0)
    await again.unit(at_s=14)
    await again.unit(at_s=16)
    await again.unit(alarms=1, at_s=24)
    await again.unit(at_s=60)
    assert again.rows("SELECT first_batch, last_batch FROM protected") == [(1, 9)]
    await again.journal.close()


async def test_surroundings_hold_a_quarter_of_the_budget_at_most_and_the_oldest_go(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", alarm_surroundings_s=2.0)
    for second in range(400):
        await home.unit(10, 10, alarms=int(second % 10 == 0), at_s=second)
    (protected,) = home.rows("SELECT total(bytes) FROM protected")[0]
    assert 50_000 < float(str(protected)) <= 100_000
    assert home.rows("SELECT max(first_batch) > 380, min(first_batch) > 100 FROM protected") == [(1, 1)]
    assert (await home.journal.statistics()).protected_bytes == int(float(str(protected)))
    await home.journal.close()


async def test_when_only_surroundings_are_left_they_go_too(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", alarm_surroundings_s=1000.0)
    for second in range(200):
        await home.unit(10, 10, alarms=1, at_s=second)
    size = sum(f.stat().st_size for f in tmp_path.glob("store.db*") if not f.name.endswith("-shm"))
    assert size <= 400_000
    assert home.tombstones("result") != []
    await home.journal.close()


async def test_summaries_go_last_and_their_tombstones_stay(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result")
    await pressed(home)
    assert (await home.journal.statistics()).summary_rows > 0
    await home.journal.close()
    tight = await gateway(tmp_path, "result", budget_bytes=1)
    for _ in range(40):
        await tight.unit(1, 1)
    statistics = await tight.journal.statistics()
    assert statistics.summary_bytes < 300, "what the newest bite left"
    assert statistics.tombstones > 0
    assert [piece.lost is not None for piece in pieces(tight, "result", 1500)] == [True] * len(
        pieces(tight, "result", 1500)
    )
    await tight.journal.close()


# --- giving back ---


async def test_what_is_home_beyond_what_may_stay_is_given_back_to_the_disk(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", budget_bytes=20_000_000, keep_bytes=200_000)
    await pressed(home, 400)
    await home.delivered()
    before = (tmp_path / "store.db").stat().st_size + (tmp_path / "store.db-wal").stat().st_size
    await home.trimmed()
    assert (await home.journal.statistics()).evicted_results == 0, "nothing is home yet"
    assert (await home.journal.read_results(1, 1))[0].first_seq == 1
    home.all_home()
    await home.trimmed()
    statistics = await home.journal.statistics()
    assert statistics.file_bytes <= 300_000
    assert statistics.oldest is not None
    assert statistics.oldest.result_first > 3000
    assert home.rows("SELECT count(*) FROM tombstone") == [(0,)]
    await home.journal.close()
    assert (tmp_path / "store.db").stat().st_size <= 300_000 < before


async def test_the_file_itself_becomes_smaller_while_the_store_is_open(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", budget_bytes=20_000_000, keep_bytes=100_000)
    await pressed(home, 600)
    await home.delivered()
    home.all_home()
    largest = 0
    for _ in range(40):
        await home.trimmed(20)
        size = (tmp_path / "store.db").stat().st_size
        largest = max(largest, size)
        if size <= 200_000 < largest:
            break
    assert (tmp_path / "store.db").stat().st_size <= 200_000
    await home.journal.close()


async def test_rows_that_are_not_in_the_snapshot_yet_stay(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", budget_bytes=20_000_000, keep_bytes=1000)
    await pressed(home, 50)
    await home.delivered()
    await pressed(home, 50)
    await home.delivered(snapshot=False)
    home.all_home()
    await home.trimmed()
    assert (await home.journal.read_events(1, 1))[0].first_seq == 491, "the last of the snapshot and all behind it"
    await home.journal.close()


async def test_a_row_waits_for_its_records(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", "health", budget_bytes=20_000_000, keep_bytes=1000)
    for i in range(40):
        await home.unit(10, 10, health=int(i in (5, 7)))
    await home.delivered()
    home.home(result=400, health=1)
    await home.trimmed()
    assert home.rows("SELECT batch FROM journal ORDER BY batch LIMIT 2") == [(8,), (40,)]
    home.home(result=400, health=2)
    await home.trimmed()
    assert home.rows("SELECT batch FROM journal") == [(40,)]
    assert home.rows("SELECT count(*) FROM record") == [(0,)]
    await home.journal.close()
    again = await gateway(tmp_path, "health")
    assert again.store.recovered.next_health == 3, "numbers of rows that are gone are not used again"
    await again.journal.close()


async def test_holes_that_nobody_needs_are_said_and_forgotten_when_nothing_stands_before_them(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", budget_bytes=20_000_000, keep_bytes=1000)
    await pressed(home, 40)
    await home.delivered()
    home.journal.set_synced("result", ((101, 200),))
    await home.trimmed()
    assert home.rows("SELECT stream, first, last, reason FROM tombstone ORDER BY stream") == [
        ("event", 101, 200, "freed"),
        ("result", 101, 200, "freed"),
    ]
    assert (await home.journal.statistics()).tombstones == 0, "nothing was lost"
    home.all_home()
    await home.trimmed()
    home.all_home()
    await home.trimmed()
    assert home.rows("SELECT count(*) FROM tombstone") == [(0,)]
    await home.journal.close()


async def test_trimming_with_nothing_to_do_is_no_work(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result")
    await home.unit()
    await home.trimmed(5)
    before = (tmp_path / "store.db-wal").stat().st_size
    for _ in range(100):
        home.journal.trim()
    await home.journal.close()
    home.journal.trim()
    assert before > 0


# --- what is told ---


async def test_statistics_tell_what_waits_and_how_long_the_room_lasts(tmp_path: Path) -> None:
    home = await gateway(tmp_path, "result", "alarm", budget_bytes=20_000_000)
    await pressed(home, 30)
    home.home(result=100)
    statistics = await home.journal.statistics()
    assert statistics.unsent == {"alarm": 0, "result": 200}
    assert statistics.bytes_per_day == 0.0 or statistics.days_of_room is not None
    await home.journal.close()
    alone = await gateway(tmp_path)
    alone.journal.delivered_upto = 250
    assert (await alone.journal.statistics()).unsent == {"result": 50}
    await alone.journal.close()


async def test_records_whose_numbers_do_not_follow_are_our_bug(tmp_path: Path) -> None:
    from edged.errors import BugError

    home = await gateway(tmp_path, "alarm")
    await home.unit(alarms=2)
    home.next_record["alarm"] = 2
    with pytest.raises(BugError, match="alarm seq must be dense: expected 3, got 2"):
        await home.unit(alarms=1)
    await home.journal.close()
