"""Damage to what stands beside the journal, and to rows with records: what is readable is kept, the loss is told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from edged.store import inspection
from edged.store.cursors import table_stream
from edged.store.outward import OutwardStore
from edged.store.values import Recovered
from tests.fault.store.outside import PER_UNIT, Making, aged, current, only
from tests.unit.store.plant import crash_image, flip

SIDES = ("tombstone", "aggregate", "start", "record", "epoch", "protected", "info", "snapshot", "tombstone_last")
STEP = 200  # pages of the journal between two that are tried

Told = dict[tuple[str, int], tuple[str, str]]
"""Stream and number -> epoch, and why there is no row or ""."""


def told(folder: Path) -> Told:
    """What the uplink would say of every number, from the first of the oldest epoch on."""
    found: Told = {}
    with closing(OutwardStore(folder)) as outward:
        for extent in outward.extents():
            seq = extent.base
            while seq < extent.next:
                piece = outward.piece(extent.stream, seq, 500)
                assert piece is not None
                assert (piece.first, piece.epoch) == (seq, extent.epoch)
                for number in range(piece.first, piece.last + 1):
                    assert (extent.stream, number) not in found
                    found[extent.stream, number] = (piece.epoch, piece.lost.reason if piece.lost else "")
                seq = piece.last + 1
                assert seq <= extent.next
    return found


def pages_of(path: Path, table: str) -> list[int]:
    """Which pages of the file, from 0, belong to a table or an index."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return [row[0] - 1 for row in connection.execute("SELECT pageno FROM dbstat WHERE name = ?", (table,))]


