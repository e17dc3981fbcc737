"""The writer's and the reader's thread: order, failure, and nobody left waiting."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import apsw
import pytest

from edged.errors import BugError, StoreCorrupt, StoreError, StoreLocked
from edged.store.checkpointer import Checkpointer
from edged.store.database import DAMAGE_RESULTS, as_own, connect_checkpointer, connect_writer, is_damage
from edged.store.reader import Reader
from edged.store.writer import Job, Writer, classify
from tests.unit.store.plant import Listener, commit, fill, opened
from tests.unit.store.samples import SteppingClock, unit


def writer(path: Path, listener: Listener, wal_pages: int = 1000) -> tuple[Writer, list[str]]:
    damage: list[str] = []
    made = Writer(
        connect_writer(path),
        asyncio.get_running_loop(),
        SteppingClock(),
        beside=Checkpointer(partial(connect_checkpointer, path)),
        wal_pages=wal_pages,
        is_urgent=lambda: False,
        on_trouble=listener.on_trouble,
        on_failure=listener.failures.append,
        on_damage=damage.append,
    )
    made.start()
    return made, damage


async def stopped(made: Writer) -> None:
    await asyncio.to_thread(made.stop, 5.0, lambda _connection: None)


async def test_a_job_that_is_our_bug_ends_the_writer_and_is_reported(tmp_path: Path) -> None:
    listener = Listener()
    made, damage = writer(tmp_path / "a.db", listener)
    done: list[int] = []

    def apply(connection: apsw.Connection, _encoded: object) -> None:
        connection.execute("CREATE TABLE half(x)")
        raise BugError("impossible")

    made.submit(Job(lambda: None, apply, lambda _result, took: done.append(took)))
    while not listener.failures:
        await asyncio.sleep(0.001)
    assert isinstance(listener.failures[0], BugError)
    assert (done, damage) == ([], [])
    await stopped(made)
    connection = apsw.Connection(str(tmp_path / "a.db"))
    assert list(connection.execute("SELECT name FROM sqlite_schema")) == [], "the half transaction was rolled back"
    connection.close()


async def test_a_fault_that_passes_is_retried_without_encoding_again(tmp_path: Path) -> None:
    listener = Listener()
    made, _ = writer(tmp_path / "a.db", listener)
    encoded: list[int] = []
    faults = [apsw.FullError("full"), apsw.FullError("full"), apsw.IOError("eio"), apsw.BusyError("held")]
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def apply(connection: apsw.Connection, _encoded: object) -> int:
        connection.execute("CREATE TABLE t(x)")
        if faults:
            raise faults.pop(0)
        return 42

    made.submit(Job(lambda: encoded.append(1), apply, lambda result, _took: done.set_result(result)))
    assert await asyncio.wait_for(done, 10) == 42
    assert encoded == [1]
    assert listener.codes() == [
        ("store_full", True),
        ("store_full", False),
        ("store_io", True),
        ("store_io", False),
        ("store_locked", True),
        ("store_locked", False),
    ]
    await stopped(made)


async def test_a_first_fault_that_is_gone_at_once_is_not_reported(tmp_path: Path) -> None:
    listener = Listener()
    made, _ = writer(tmp_path / "a.db", listener)
    faults = [apsw.FullError("full")]
    done = asyncio.Event()

    def apply(_connection: apsw.Connection, _encoded: object) -> None:
        if faults:
            raise faults.pop()

    made.submit(Job(lambda: None, apply, lambda _result, _took: done.set()))
    await asyncio.wait_for(done.wait(), 10)
    assert listener.troubles == []
    await stopped(made)


async def test_damage_is_marked_before_it_is_reported(tmp_path: Path) -> None:
    listener = Listener()
    made, damage = writer(tmp_path / "a.db", listener)

    def apply(_connection: apsw.Connection, _encoded: object) -> None:
        raise apsw.CorruptError("malformed")

    made.submit(Job(lambda: None, apply, lambda _result, _took: None))
    while not listener.failures:
        await asyncio.sleep(0.001)
    assert isinstance(listener.failures[0], StoreCorrupt)
    assert damage == ["malformed"]
    await stopped(made)


async def test_the_wal_comes_home_when_it_is_long_and_nobody_waits(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=2_000_000)
    await fill(store, 100, noise=100)
    statistics = await store.journal.statistics()
    assert statistics.checkpoints >= 3
    assert statistics.wal_bytes <= 300_000
    await store.journal.close()
    assert not (tmp_path / "store.db-wal").exists(), "a clean close leaves one file"


async def test_statistics_count_commits_and_show_the_span(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert (await store.journal.statistics()).oldest is None
    await fill(store, 3)
    statistics = await store.journal.statistics()
    assert statistics.units == sum(statistics.commit_us) == 3
    assert statistics.commit_us_sum >= 3000
    assert statistics.oldest is not None
    assert statistics.newest is not None
    assert (statistics.oldest.batch, statistics.newest.batch, statistics.newest.result_first) == (1, 3, 51)
    assert statistics.file_bytes > 0
    assert statistics.trouble == ""
    await store.journal.close()


async def test_after_closing_nothing_is_taken_and_closing_again_does_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.journal.close()
    await store.journal.close()
    with pytest.raises(BugError, match="after the journal was closed"):
        store.journal.submit(unit(1, 1), print)
    for use in (store.journal.read_results(1, 1), store.journal.save_meta(b"{}"), store.journal.statistics()):
        with pytest.raises(StoreError, match="it is closed"):
            await use


async def test_cursors_are_what_the_engine_said(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    store.journal.delivered_upto, store.journal.answered_upto, store.journal.noticed_upto = 3, 4, 5
    assert (store.journal.delivered_upto, store.journal.answered_upto, store.journal.noticed_upto) == (3, 4, 5)
    assert store.journal.epoch_of_result(1) == store.journal.epoch
    await commit(store.journal, unit(1, 1))
    await store.journal.close()


async def test_an_error_of_a_read_goes_to_the_one_who_asked_and_the_reader_goes_on(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "a.db"))
    damage: list[str] = []
    reader = Reader(connection, asyncio.get_running_loop(), on_damage=damage.append)
    reader.start()
    with pytest.raises(ZeroDivisionError):
        await reader.read(lambda _connection, _unpacker: 1 // 0)
    with pytest.raises(StoreError, match="reading the store: no such table"):
        await reader.read(lambda c, _unpacker: c.execute("SELECT * FROM missing").fetchall())
    with pytest.raises(StoreCorrupt):
        await reader.read(lambda _connection, unpacker: unpacker.unpack_bytes(b"x"))
    assert damage == ["reading a stored blob of 1 bytes: expected format 1 or 2, got 120"]
    cancelled = asyncio.ensure_future(reader.read(lambda _connection, _unpacker: "late"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await reader.read(lambda _connection, _unpacker: 7) == 7
    await asyncio.to_thread(reader.stop)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (apsw.CorruptError("x"), StoreCorrupt),
        (apsw.NotADBError("x"), StoreCorrupt),
        (apsw.BusyError("x"), StoreLocked),
        (apsw.LockedError("x"), StoreLocked),
        (apsw.CantOpenError("x"), StoreError),
        (apsw.ReadOnlyError("x"), StoreError),
        (KeyError("x"), KeyError),
    ],
)
def test_foreign_errors_become_our_own_by_their_cause(error: Exception, kind: type[Exception]) -> None:
    assert type(as_own(error, "trying")) is kind


@pytest.mark.parametrize("code", sorted(DAMAGE_RESULTS))
def test_a_medium_that_does_not_give_back_what_was_written_is_damage(code: int) -> None:
    assert is_damage(apsw.exception_for(code))
    assert not is_damage(apsw.exception_for(apsw.SQLITE_IOERR_WRITE))


@pytest.mark.parametrize(
    ("error", "system_errno", "code"),
    [
        (apsw.FullError("x"), 0, "store_full"),
        (apsw.IOError("x"), 28, "store_full"),
        (apsw.IOError("x"), 122, "store_full"),
        (apsw.IOError("x"), 5, "store_io"),
        (apsw.BusyError("x"), 28, "store_locked"),
    ],
)
def test_a_passing_fault_has_a_stable_code(error: apsw.Error, system_errno: int, code: str) -> None:
    assert classify(error, system_errno)[0] == code
