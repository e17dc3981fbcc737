"""A damaged store is set aside and its readable rows go into a new one, newest first, in bounded time."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from edged.errors import StoreCorrupt
from edged.store import pages, place
from edged.store.database import PAGE_BYTES
from edged.store.segment import Unpacker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS_PER_TRANSACTION = 500
SHAPES = {"journal": "niiiiiiittbooo", "epoch": "nttiiii", "tombstone": "ntiiiti", "snapshot": "nib"}
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
    with closing(pages.PageFile(damaged, PAGE_BYTES)) as source:
        found = pages.find_rows(source, SHAPES, search_is_late)
        complete = not search_is_late()
        try:
            for table in ("epoch", "tombstone", "snapshot"):
                _copy_small(source, target, table, found[table])
            return _copy_journal(source, target, found["journal"], is_late) and complete
        except apsw.FullError:
            if target.in_transaction:
                target.execute("ROLLBACK")
            return False


def _copy_small(source: pages.PageFile, target: apsw.Connection, table: str, found: dict[int, pages.Place]) -> None:
    for rowid in sorted(found):
        values = _read(source, found[rowid])
        if values is not None and (table != "snapshot" or _intact_blob(values[2])):
            target.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)  # noqa: S608  constants


def _copy_journal(
    source: pages.PageFile, target: apsw.Connection, found: dict[int, pages.Place], is_late: Callable[[], bool]
) -> bool:
    following: StoredRow | None = None
    target.execute("BEGIN IMMEDIATE")
    for copied, batch in enumerate(sorted(found, reverse=True), start=1):
        if is_late():
            target.execute("COMMIT")
            return False
        values = _read(source, found[batch])
        row = StoredRow(*values) if values is not None else None
        if row is not None and is_intact(row, following):
            target.execute(_INSERT, row)
            following = row
        if copied % ROWS_PER_TRANSACTION == 0:
            target.execute("COMMIT")
            target.execute("BEGIN IMMEDIATE")
    target.execute("COMMIT")
    return True


def _read(source: pages.PageFile, where: pages.Place) -> tuple[Any, ...] | None:
    """The row, or None when it cannot be put together."""
    try:
        return pages.read_row(source, where)
    except pages.Malformed:
        return None


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
