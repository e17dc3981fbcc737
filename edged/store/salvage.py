"""A damaged store is set aside and its readable rows go into a new one, newest first, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from edged.errors import StoreCorrupt
from edged.store import pages, place
from edged.store.database import PAGE_BYTES
from edged.store.segment import Unpacker

if TYPE_CHECKING:
    from pathlib import Path

ROWS_PER_TRANSACTION = 500
JOURNAL_SHAPE = "niiiiiiittbooo"
_INSERT = "INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


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


def copy_rows(
    damaged: Path, target: apsw.Connection, search_is_late: Callable[[], bool], is_late: Callable[[], bool]
) -> bool:
    """Copy every intact row, newest first; False when stopped by time or a full disk.

    Rows are searched until `search_is_late` and then copied until `is_late`.
    """
    following: StoredRow | None = None
    copied = 0
    with closing(pages.PageFile(damaged, PAGE_BYTES)) as source:
        found = pages.find_rows(source, JOURNAL_SHAPE, search_is_late)
        complete = not search_is_late()
        try:
            target.execute("BEGIN IMMEDIATE")
            for row in _rows(source, found):
                if is_late():
                    complete = False
                    break
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
            complete = False
            if target.in_transaction:
                target.execute("ROLLBACK")
    return complete


def copy_small_tables(damaged: Path, target: apsw.Connection) -> None:
    """Epochs, tombstones and the snapshot, as far as SQLite can still read them. Call it after `copy_rows`.

    What cannot be read is what damage means; the new epoch says that something is missing.
    """
    try:
        source = apsw.Connection(str(damaged))
    except apsw.Error:
        return
    with closing(source):
        source.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # the damaged file stays as it was found
        source.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)  # read on although the header or schema looks wrong
        for table in ("epoch", "tombstone", "snapshot"):
            try:
                for row in source.execute(f"SELECT * FROM {table}"):  # noqa: S608  one of three constants
                    if table != "snapshot" or _intact_blob(row[2]):
                        target.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608
            except apsw.Error:
                continue


def _rows(source: pages.PageFile, found: dict[int, pages.Place]) -> Iterator[StoredRow]:
    """Journal rows from the newest down, as they stand; rows that cannot be put together are left out."""
    for batch in sorted(found, reverse=True):
        try:
            values: Any = pages.read_row(source, found[batch])
        except pages.Malformed:
            continue
        yield StoredRow(*values)


def is_intact(row: StoredRow, following: StoredRow | None) -> bool:
    """Whether the numbers make sense before the following row's, and every blob has its checksum."""
    if min(row[:8]) < 0:
        return False
    if following is not None and (
        row.event_first + row.event_n > following.event_first
        or row.result_first + row.result_n > following.result_first
    ):
        return False
    blobs = ((row.notice_n, row.notices), (row.result_n, row.results), (row.event_n, row.events))
    if any((n > 0) != (blob is not None) for n, blob in blobs):
        return False
    return _intact_blob(row.meta) and all(_intact_blob(blob) for _, blob in blobs if blob is not None)


def _intact_blob(blob: object) -> bool:
    try:
        return isinstance(blob, bytes) and Unpacker().unpack_bytes(blob) is not None
    except StoreCorrupt:
        return False
