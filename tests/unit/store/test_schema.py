"""Older stores become the newest one step by step, with a copy of what they were."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from edged.store import examination, place, schema
from edged.store.database import close_clean
from edged.store.schema import MIGRATIONS, Migration
from edged.store.startup import Started, start
from edged.store.values import StoreSettings
from tests.unit.store.samples import SteppingClock

BACKUP = "store-before-v3.db"


def add_column(connection: apsw.Connection) -> None:
    connection.execute("ALTER TABLE snapshot ADD COLUMN note TEXT")


def fail_half_way(connection: apsw.Connection) -> None:
    add_column(connection)
    raise apsw.SQLError("no more")


def started(folder: Path, *more: Migration, free: int = 10**12) -> Started:
    return start(StoreSettings(folder), SteppingClock(), lambda _folder: free, (*MIGRATIONS, *more))


def stop(store: Started) -> None:
    examination.mark_open(store.connection, is_open=False)
    close_clean(store.connection)
    store.lock.release()


def columns(path: Path) -> list[object]:
    connection = apsw.Connection(str(path))
    names = [row[1] for row in connection.execute("PRAGMA table_info(snapshot)")]
    connection.close()
    return names


def test_a_migration_runs_once_and_leaves_a_copy_of_the_store_before_it(tmp_path: Path) -> None:
    stop(started(tmp_path))
    store = started(tmp_path, Migration(3, "add_note", 1, add_column))
    assert store.recovered.migrated == ("add_note",)
    recorded = list(store.connection.execute("SELECT version, name FROM migration ORDER BY version"))
    assert recorded == [(1, "create_journal"), (2, "create_beside"), (3, "add_note")]
    stop(store)
    assert columns(tmp_path / BACKUP) == ["id", "event_seq", "state"]
    assert (tmp_path / BACKUP).stat().st_mode & 0o777 == 0o600
    again = started(tmp_path, Migration(3, "add_note", 1, add_column))
    assert again.recovered.migrated == ()
    stop(again)
    older = started(tmp_path)
    assert older.recovered.salvage is None, "one version down needs nothing"
    stop(older)


def test_a_migration_that_fails_leaves_the_store_as_it_was_and_unlocked(tmp_path: Path) -> None:
    stop(started(tmp_path))
    with pytest.raises(Exception, match="no more"):
        started(tmp_path, Migration(3, "add_note", 1, fail_half_way))
    assert columns(tmp_path / "store.db") == ["id", "event_seq", "state"]
    stop(started(tmp_path))


def test_without_room_for_a_copy_the_migration_goes_on_and_says_so(tmp_path: Path) -> None:
    stop(started(tmp_path))
    store = started(tmp_path, Migration(3, "add_note", 1, add_column), free=1000)
    assert store.recovered.migrated == ("add_note",)
    assert any("no room for a backup" in warning for warning in store.recovered.warnings)
    stop(store)
    assert not (tmp_path / BACKUP).exists()


def test_a_store_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    place.create_file(tmp_path / "store.db")
    store = started(tmp_path)
    assert store.recovered.new_store
    stop(store)


def test_our_tables_are_known_by_their_number(tmp_path: Path) -> None:
    store = started(tmp_path)
    assert store.connection.pragma("application_id") == schema.APPLICATION_ID
    assert store.connection.pragma("journal_mode") == "wal"
    assert store.connection.pragma("synchronous") == 2
    stop(store)
