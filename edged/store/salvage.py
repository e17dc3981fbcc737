"""A damaged store is set aside and its readable rows go into a new one, newest first, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import apsw

from edged.errors import StoreCorrupt
from edged.store import place
from edged.store.segment import Unpacker

if TYPE_CHECKING:
    from pathlib import Path

UNREADABLE_RUN_MAX = 100_000  # batch numbers tried one by one before the rest is given up
ROWS_PER_TRANSACTION = 500
_COLUMNS = (
    "batch, event_first, event_n, result_first, result_n, notice_n, arrival_wall_ms, arrival_mono_ns, boot, clock,"
    " meta, notices, results, events"
)
_AT_OR_BEFORE = "SELECT " + _COLUMNS + " FROM journal WHERE batch <= ? ORDER BY batch DESC LIMIT 1"  # noqa: S608 constant
_INSERT = "INSERT INTO journal(" + _COLUMNS + ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 constant


class StoredRow(NamedTuple):
    """One journal row as it stands in the table."""

    batch: int
    event_first: int
    event_n: int
    result_first: int
    result_n: int
    notice_n: int
    arrival_wall_ms: int
    arrival_mono_ns: int
    boot: str
    clock: str
    meta: bytes
    notices: bytes | None
    results: bytes | None
    events: bytes | None


def set_aside(path: Path, stamp: str) -> Path:
    """Rename the database and its WAL to `store-<stamp>-damaged.db`; an older one of the kind is removed."""
    for old in path.parent.glob(f"{path.stem}-*-damaged.db*"):
        old.unlink()
    aside = path.with_name(f"{path.stem}-{stamp}-damaged.db")
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        wal.rename(aside.with_name(aside.name + "-wal"))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    path.rename(aside)
    place.sync_directory(path.parent)
    return aside


def remove(aside: Path) -> None:
    """Delete a file that was set aside, with its WAL."""
    for path in aside.parent.glob(aside.name + "*"):
        path.unlink()


def copy_rows(damaged: Path, target: apsw.Connection, is_late: Callable[[], bool]) -> bool:
    """Copy the small tables and every intact row, newest first; False when stopped by `is_late` or a full disk."""
    try:
        source = apsw.Connection(str(damaged))
    except apsw.Error:
        return False
    with closing(source):
        source.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # the damaged file stays as it was found
        source.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)  # read on although the schema looks wrong
        for table in ("epoch", "tombstone", "snapshot"):
            _copy_table(source, target, table)
        return _copy_journal(source, target, is_late)


def _copy_table(source: apsw.Connection, target: apsw.Connection, table: str) -> None:
    """Small tables, row by row as far as they can be read."""
    try:
        for row in source.execute(f"SELECT * FROM {table}"):  # noqa: S608  one of three constants
            if table != "snapshot" or _intact_blob(row[2]):
                target.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608  likewise
    except apsw.Error:
        pass  # what cannot be read is what damage means; the new epoch says that something is missing


def _copy_journal(source: apsw.Connection, target: apsw.Connection, is_late: Callable[[], bool]) -> bool:
    """False when stopped by time or a full disk."""
    following: StoredRow | None = None
    copied = 0
    try:
        target.execute("BEGIN IMMEDIATE")
        for row in _readable_rows(source, is_late):
            if not is_intact(row, following):
                continue
            target.execute(_INSERT, row)
            following = row
            copied += 1
            if copied % ROWS_PER_TRANSACTION == 0:
                target.execute("COMMIT")
                target.execute("BEGIN IMMEDIATE")
        target.execute("COMMIT")
    except apsw.FullError:
        if target.in_transaction:
            target.execute("ROLLBACK")
        return False
    return not is_late()


def _readable_rows(source: apsw.Connection, is_late: Callable[[], bool]) -> Iterator[StoredRow]:
    """Rows from the newest readable one down; an unreadable spot is crossed one batch number at a time."""
    batch = _highest_readable(source)
    unreadable = 0
    while batch > 0 and unreadable < UNREADABLE_RUN_MAX and not is_late():
        try:
            values = source.execute(_AT_OR_BEFORE, (batch,)).fetchone()
        except apsw.Error:
            unreadable += 1
            batch -= 1
            continue
        if values is None:
            return
        unreadable = 0
        row = StoredRow(*values)
        yield row
        batch = row.batch - 1


def _highest_readable(source: apsw.Connection) -> int:
    """The newest batch; where the way there is damaged, the last one before the damage, found by halving."""
    try:
        row = source.execute("SELECT max(batch) FROM journal").fetchone()
        return (row and row[0]) or 0
    except apsw.Error:
        newest, step = 0, 1 << 40
        while step:
            if _can_read_at(source, newest + step):
                newest += step
            step >>= 1
        return newest


def _can_read_at(source: apsw.Connection, batch: int) -> bool:
    try:
        return source.execute("SELECT batch FROM journal WHERE batch >= ? LIMIT 1", (batch,)).fetchone() is not None
    except apsw.Error:
        return False


def is_intact(row: StoredRow, following: StoredRow | None) -> bool:
    """Whether the numbers make sense before the following row's, and every blob has its checksum."""
    if not all(type(value) is int and value >= 0 for value in row[:8]):
        return False
    if following is not None and (
        row.event_first + row.event_n > following.event_first
        or row.result_first + row.result_n > following.result_first
    ):
        return False
    blobs = ((row.notice_n, row.notices), (row.result_n, row.results), (row.event_n, row.events))
    return (
        _intact_blob(row.meta)
        and all((n > 0) == (blob is not None) for n, blob in blobs)
        and all(_intact_blob(blob) for _, blob in blobs if blob is not None)
    )


def _intact_blob(blob: object) -> bool:
    try:
        return isinstance(blob, bytes) and Unpacker().unpack_bytes(blob) is not None
    except StoreCorrupt:
        return False
