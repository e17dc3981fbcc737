"""What was committed comes back as it was; what does not fit is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edged.errors import BugError
from edged.ports import Committed, StoredEvents, StoredNotices, StoredResults
from edged.store.lookup import PORTION_BYTES
from tests.unit.store.plant import commit, fill, opened
from tests.unit.store.samples import events, notices, results, unit


async def test_a_new_store_starts_every_number_at_one(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    recovered = store.recovered
    assert (recovered.next_event, recovered.next_result, recovered.next_batch) == (1, 1, 1)
    assert recovered.new_store
    assert recovered.meta is None
    assert recovered.snapshot is None
    assert len(bytes.fromhex(recovered.epoch)) == 6
    await store.journal.close()


async def test_a_unit_comes_back_as_it_was_committed(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    committed = await commit(store.journal, unit(1, 40, 1, 30, n_notices=3))
    assert committed.batch == 1
    assert committed.commit_us > 0
    assert await store.journal.read_events(1, 1) == [StoredEvents(1, 1_790_000_000_000, 42, "boot-1", events(1, 40))]
    assert await store.journal.read_results(1, 1) == [StoredResults(1, results(1, 30))]
    assert await store.journal.read_notices(0, 1) == [StoredNotices(1, notices(3))]
    await store.journal.close()


async def test_a_restart_continues_the_numbers_the_meta_and_the_epoch(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 3)
    await commit(store.journal, unit(meta=b'{"received":75}'))
    await store.journal.save_snapshot(70, b"state" * 1000)
    await store.journal.close()
    again = await opened(tmp_path)
    recovered = again.recovered
    assert (recovered.next_event, recovered.next_result, recovered.next_batch) == (76, 76, 5)
    assert recovered.meta == b'{"received":75}'
    assert recovered.snapshot == (70, b"state" * 1000)
    assert recovered.epoch == store.recovered.epoch
    assert not recovered.new_store
    await fill(again, 2)
    assert [group.first_seq for group in await again.journal.read_results(51, 100)] == [51, 76, 101]
    await again.journal.close()


async def test_saved_meta_replaces_the_newest_rows_meta(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 2)
    await store.journal.save_meta(b'{"sent":50}')
    await store.journal.close()
    again = await opened(tmp_path)
    assert again.recovered.meta == b'{"sent":50}'
    assert again.recovered.next_batch == 3
    await again.journal.close()


@pytest.mark.parametrize("first", [1, 2, 25, 26, 249, 250])
async def test_reading_starts_at_the_number_asked_for(tmp_path: Path, first: int) -> None:
    store = await opened(tmp_path)
    await fill(store, 10)
    (group, *_) = await store.journal.read_results(first, 1)
    assert group.first_seq == first
    assert group.columns.event_seq[0] == first
    (stored, *_) = await store.journal.read_events(first, 1)
    assert stored.first_seq == first
    assert stored.columns.ts[0] == 1_790_000_000_000 + first
    await store.journal.close()


async def test_reading_beyond_the_newest_number_gives_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert await store.journal.read_results(1, 10) == []
    await fill(store, 2)
    assert await store.journal.read_results(51, 10) == []
    assert await store.journal.read_events(51, 10) == []
    assert await store.journal.read_notices(2, 10) == []
    await store.journal.close()


async def test_reading_stops_at_the_limit_after_a_whole_group(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 10, n_notices=2)
    assert [group.first_seq for group in await store.journal.read_results(1, 26)] == [1, 26]
    assert [group.batch for group in await store.journal.read_notices(4, 3)] == [5, 6]
    await store.journal.close()


async def test_results_are_found_between_many_units_that_have_none(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    result = 1
    for i in range(60):
        has_result = i % 20 == 0
        await commit(store.journal, unit(1 + 2 * i, 2, result, int(has_result)))
        result += has_result
    groups = await store.journal.read_results(1, 100)
    assert [group.first_seq for group in groups] == [1, 2, 3]
    assert len(await store.journal.read_events(1, 1000)) == 60
    await store.journal.close()


async def test_a_hole_in_the_numbers_is_our_bug_and_is_not_stored(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 1)
    with pytest.raises(BugError, match="event seq must be dense: expected 26, got 27"):
        store.journal.submit(unit(27, 5, 26, 5), print)
    with pytest.raises(BugError, match="result seq must be dense: expected 26, got 25"):
        store.journal.submit(unit(26, 5, 25, 5), print)
    assert (await commit(store.journal, unit(26, 5, 26, 5))).batch == 2
    await store.journal.close()


async def test_columns_of_different_lengths_are_our_bug(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    ragged = unit(1, 3)
    assert ragged.events is not None
    ragged.events.ts.pop()
    with pytest.raises(BugError, match="different lengths"):
        store.journal.submit(ragged, print)
    await store.journal.close()


async def test_units_in_flight_are_committed_in_order_and_bounded(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    batches: list[int] = []
    all_done = asyncio.Event()

    def done(committed: Committed) -> None:
        batches.append(committed.batch)
        if len(batches) == 8:
            all_done.set()

    for i in range(8):
        store.journal.submit(unit(1 + i, 1), done)
    with pytest.raises(BugError, match="8 units in flight"):
        store.journal.submit(unit(9, 1), done)
    await all_done.wait()
    assert batches == list(range(1, 9))
    await store.journal.close()


async def test_closing_finishes_what_is_in_flight(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    committed: list[Committed] = []
    for i in range(8):
        store.journal.submit(unit(1 + i, 1), committed.append)
    await store.journal.close()
    again = await opened(tmp_path)
    assert again.recovered.next_event == 9
    await again.journal.close()


async def test_a_cancelled_waiter_does_not_split_its_transaction(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 1)
    waiting = asyncio.ensure_future(store.journal.save_snapshot(25, b"s" * 100_000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await fill_after(store.journal)
    await store.journal.close()
    again = await opened(tmp_path)
    assert again.recovered.snapshot == (25, b"s" * 100_000)
    assert again.recovered.next_event == 51
    await again.journal.close()


async def fill_after(journal: object) -> None:
    from edged.store.journal import SqliteJournal

    assert isinstance(journal, SqliteJournal)
    await commit(journal, unit(26, 25, 26, 25))


async def test_large_payloads_are_read_back_in_small_portions(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for first in (1, 2, 3):
        await commit(store.journal, unit(first, 1, first, 1, noise=PORTION_BYTES // 4))
    read = [group.first_seq for group in await store.journal.read_events(1, 1000)]
    assert read == [1, 2], "two halves make a portion; the third waits for the next one"
    assert [group.first_seq for group in await store.journal.read_events(3, 1000)] == [3]
    await store.journal.close()
