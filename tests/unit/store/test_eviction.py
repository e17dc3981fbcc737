"""A full budget: the oldest rows go, what was not delivered leaves a tombstone, and a commit's work stays the same."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from edged.store import OpenedStore
from edged.store.budget import Limits
from edged.store.cursors import Cursors
from edged.store.eviction import EVICT_ROWS_MAX, Retention
from edged.store.segment import Packer
from tests.unit.store.plant import commit, fill, opened, read_all_results
from tests.unit.store.samples import SteppingClock, unit

BUDGET = 1_000_000


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("store.db*") if not file.name.endswith("-shm"))


def tombstones(folder: Path) -> list[tuple[object, ...]]:
    connection = apsw.Connection(str(folder / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    rows = list(connection.execute("SELECT stream, first, last, n, reason FROM tombstone ORDER BY id"))
    connection.close()
    return rows


async def overfill(store: OpenedStore, units: int = 300) -> tuple[int, int, int]:
    """(events, results, unsent results) that were evicted while far more than the budget came in."""
    committed = await fill(store, units, 10, noise=200)
    return (
        sum(c.evicted_events for c in committed),
        sum(c.evicted_results for c in committed),
        sum(c.evicted_unsent_results for c in committed),
    )


async def test_the_store_stays_within_its_budget_and_keeps_the_newest(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=BUDGET)
    events, results, unsent = await overfill(store)
    assert size(tmp_path) <= BUDGET
    kept = await read_all_results(store.journal)
    assert kept == list(range(results + 1, 3001))
    assert len(kept) > 500, "the budget is used, not wasted"
    assert events == results == unsent
    await store.journal.close()
    assert tombstones(tmp_path) == [
        ("result", 1, results, results, "budget"),
        ("event", 1, events, events, "budget"),
    ]
    again = await opened(tmp_path, budget_bytes=BUDGET)
    assert again.recovered.next_result == 3001
    await again.journal.close()


async def test_delivered_rows_leave_without_a_tombstone(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=BUDGET)
    store.journal.delivered_upto = store.journal.answered_upto = 3000
    store.journal.noticed_upto = 1000
    _, results, unsent = await overfill(store)
    assert results > 0
    assert unsent == 0
    await store.journal.close()
    assert tombstones(tmp_path) == []


async def test_only_the_undelivered_part_gets_a_tombstone(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=BUDGET)
    store.journal.delivered_upto = 95
    store.journal.answered_upto = 3000
    _, results, unsent = await overfill(store)
    assert unsent == results - 95
    statistics = await store.journal.statistics()
    assert statistics.evicted_unsent_results == unsent
    await store.journal.close()
    assert tombstones(tmp_path) == [("result", 96, results, results - 95, "budget")]


async def test_undelivered_notices_are_counted_by_batch(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=BUDGET)
    store.journal.delivered_upto = store.journal.answered_upto = 10_000
    store.journal.noticed_upto = 4
    for i in range(300):
        await commit(store.journal, unit(1 + 10 * i, 10, 1 + 10 * i, 10, n_notices=2 if i < 10 else 0, noise=200))
    await store.journal.close()
    rows = tombstones(tmp_path)
    assert sum(int(str(n)) for _, _, _, n, _ in rows) == 12
    assert {stream for stream, *_ in rows} == {"notice"}
    assert rows[0][1] == 5


async def test_other_files_share_the_budget_and_the_file_shrinks_when_they_grow(tmp_path: Path) -> None:
    other = 0
    store = await opened(tmp_path, budget_bytes=BUDGET, other_bytes=lambda: other)
    await overfill(store)
    before = (tmp_path / "store.db").stat().st_size
    other = BUDGET // 2
    event, result = 3001, 3001
    for _ in range(100):
        await commit(store.journal, unit(event, 10, result, 10, noise=200))
        event, result = event + 10, result + 10
    await store.journal.close()
    assert (tmp_path / "store.db").stat().st_size <= before - BUDGET // 3


async def test_below_the_free_floor_the_file_stops_growing_and_goes_on(tmp_path: Path) -> None:
    free = 10**12
    store = await opened(tmp_path, free_bytes=lambda _folder: free)
    await fill(store, 50, 10, noise=200)
    free = 0
    pages, evicted = [], 0
    for i in range(50, 100):
        committed = await commit(store.journal, unit(1 + 10 * i, 10, 1 + 10 * i, 10, noise=200))
        pages.append((await store.journal.statistics()).file_bytes)
        evicted += committed.evicted_results
    assert max(pages) - min(pages) <= 8 * 1024
    assert evicted >= 400, "a row for each that came"
    free = 10**12
    assert (await commit(store.journal, unit(1001, 10, 1001, 10))).evicted_results == 0
    await store.journal.close()


async def test_the_newest_row_is_never_evicted(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=1)
    for i in range(5):
        await commit(store.journal, unit(1 + i, 1, 1 + i, 1, noise=5000))
    assert await read_all_results(store.journal) == [4, 5]
    await store.journal.close()


async def test_a_lowered_budget_is_reached_in_bounded_steps(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 1500, 1)
    await store.journal.close()
    again = await opened(tmp_path, budget_bytes=1)
    evicted = [(await commit(again.journal, unit(1501 + i, 1, 1501 + i, 1))).evicted_results for i in range(20)]
    assert all(64 <= n <= EVICT_ROWS_MAX for n in evicted[:5])
    assert sum(evicted) == 1500 + 20 - 2
    await again.journal.close()


@pytest.mark.parametrize("rows", [100, 3000])
async def test_evicting_takes_the_same_number_of_steps_however_many_rows_there_are(tmp_path: Path, rows: int) -> None:
    store = await opened(tmp_path)
    await fill(store, rows, 1)
    await store.journal.close()
    connection = apsw.Connection(str(tmp_path / "store.db"))
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    connection.set_progress_handler(count, 1)
    retention = Retention(Limits(BUDGET, 0, 1024), 60.0, SteppingClock(), Cursors(), Packer())
    retention.load(connection)
    steps = 0
    evicted = retention.make_room(connection, 5000)
    connection.close()
    assert evicted.rows > 5
    assert steps / evicted.rows < 250


def test_limits_follow_the_page_size() -> None:
    assert Limits(10**9, 0, 4096).wal_bytes == 2 * 4120 * 10_000
