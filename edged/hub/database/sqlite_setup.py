"""The SQLite file of a site: made, brought up to date, looked at. Blocking work happens in a thread."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import apsw

from edged.hub.database.sqlite_schema import MIGRATIONS, VERSION
from edged.hub.database.trouble import away, not_migrated

BUSY_S = 10.0  # a commit of another worker takes a fraction of it
SWITCH_TRIES = 20  # more than workers that start at once
CHECKPOINT_PAGES = 4_000  # 16 MB of log between two times that it is brought home


def connect(path: str, *, create: bool = False, busy_s: float = BUSY_S) -> apsw.Connection:
    """A connection on which a COMMIT that returned is on the disk. Raises `apsw.Error`."""
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(path, flags=flags)
    try:
        connection.set_busy_timeout(int(busy_s * 1000))
        _switch_to_wal(connection)
        for pragma in ("synchronous = full", f"wal_autocheckpoint = {CHECKPOINT_PAGES}"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: apsw.Connection) -> None:
    """Several that open a new file at once: SQLite does not wait for a lock when it switches, so we wait for one."""
    for _ in range(SWITCH_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = wal")
        except apsw.BusyError:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        else:
            return
    connection.execute("PRAGMA journal_mode = wal")


def schema_version(connection: apsw.Connection) -> int:
    """0 for a file without our tables."""
    there = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'schema_version'").get
    if not there:
        return 0
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").get)


async def migrate(path: str) -> list[str]:
    """What was done, in words. Whoever comes second waits, and then finds nothing to do."""
    return await asyncio.to_thread(_migrate, path)


def _migrate(path: str) -> list[str]:
    try:
        connection = connect(path, create=True)
    except apsw.Error as error:
        raise away(
            f"creating {path}", error, hint="create its folder, and give this user the right to write"
        ) from error
    try:
        with connection:  # a savepoint does not lock: the first statement has to write
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_version"
                " (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000))"
            )
        versions = range(1, VERSION + 1)
        return [f"schema version {version}" for version in versions if _apply(connection, version)]
    except apsw.Error as error:
        raise away(f"migrating {path}", error) from error
    finally:
        connection.close()


def _apply(connection: apsw.Connection, version: int) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = schema_version(connection)
        if found > VERSION:
            raise not_migrated(found, VERSION)
        if found < version:
            connection.execute(MIGRATIONS[version - 1])
            if version == 1:
                connection.execute("INSERT INTO receiver (only_one, id) VALUES (1, ?)", (str(uuid.uuid4()),))
            connection.execute("INSERT INTO schema_version (version) VALUES (?)", (version,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found < version


async def check(path: str) -> list[str]:
    """What is wrong, each with its cure."""
    return await asyncio.to_thread(_check, path)


def _check(path: str) -> list[str]:
    if not Path(path).exists():
        return [f"there is no {path}; try: edged-hub migrate"]
    try:
        connection = connect(path)
    except apsw.Error as error:
        return [f"opening {path}: {error}; try: give this user the right to write the file and its folder"]
    try:
        found = schema_version(connection)
        if found != VERSION:
            return [str(not_migrated(found, VERSION))]
        damage = str(connection.execute("PRAGMA quick_check(1)").get)
        return [] if damage == "ok" else [f"{path} is damaged: {damage}; try: restore a backup, gateways send the rest"]
    except apsw.Error as error:
        return [f"reading {path}: {error}"]
    finally:
        connection.close()
