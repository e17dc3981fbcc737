"""How connections to the database file are made: pragmas, rights, and foreign errors as our own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

from edged.errors import StoreCorrupt, StoreError, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_BYTES = 1024  # least bytes written per commit (docs/adr: one row per commit)
WRITER_CACHE_KIB = 512
READER_CACHE_KIB = 256
CHECKPOINTER_CACHE_KIB = 64  # a checkpoint copies pages, it looks nothing up
BUSY_TIMEOUT_MS = 200  # longer waits are reported and retried by the writer, which still hears `close`

# Reading failed because what stands in the file is not what SQLite wrote, or the medium does not give it back.
DAMAGE_RESULTS = frozenset(
    (
        apsw.SQLITE_IOERR_SHORT_READ,
        apsw.SQLITE_IOERR_READ,
        apsw.SQLITE_IOERR_CORRUPTFS,
        apsw.SQLITE_IOERR_DATA,
    )
)


def connect_writer(path: Path) -> apsw.Connection:
    """The one connection that writes: WAL, and every commit on the disk before it returns.

    Closing it leaves the WAL where it is: only `close_clean` may take it away, because a WAL that is missing otherwise
    means lost commits.
    """
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _harden(connection)
    if connection.pragma("page_count") == 0:
        connection.pragma("page_size", PAGE_BYTES)
        connection.pragma(
            "auto_vacuum", "INCREMENTAL"
        )  # on an existing file this would write, before anything is examined
    connection.pragma("journal_mode", "WAL")
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("synchronous", "FULL")
    connection.pragma("wal_autocheckpoint", 0)  # the writer chooses the moment
    connection.pragma("cache_size", -WRITER_CACHE_KIB)
    return connection


def connect_checkpointer(path: Path) -> apsw.Connection:
    """A connection that only brings the WAL home. Closing it leaves the WAL to the writer."""
    connection = apsw.Connection(str(path))
    _harden(connection)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("synchronous", "FULL")
    connection.pragma("cache_size", -CHECKPOINTER_CACHE_KIB)
    return connection


def close_clean(connection: apsw.Connection) -> None:
    """Bring the whole WAL home, remove it and close. Raises `apsw.Error` with the connection still open."""
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    connection.close()


def connect_reader(path: Path | str) -> apsw.Connection:
    """A connection that cannot write. path: or a `file:` address."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _harden(connection)
    connection.pragma("query_only", True)
    connection.pragma("cache_size", -READER_CACHE_KIB)
    return connection


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is the fault, so that neither waiting nor rights would help."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError, StoreCorrupt)):
        return True
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in DAMAGE_RESULTS


def as_own(error: BaseException, attempt: str) -> BaseException:
    """An error of SQLite as `StoreCorrupt`, `StoreLocked` or `StoreError`; every other error as it is."""
    if not isinstance(error, apsw.Error):
        return error
    if is_damage(error):
        return StoreCorrupt(f"{attempt}: {error}", hint="restart edged: it sets the file aside and salvages")
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        hint = "another program holds the database: close it, or copy the file and look at the copy"
        return StoreLocked(f"{attempt}: {error}", hint=hint, retryable=True)
    return StoreError(f"{attempt}: {error}", hint="check the disk, and the owner and rights of the state directory")


@contextmanager
def own_errors(attempt: str) -> Iterator[None]:
    """Turn errors of SQLite into our own; see `as_own`."""
    try:
        yield
    except apsw.Error as error:
        raise as_own(error, attempt) from error


def _harden(connection: apsw.Connection) -> None:
    connection.pragma("trusted_schema", False)
    connection.pragma("cell_size_check", True)
    connection.pragma("mmap_size", 0)  # a damaged or truncated file must be an error, not SIGBUS
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
