"""A damaged store never stops the daemon: what can be read is salvaged, a new epoch begins, the loss is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import apsw
import pytest

from edged.errors import StoreCorrupt, StoreError
from tests.fault.store.conftest import fill_up
from tests.unit.store.plant import commit, crash_image, crashed, fill, flip, opened, read_all_results
from tests.unit.store.samples import unit


async def closed(folder: Path, units: int = 40, per_unit: int = 25) -> Path:
    """A store that was closed properly."""
    store = await opened(folder, free_floor_bytes=0, budget_bytes=20_000_000)
    await fill(store, units, per_unit, noise=100)
    await store.journal.save_snapshot(25, b"folded")
    await store.journal.close()
    return folder / "store.db"


async def test_a_crash_alone_is_no_damage_and_keeps_the_epoch(tmp_path: Path) -> None:
    image = await crashed(tmp_path)
    store = await opened(image)
    assert store.recovered.salvage is None
    assert store.recovered.past_epochs == ()
    assert store.recovered.next_result == 1001
    assert await read_all_results(store.journal) == list(range(1, 1001))
    await store.journal.close()


@pytest.mark.parametrize("page", [0, 1, 2, 16, 25, 50, 75, 100, 140])
async def test_every_result_outside_a_broken_page_survives(tmp_path: Path, page: int) -> None:
    path = await closed(tmp_path)
    flip(path, page * 1024 + 8, 900)
    store = await opened(tmp_path)
    report = store.recovered.salvage
    assert report is not None
    assert report.rows >= 30
    assert report.complete
    assert report.set_aside is not None
    assert report.set_aside.exists()
    seqs = await read_all_results(store.journal)
    missing = {seq for stream, first, last in report.holes if stream == "result" for seq in range(first, last + 1)}
    assert missing.isdisjoint(seqs)
    assert missing | set(seqs) >= set(range(min(seqs), max(seqs) + 1))
    assert store.recovered.next_result == max(seqs) + 1
    assert store.journal.epoch_of_result(max(seqs)) != store.journal.epoch
    await commit(store.journal, unit(store.recovered.next_event, 5, store.recovered.next_result, 5))
    await store.journal.close()
    again = await opened(tmp_path)
    assert again.recovered.salvage is None
    assert again.recovered.epoch == store.recovered.epoch
    await again.journal.close()


async def test_a_flipped_bit_inside_an_answer_is_noticed_and_never_read_as_an_answer(tmp_path: Path) -> None:
    path = await closed(tmp_path)
    content = path.read_bytes()
    with apsw.Connection(str(path)) as connection:
        (blob,) = connection.execute("SELECT results FROM journal WHERE batch = 20").fetchone() or (b"",)
    connection.close()
    assert isinstance(blob, bytes)
    at = content.find(blob[100:140])
    assert at > 0
    flip(path, at + 20)
    store = await opened(tmp_path, check_limit_s=0.005)
    assert store.recovered.salvage is None, "structure is sound, and there was no time to look at old rows"
    with pytest.raises(StoreCorrupt):
        await read_all_results(store.journal)
    await store.journal.close()
    again = await opened(tmp_path)
    assert again.recovered.salvage is not None
    assert again.recovered.salvage.holes == (("event", 476, 500), ("result", 476, 500))
    assert len(await read_all_results(again.journal, 501)) == 500
    await again.journal.close()


@pytest.mark.parametrize("keep", [0.9, 0.6, 0.3])
async def test_a_truncated_file_gives_back_what_it_still_holds(tmp_path: Path, keep: float) -> None:
    path = await closed(tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(size * keep))
    store = await opened(tmp_path)
    report = store.recovered.salvage
    assert report is not None
    assert report.rows >= 40 * keep - 5
    assert store.recovered.past_epochs != ()
    await fill(store, 2)
    await store.journal.close()


@pytest.mark.parametrize("content", [b"not a database at all " * 500, bytes(4096)], ids=["text", "zeros"])
async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.db").write_bytes(content)
    store = await opened(tmp_path)
    report = store.recovered.salvage
    assert report is not None
    assert report.rows == 0
    assert report.set_aside is not None
    assert report.set_aside.read_bytes() == content
    assert store.recovered.next_event == 1
    await store.journal.close()


async def test_a_wal_that_was_deleted_after_a_crash_is_noticed(tmp_path: Path) -> None:
    image = await crashed(tmp_path)
    (image / "store.db-wal").unlink()
    store = await opened(image)
    report = store.recovered.salvage
    assert report is not None
    assert report.cause == "the WAL is gone although the store was not closed"
    assert len(store.recovered.past_epochs) == 1
    await fill(store, 1)
    await store.journal.close()


async def test_a_broken_spot_inside_the_wal_starts_a_new_epoch(tmp_path: Path) -> None:
    image = await crashed(tmp_path)
    wal = image / "store.db-wal"
    flip(wal, wal.stat().st_size // 2)
    store = await opened(image)
    report = store.recovered.salvage
    assert report is not None
    assert report.cause == "the WAL is damaged before its end"
    assert 0 < report.results < 1000
    assert store.recovered.next_result == report.results + 1
    assert store.recovered.epoch not in {past.epoch for past in store.recovered.past_epochs}
    await store.journal.close()


async def test_a_wal_with_a_broken_header_starts_a_new_epoch(tmp_path: Path) -> None:
    image = await crashed(tmp_path)
    flip(image / "store.db-wal", 17)
    store = await opened(image)
    assert store.recovered.salvage is not None
    assert "no valid header" in store.recovered.salvage.cause
    await store.journal.close()


async def test_a_torn_last_transaction_is_the_normal_end_of_a_power_cut(tmp_path: Path) -> None:
    image = await crashed(tmp_path)
    wal = image / "store.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - 700)
    store = await opened(image)
    assert store.recovered.salvage is None
    assert store.recovered.past_epochs == ()
    assert store.recovered.snapshot is None, "the torn transaction was the snapshot"
    await store.journal.close()


async def test_events_in_the_snapshot_whose_rows_are_lost_keep_their_numbers_and_get_a_tombstone(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path / "alive")
    await fill(store, 4)
    await store.journal.save_snapshot(100, b"folded")
    await store.journal.close()
    with apsw.Connection(str(tmp_path / "alive" / "store.db")) as connection:
        connection.execute("DELETE FROM journal WHERE batch > 2; UPDATE info SET value = 1 WHERE key = 'open'")
    connection.close()
    again = await opened(tmp_path / "alive")
    assert again.recovered.salvage is not None
    assert again.recovered.next_event == 101
    assert again.recovered.next_result == 51
    await again.journal.close()
    with apsw.Connection(str(tmp_path / "alive" / "store.db")) as connection:
        tombstones = list(connection.execute("SELECT stream, first, last, reason FROM tombstone"))
    connection.close()
    assert tombstones == [("event", 51, 100, "damage")]


async def test_only_the_newest_damaged_file_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        path = await closed(tmp_path, 5)
        flip(path, 0, 100)
    store = await opened(tmp_path)
    await store.journal.close()
    assert len(list(tmp_path.glob("*-damaged.db"))) == 1


async def test_a_damaged_file_is_not_kept_where_the_store_needs_the_room(tmp_path: Path) -> None:
    path = await closed(tmp_path, 5)
    flip(path, 0, 100)
    store = await opened(tmp_path, budget_bytes=1 << 60)
    assert store.recovered.salvage is not None
    assert store.recovered.salvage.set_aside is None
    assert list(tmp_path.glob("*-damaged.db*")) == []
    await store.journal.close()


async def test_salvage_ends_at_its_time_limit_and_says_so(tmp_path: Path) -> None:
    path = await closed(tmp_path, units=600, per_unit=1)
    flip(path, 40 * 1024, 900)
    store = await opened(tmp_path, salvage_limit_s=0.8)
    report = store.recovered.salvage
    assert report is not None
    assert not report.complete
    assert 0 < report.rows < 595
    assert store.recovered.next_result == 601, "the newest rows come first"
    await store.journal.close()


async def test_a_check_that_takes_too_long_is_cut_short_and_says_so(tmp_path: Path) -> None:
    await closed(tmp_path)
    store = await opened(tmp_path, check_limit_s=0.001)
    assert not store.recovered.check_complete
    assert store.recovered.next_result == 1001
    await store.journal.close()


async def test_a_store_of_a_newer_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = await closed(tmp_path, 1)
    with apsw.Connection(str(path)) as connection:
        connection.execute("PRAGMA user_version = 9; UPDATE info SET value = 9 WHERE key = 'compatible_from'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"schema is version 9, this edged understands up to 2.*install the edged"):
        await opened(tmp_path)
    assert path.read_bytes() == before


async def test_a_newer_store_that_says_it_is_compatible_is_used(tmp_path: Path) -> None:
    path = await closed(tmp_path, 1)
    with apsw.Connection(str(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    store = await opened(tmp_path)
    assert store.recovered.next_event == 26
    await store.journal.close()


async def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with apsw.Connection(str(tmp_path / "store.db")) as connection:
        connection.execute("CREATE TABLE precious(x)")
    connection.close()
    with pytest.raises(StoreError, match="database of another program"):
        await opened(tmp_path)


async def test_a_copy_of_a_running_store_without_its_wal_is_noticed(tmp_path: Path) -> None:
    store = await opened(tmp_path / "alive")
    await fill(store, 3)
    image = crash_image(tmp_path / "alive", tmp_path / "copy")
    (image / "store.db-wal").unlink()
    await store.journal.close()
    copied = await opened(image)
    assert copied.recovered.salvage is not None
    assert copied.recovered.epoch != store.recovered.epoch
    await copied.journal.close()
    shutil.rmtree(image)


async def test_a_salvage_that_was_cut_short_is_done_again_from_the_damaged_file(tmp_path: Path) -> None:
    path = await closed(tmp_path)
    flip(path, 0, 100)
    (tmp_path / "store-salvaging.db").write_bytes(b"half made")
    store = await opened(tmp_path)
    assert store.recovered.salvage is not None
    assert store.recovered.salvage.rows == 40
    assert not (tmp_path / "store-salvaging.db").exists()
    await store.journal.close()


async def test_a_swap_that_was_cut_short_is_completed_without_the_old_wal(tmp_path: Path) -> None:
    path = await closed(tmp_path)
    image = await crashed(tmp_path / "other")
    path.rename(tmp_path / "store-salvaging.db")
    (image / "store.db-wal").rename(tmp_path / "store.db-wal")
    store = await opened(tmp_path)
    assert store.recovered.salvage is None
    assert store.recovered.next_result == 1001
    assert await read_all_results(store.journal) == list(range(1, 1001))
    await store.journal.close()


async def test_without_room_for_a_salvage_the_damaged_store_stays_until_there_is(small_disk: Path) -> None:
    path = await closed(small_disk, 60)
    flip(path, 2 * 1024 + 8, 900)  # the root of the journal's tree
    before = path.read_bytes()
    ballast = fill_up(small_disk)
    with pytest.raises(StoreError):
        await opened(small_disk, free_floor_bytes=0)
    assert path.read_bytes() == before
    ballast.unlink()
    store = await opened(small_disk, free_floor_bytes=0)
    assert store.recovered.salvage is not None
    assert store.recovered.salvage.rows >= 55
    await store.journal.close()


async def test_with_little_room_a_salvage_takes_the_newest_and_says_that_it_is_not_complete(small_disk: Path) -> None:
    path = await closed(small_disk, 1500, 1)
    flip(path, 2 * 1024 + 8, 900)  # the root of the journal's tree
    room = fill_up(small_disk)
    os.truncate(room, room.stat().st_size - 1_800_000)
    store = await opened(small_disk, free_floor_bytes=0, budget_bytes=20_000_000)
    report = store.recovered.salvage
    assert report is not None
    assert not report.complete
    assert 200 <= report.rows < 1400
    assert store.recovered.next_result == 1501
    assert report.set_aside is None
    await store.journal.close()


async def test_a_store_whose_tables_are_gone_is_damaged(tmp_path: Path) -> None:
    path = await closed(tmp_path, 3)
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE snapshot")
    connection.close()
    store = await opened(tmp_path)
    assert store.recovered.salvage is not None
    assert store.recovered.salvage.rows == 3
    await store.journal.close()


async def test_even_a_check_without_any_time_looks_at_the_newest_row(tmp_path: Path) -> None:
    path = await closed(tmp_path, units=300, per_unit=1)
    store = await opened(tmp_path, check_limit_s=0.0)
    assert not store.recovered.check_complete
    assert store.recovered.salvage is None
    await store.journal.close()
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE journal SET events = x'0102030405' WHERE batch = 300")
    connection.close()
    again = await opened(tmp_path, check_limit_s=0.0)
    assert again.recovered.salvage is not None
    assert again.recovered.next_event == 300
    await again.journal.close()


async def test_a_store_starts_on_a_full_disk_and_waits_there(small_disk: Path) -> None:
    await closed(small_disk, 20)
    ballast = fill_up(small_disk)
    os.truncate(ballast, ballast.stat().st_size - 33_000)  # room for the shared memory of the WAL and for nothing else
    store = await opened(small_disk, free_floor_bytes=0)
    assert any("could not mark the store as open" in warning for warning in store.recovered.warnings)
    assert store.recovered.next_event == 501
    ballast.unlink()
    await fill(store, 1)
    await store.journal.close()
