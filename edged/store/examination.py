"""Is the database what we left behind? Asked once at start, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import apsw

from edged.errors import StoreCorrupt
from edged.store import lookup, waltail
from edged.store.database import is_damage
from edged.store.segment import Unpacker

if TYPE_CHECKING:
    from pathlib import Path

PROGRESS_STEPS = 1000  # SQLite instructions between two looks at the clock


class Finding(NamedTuple):
    """damage: the file must be set aside. lost_tail: the file is sound, but commits after its newest row are gone."""

    damage: str = ""
    lost_tail: str = ""
    complete: bool = True


def examine(connection: apsw.Connection, wal: Path, *, wal_bytes_before: int, is_late: Callable[[], bool]) -> Finding:
    """Check structure and content until `is_late`, and that no commit is missing at the end.

    wal_bytes_before: size of the WAL before this process opened the database.
    """
    try:
        complete = _quick_check(connection, is_late)
        complete = _check_content(connection, is_late) and complete
        return Finding(lost_tail=_lost_tail(connection, wal, wal_bytes_before), complete=complete)
    except (apsw.Error, StoreCorrupt) as error:
        # Our statements are constants: one that SQLite does not understand means that the schema is not ours any more.
        if not is_damage(error) and not isinstance(error, apsw.SQLError):
            raise
        return Finding(damage=str(error))


def was_open(connection: apsw.Connection) -> bool:
    """Whether the last process that wrote ended without closing the store."""
    row = connection.execute("SELECT value FROM info WHERE key = 'open'").fetchone()
    return bool(row and row[0])


def mark_open(connection: apsw.Connection, is_open: bool) -> None:
    """Leave word for the next start, in the database file itself and not only in its WAL."""
    connection.execute("INSERT OR REPLACE INTO info VALUES ('open', ?)", (int(is_open),))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def _quick_check(connection: apsw.Connection, is_late: Callable[[], bool]) -> bool:
    """False when the time was up before everything had been looked at. Raises `StoreCorrupt`."""
    connection.set_progress_handler(is_late, PROGRESS_STEPS)
    try:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
    except apsw.InterruptError:
        return False
    finally:
        connection.set_progress_handler(None)
    if verdict is None or verdict[0] != "ok":
        raise StoreCorrupt(f"checking the store: {verdict[0] if verdict else 'no answer'}")
    return True


def _check_content(connection: apsw.Connection, is_late: Callable[[], bool]) -> bool:
    """Snapshot and rows, newest first: at least the newest one, then until `is_late`. Raises `StoreCorrupt`."""
    unpacker = Unpacker()
    snapshot = connection.execute("SELECT state FROM snapshot").fetchone()
    if snapshot is not None:
        unpacker.unpack_bytes(snapshot[0])
    for numbers in connection.execute(lookup.ALL_NEWEST_FIRST):
        lookup.check_row(connection, unpacker, lookup.Row(*numbers))
        if is_late():
            return False
    return True


def _lost_tail(connection: apsw.Connection, wal: Path, wal_bytes_before: int) -> str:
    if not was_open(connection):
        return ""
    if wal_bytes_before == 0:
        return "the WAL is gone although the store was not closed"
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    with wal.open("rb") as file:  # SQLite keeps no locks on this file, so that closing it again harms nobody
        header = file.read(waltail.HEADER_BYTES)
        if not waltail.header_is_valid(header):
            return "the WAL has no valid header although the store was not closed"
        file.seek(max(frames, 0) * (waltail.FRAME_HEADER_BYTES + waltail.page_bytes(header)), 1)
        if waltail.lost_commits(header, _frame_headers(file, waltail.page_bytes(header))):
            return "the WAL is damaged before its end"
    return ""


def _frame_headers(file: BinaryIO, page_bytes: int) -> Iterator[bytes]:
    while header := file.read(waltail.FRAME_HEADER_BYTES):
        yield header
        file.seek(page_bytes, 1)