@pytest.fixture
async def store(tmp_path: Path) -> Path:
    """A store at rest: three starts, losses, summaries, stripped and protected rows, little of it home."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    await aged(folder)
    for _ in range(2):
        again = await current(folder)
        await Making(again).make(20)
        await again.journal.close()
    return folder


async def damaged_and_used(folder: Path, hurt: Callable[[Path], None]) -> tuple[Told, Recovered, Told]:
    """(what was told before, what the next start found, what is told after it and some more units)."""
    before = await asyncio.to_thread(told, folder)
    await asyncio.to_thread(hurt, folder / "store.db")
    store = await current(folder)
    making = Making(store)
    made = [("result", making.result + n) for n in range(3 * PER_UNIT)]
    made += [(stream, seq) for stream, seq in making.next.items()]
    await making.make(3, alarm_every=6)
    made = [key for key in made if key[0] == "result" or key[1] < making.next[key[0]]]
    await store.journal.close()
    after = await asyncio.to_thread(told, folder)
    for key in made:
        assert after[key] == (store.recovered.epoch, ""), "what is new is never taken for something old that is lost"
    return before, store.recovered, after


def assert_kept(before: Told, after: Told, epoch: str) -> None:
    """Every number is still accounted for under its epoch; what has gone is said to be lost by damage."""
    for key, (old_epoch, reason) in before.items():
        assert after[key][0] == old_epoch != epoch, key
        assert after[key][1] in ("", reason, "damage"), key


async def assert_in_order(folder: Path) -> None:
    verdict = await asyncio.to_thread(inspection.verify, folder)
    assert (verdict.problems, verdict.holes) == ([], [])
    assert only(folder, "SELECT count(*) FROM protected WHERE last_batch >= 1 << 62") <= 1
    assert only(folder, "SELECT count(*) FROM aggregate WHERE tombstone NOT IN (SELECT id FROM tombstone)") == 0


@pytest.mark.parametrize("table", SIDES)
async def test_a_damaged_table_beside_the_journal_costs_no_row(tmp_path: Path, store: Path, table: str) -> None:
    path = store / "store.db"
    pages = [page for page in pages_of(path, table) if page]
    assert pages
    for number, page in enumerate(pages[:2]):
        folder = tmp_path / f"copy-{number}"
        shutil.copytree(store, folder)
        before, recovered, after = await damaged_and_used(folder, lambda file, at=page: flip(file, at * 1024 + 8, 900))  # type: ignore[misc]
        assert recovered.salvage is not None
        assert recovered.salvage.complete
        assert_kept(before, after, recovered.epoch)
        assert [key for key, (_, why) in before.items() if not why and after[key][1]] == [], "all rows are there"
        await assert_in_order(folder)


@pytest.mark.slow
async def test_whichever_page_breaks_every_number_is_there_or_said_to_be_lost(tmp_path: Path, store: Path) -> None:
    pages = pages_of(store / "store.db", "journal")
    for page in pages[::STEP]:
        folder = tmp_path / "copy"
        shutil.copytree(store, folder)
        before, recovered, after = await damaged_and_used(folder, lambda file, at=page: flip(file, at * 1024 + 8, 900))  # type: ignore[misc]
        assert recovered.salvage is not None
        assert_kept(before, after, recovered.epoch)
        gone = {key for key, (_, why) in before.items() if not why and after[key][1]}
        assert len(gone) <= 12 * PER_UNIT
        gone = {(table_stream(stream), seq) for stream, seq in gone}
        holes = {(s, n) for s, first, last in recovered.salvage.holes for n in range(first, last + 1)}
        assert gone <= holes, "the report names every one of them"
        await assert_in_order(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("keep", [0.9, 0.5])
async def test_a_truncated_store_tells_of_what_is_left(store: Path, keep: float) -> None:
    def cut(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(int(path.stat().st_size * keep))

    before, recovered, after = await damaged_and_used(store, cut)
    assert recovered.salvage is not None
    for key, (epoch, why) in after.items():
        if key in before and epoch == before[key][0]:
            assert why in ("", before[key][1], "damage", "missing"), key
    await assert_in_order(store)


async def test_a_lost_wal_ends_the_epoch_and_no_number_of_it_is_used_again(tmp_path: Path) -> None:
    store = await current(tmp_path / "alive")
    making = Making(store)
    await making.make(30, alarm_every=6)
    image = crash_image(tmp_path / "alive", tmp_path / "image")
    await store.journal.close()
    (image / "store.db-wal").unlink()
    again = await current(image)
    assert again.recovered.salvage is not None
    assert again.recovered.epoch != store.recovered.epoch
    using = Making(again)
    await using.make(10, alarm_every=6)
    await again.journal.close()
    after = await asyncio.to_thread(told, image)
    old = {key for key, (epoch, _) in after.items() if epoch == store.recovered.epoch}
    new = {key for key, (epoch, _) in after.items() if epoch == again.recovered.epoch}
    assert old.isdisjoint(new)
    assert {seq for stream, seq in new if stream == "alarm"} == {using.next["alarm"] - 1}
    await assert_in_order(image)


async def test_records_whose_rows_are_gone_are_told_as_damage_and_their_numbers_are_not_used_again(store: Path) -> None:
    before = await asyncio.to_thread(told, store)
    newest = max(seq for stream, seq in before if stream == "health")

    def hurt(path: Path) -> None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("DELETE FROM journal WHERE notice_n > 0 AND batch > 400")
        flip(path, 8, 900)

    before, recovered, after = await damaged_and_used(store, hurt)
    assert recovered.salvage is not None
    assert recovered.next_health == newest + 1
    assert_kept(before, after, recovered.epoch)


async def test_the_surroundings_of_alarms_are_found_again(tmp_path: Path) -> None:
    first = await current(tmp_path)
    await Making(first).make(64, alarm_every=20)
    await first.journal.close()
    query = "SELECT group_concat(first_batch || '-' || min(last_batch, 1000000)) FROM protected"
    before = only(tmp_path, query)
    assert len(before.split(",")) == 3
    flip(tmp_path / "store.db", 8, 900)
    again = await current(tmp_path)
    await again.journal.close()
    assert again.recovered.salvage is not None
    assert only(tmp_path, query) == before


async def test_tables_that_somebody_dropped_are_made_anew_from_the_rows(store: Path) -> None:
    def drop(path: Path) -> None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("DROP TABLE record; DROP TABLE protected; DROP TABLE aggregate")

    before = await asyncio.to_thread(told, store)
    await asyncio.to_thread(drop, store / "store.db")
    again = await current(store)
    assert again.recovered.salvage is None
    await again.journal.close()
    assert await asyncio.to_thread(told, store) == before


async def test_rows_of_which_nobody_knows_the_epoch_go_home_under_a_new_one(store: Path) -> None:
    def forget(path: Path) -> None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("DELETE FROM epoch; DELETE FROM start; VACUUM")
        flip(path, 8, 900)

    before, recovered, after = await damaged_and_used(store, forget)
    assert recovered.salvage is not None
    rows = {key for key, (_, why) in before.items() if not why and key[0] == "result"}
    assert all(after[key][1] == "" for key in rows)
    assert len({epoch for epoch, _ in after.values()}) == 2
