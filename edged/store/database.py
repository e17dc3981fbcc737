"""How connections to the database file are made: pragmas, rights, and foreign errors as our own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

from edged.errors import StoreCorrupt, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_BYTES = 4096
WRITER_CACHE_KIB = 512
READER_CACHE_KIB = 256
BUSY_TIMEOUT_MS = 200  # longer waits are reported and retried by the writer, which still hears `close`


def connect_writer(path: Path) -> apsw.Connection:
    """The one connection that writes: WAL, and every commit on the disk before it returns."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.pragma("page_size", PAGE_BYTES)  # only has an effect on a new file
    connection.pragma("auto_vacuum", "INCREMENTAL")  # likewise
    _harden(connection)
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", "FULL")
    connection.pragma("wal_autocheckpoint", 0)  # the writer chooses the moment
    connection.pragma("cache_size", -WRITER_CACHE_KIB)
    return connection


def connect_reader(path: Path) -> apsw.Connection:
    """A connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _harden(connection)
    connection.pragma("query_only", True)
    connection.pragma("cache_size", -READER_CACHE_KIB)
    return connection


def _harden(connection: apsw.Connection) -> None:
    connection.pragma("trusted_schema", False)
    connection.pragma("cell_size_check", True)
    connection.pragma("mmap_size", 0)  # a damaged or truncated file must be an error, not SIGBUS
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)


@contextmanager
def own_errors(attempt: str) -> Iterator[None]:
    """Turn errors of SQLite into `StoreError`/`StoreCorrupt` that say what was attempted."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreCorrupt(f"{attempt}: {error}", hint="restart edged: it sets the file aside and salvages") from error
    except apsw.Error as error:
        raise StoreError(f"{attempt}: {error}", hint="check the disk and the rights of the state directory") from error
