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

SALVAGING_NAME = "store-salvaging.db"  # the new store until it is complete
BYTES_PER_TRANSACTION = 250_000
SHAPES = {
    "journal": "niiiiiiittbooo",
    "epoch": "nttiiii",
    "tombstone": "ntiiiti",
    "snapshot": "nib",
    "start": "ntttiiiiii",
    "aggregate": "niib",
}
CHECKED_BLOB = {"snapshot": 2, "aggregate": 3}  # column of the blob that tells whether a row is what was written
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


def swap(path: Path, stamp: str) -> Path:
    """Put the salvaged store in the place of the damaged one, which becomes `store-<stamp>-damaged.db`.

    A crash at any point leaves either the damaged store where it was, or something that `finish_swap` completes.
    An older damaged file is removed: one is evidence, more are a full disk.
    """
    for old in path.parent.glob(f"{path.stem}-*-damaged.db*"):
        old.unlink()
    aside = path.with_name(f"{path.stem}-{stamp}-damaged.db")
    path.rename(aside)
    place.sync_directory(path.parent)
    wal = _beside(path, "-wal")
    if wal.exists():
        wal.rename(_beside(aside, "-wal"))
    finish_swap(path)
    return aside


def finish_swap(path: Path) -> None:
    """Complete a swap that was cut short: the damaged store is away, the salvaged one not yet in its place."""
    salvaged = path.with_name(SALVAGING_NAME)
    if path.exists() or not salvaged.exists():
        return
    for suffix in ("-wal", "-shm"):
        _beside(path, suffix).unlink(missing_ok=True)  # SQLite would take the old WAL for the new file's
    place.sync_directory(path.parent)
    salvaged.rename(path)
    place.sync_directory(path.parent)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def remove(aside: Path) -> None:
    """Delete a file that was set aside, with its WAL."""
    for path in aside.parent.glob(aside.name + "*"):
        path.unlink()


def copy_rows(
    damaged: Path,
    target: apsw.Connection,
    *,
    search_is_late: Callable[[], bool],
    is_late: Callable[[], bool],
    is_full: Callable[[], bool],
) -> bool:
    """Copy every intact row, newest first; False when stopped by time or by a disk that `is_full`.

    Rows are searched until `search_is_late` and then copied until `is_late`.
    """
    with closing(pages.PageFile(damaged, PAGE_BYTES)) as source:
        found = pages.find_rows(source, SHAPES, search_is_late)
        complete = not search_is_late() and len(found["journal"]) < pages.FOUND_MAX
        with target:
            for table in SHAPES.keys() - {"journal"}:
                _copy_small(source, target, table, found[table])
        return _copy_journal(source, target, found["journal"], lambda: is_late() or is_full()) and complete


def _copy_small(source: pages.PageFile, target: apsw.Connection, table: str, found: dict[int, pages.Place]) -> None:
    for rowid in sorted(found):
        values = _read(source, found[rowid])
        if values is not None and (table not in CHECKED_BLOB or _intact_blob(values[CHECKED_BLOB[table]])):
            places = ",".join("?" * len(values))
            target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", values)  # noqa: S608  constants


def _copy_journal(
    source: pages.PageFile, target: apsw.Connection, found: dict[int, pages.Place], must_stop: Callable[[], bool]
) -> bool:
    following: StoredRow | None = None
    pending: list[StoredRow] = []
    pending_bytes = 0
    for batch in sorted(found, reverse=True):
        values = _read(source, found[batch])
        row = StoredRow(*values) if values is not None else None
        if row is not None and is_intact(row, following):
            pending.append(row)
            pending_bytes += sum(len(blob) for blob in (row.meta, row.notices, row.results, row.events) if blob)
            following = row
        if pending_bytes >= BYTES_PER_TRANSACTION:
            _insert(target, pending)
            pending, pending_bytes = [], 0
            if must_stop():
                return False
    _insert(target, pending)
    return True


def _insert(target: apsw.Connection, rows: list[StoredRow]) -> None:
    with target:
        target.executemany(_INSERT, rows)
    target.wal_checkpoint()  # the copy must not need the room twice


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
