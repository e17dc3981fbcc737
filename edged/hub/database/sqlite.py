"""Rows in SQLite, for one site: one transaction per batch, in a thread; several worker processes share the file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from edged.hub.database import settling, sheets
from edged.hub.database.sqlite_schema import VERSION
from edged.hub.database.sqlite_setup import BUSY_S, connect, schema_version
from edged.hub.database.trouble import away, not_migrated
from edged.hub.ports import StreamBooks
from edged.sync import ranges

if TYPE_CHECKING:
    from edged.hub.database.sheets import Row, Sheet
    from edged.hub.ports import Batch
    from edged.sync.protocol import Ack, Hello, HelloAck, Range

T = TypeVar("T")

ROW_REFUSED = (apsw.ConstraintError, apsw.TooBigError, apsw.MismatchError, TypeError, ValueError, OverflowError)

_LOCKED = """
SELECT s.id, s.gateway_id, s.base, s.upto, s.ranges, s.tombstoned, s.quarantined
FROM stream s JOIN gateway g ON g.id = s.gateway_id
WHERE g.site = ? AND g.gateway = ? AND s.epoch = ? AND s.stream = ?
"""
_NEW_GATEWAY = "INSERT INTO gateway (site, gateway) VALUES (?, ?) ON CONFLICT DO NOTHING"
_NEW_STREAM = """
INSERT INTO stream (gateway_id, epoch, stream, base, upto, newest, announced)
SELECT id, ?3, ?4, ?5, ?5 - 1, ?5 - 1, ?6 FROM gateway WHERE site = ?1 AND gateway = ?2
ON CONFLICT DO UPDATE SET announced = max(announced, excluded.announced)
"""
_SETTLE = """
UPDATE stream SET base = ?2, upto = ?3, ranges = ?4, newest = ?5, rows = rows + ?6, tombstoned = tombstoned + ?7,
       quarantined = quarantined + ?8, late = late + ?9, batches = batches + 1, updated_at = unixepoch() * 1000
WHERE id = ?1
"""
_LATE = """
SELECT coalesce(sum(min(last, ?3) - max(first, ?2) + 1), 0) FROM tombstone
WHERE stream_id = ?1 AND first <= ?3 AND last >= ?2
"""
_BAD = "SELECT seq, reason FROM quarantine WHERE stream_id = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
_NEW_CONTEXT = "INSERT INTO context VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_STREAMS = """
SELECT s.epoch, s.stream, s.base, s.upto, s.ranges
FROM stream s JOIN gateway g ON g.id = s.gateway_id WHERE g.site = ? AND g.gateway = ? ORDER BY s.id DESC LIMIT ?
"""
_MISMATCH = """
SELECT count(*) FROM gateway g
JOIN stream s ON s.gateway_id = g.id AND s.epoch = ?3 AND s.stream = 'result'
JOIN result r ON r.stream_id = s.id AND r.seq = ?4
JOIN context c ON c.id = r.context_id
WHERE g.site = ?1 AND g.gateway = ?2 AND (c.boot <> ?5 OR r.mono_ns <> ?6)
"""
_BOOKS = """
SELECT site, gateway, epoch, stream, rows, tombstoned, quarantined, missing FROM ledger
ORDER BY site, gateway, epoch, stream
"""


async def open_sqlite(path: str, *, timeout_s: float = BUSY_S) -> SqliteDatabase:
    """Raises `DatabaseAway`, or `DatabaseUnfit` for a schema of another version."""
    database = SqliteDatabase(path, timeout_s)
    try:
        await database.run(f"opening {path}", lambda _connection: None)
    except BaseException:
        await database.close()
        raise
    return database


class SqliteDatabase:
    """Implements `edged.hub.ports.Database`. Everything happens in one thread, in the order of asking."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, "hub-sqlite")
        self._connection: apsw.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._receiver = ""

    @property
    def receiver(self) -> str:
        return self._receiver

    async def commit(self, batch: Batch) -> Ack:
        header = batch.header
        n = None if batch.rows is None else sheets.count(batch.rows) or 0
        if reason := settling.unusable(header, n):
            return settling.ack(header, self._receiver, "reject", reason=reason)
        doing = f"committing {header.stream} {header.first}-{header.last} of {header.site}/{header.gateway}"
        return await self.run(doing, lambda connection: _commit(connection, batch, self._receiver))

    async def hello(self, hello: Hello) -> HelloAck:
        if reason := settling.unusable_hello(hello):
            return settling.hello_refused(hello, self._receiver, reason)
        doing = f"looking up what is home of {hello.site}/{hello.gateway}"
        streams, mismatches = await self.run(doing, lambda connection: _hello(connection, hello))
        return settling.hello_ack(hello, self._receiver, streams, mismatches)

    async def books(self) -> list[StreamBooks]:
        rows: list[Any] = await self.run("reading the ledger", lambda connection: connection.execute(_BOOKS).fetchall())
        return [StreamBooks(*row) for row in rows]

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # --- in the thread ---

    async def run(self, doing: str, work: Callable[[apsw.Connection], T]) -> T:
        """Do `work` in the thread, on a connection to the file that bears the name now."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, doing, work)

    def _run(self, doing: str, work: Callable[[apsw.Connection], T]) -> T:
        try:
            return work(self._fresh())
        except (apsw.Error, OSError) as error:
            raise away(f"{doing}, in {self._path}", error) from error

    def _fresh(self) -> apsw.Connection:
        """A file put in the place of ours would not be noticed: SQLite goes on writing into the one that is gone."""
        stat = Path(self._path).stat()
        if self._connection is None or (stat.st_dev, stat.st_ino) != self._file:
            self._close()
            connection = connect(self._path, busy_s=self._timeout_s)
            found = schema_version(connection)
            if found != VERSION:
                connection.close()
                raise not_migrated(found, VERSION)
            self._receiver = connection.execute("SELECT id FROM receiver").get
            self._connection, self._file = connection, (stat.st_dev, stat.st_ino)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    """Takes the write lock at once: what is read is what will be changed."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _hello(connection: apsw.Connection, hello: Hello) -> tuple[list[Any], list[tuple[str, int]]]:
    who = hello.site, hello.gateway
    found: list[Any] = connection.execute(_STREAMS, (*who, settling.CURSORS_MAX)).fetchall()
    mismatches = [
        (probe.epoch, probe.seq)
        for probe in hello.probes
        if connection.execute(_MISMATCH, (*who, probe.epoch, probe.seq, probe.boot, probe.mono_ns)).get
    ]
    if settling.parted(hello, found, mismatches):
        return found, mismatches
    with _transaction(connection):
        connection.execute(_NEW_GATEWAY, who)
        for extent in hello.extents:
            connection.execute(_NEW_STREAM, (*who, extent.epoch, extent.stream, extent.base, extent.next - 1))
    return connection.execute(_STREAMS, (*who, settling.CURSORS_MAX)).fetchall(), mismatches


def _commit(connection: apsw.Connection, batch: Batch, receiver: str) -> Ack:
    header = batch.header
    sheet = None if batch.rows is None else sheets.sheet(batch.rows)  # before the lock: others may write meanwhile
    with _transaction(connection):
        stream_id, gateway_id, base, upto, beyond, tombstoned, had_bad = _stream(connection, batch)
        before = settling.standing(base, upto, beyond)
        books = settling.rebased(before, header.base)
        missing = ranges.missing(books.home, header.first, header.last)
        after = settling.added(books, header.first, header.last)
        if settling.scattered(after):
            return settling.ack(header, receiver, "retry", reason="busy", retry_ms=settling.BUSY_RETRY_MS)
        count = ranges.count(tuple(missing))
        buried = aside = late = 0
        if sheet is None:
            buried = _bury(connection, batch, stream_id, missing)
        else:
            aside = _write(connection, batch, sheet, missing, (stream_id, gateway_id)) if missing else 0
            if tombstoned and count < sheet.n:
                late = connection.execute(_LATE, (stream_id, header.first, header.last)).get
        if late or after != before:
            place = after.base, after.upto, settling.beyond_text(after), after.newest
            connection.execute(_SETTLE, (stream_id, *place, count - buried - aside, buried, aside, late))
        bad: list[Any] = []
        if had_bad or aside:
            bad = connection.execute(_BAD, (stream_id, header.first, header.last, settling.BAD_NAMED_MAX)).fetchall()
    return settling.ack(header, receiver, books=after, bad=bad)


def _stream(connection: apsw.Connection, batch: Batch) -> Any:
    header = batch.header
    key = header.site, header.gateway, header.epoch, header.stream
    row = connection.execute(_LOCKED, key).get
    if row is None:
        connection.execute(_NEW_GATEWAY, key[:2])
        connection.execute(_NEW_STREAM, (*key, header.base, 0))
        row = connection.execute(_LOCKED, key).get
    return row


def _bury(connection: apsw.Connection, batch: Batch, stream_id: int, missing: Sequence[Range]) -> int:
    """A tombstone for every part that is missing. Returns the count of numbers."""
    header, lost = batch.header, batch.lost
    assert lost is not None
    if missing:
        stones = sheets.tombstones(stream_id, header, missing, lost)
        _add(connection, "tombstone", sheets.TOMBSTONE_NAMES, stones)
        summary = sheets.summaries(stream_id, header.first, header.last, lost)
        _add(connection, "summary", sheets.SUMMARY_NAMES, summary)
    return ranges.count(tuple(missing))


def _write(
    connection: apsw.Connection, batch: Batch, sheet: Sheet, missing: Sequence[Range], ids: tuple[int, int]
) -> int:
    """Rows into their table, those that it cannot take aside. Returns how many were set aside."""
    first, rows = batch.header.first, batch.rows
    assert rows is not None
    stream_id, gateway_id = ids
    connection.executemany(_NEW_CONTEXT, sheet.contexts)
    written = list(sheet.rows(stream_id, first, missing))
    refused = _insert_what_fits(connection, sheet, written)
    refused |= {first + place: reason for place, reason in sheet.bad.items()}
    aside = [
        (stream_id, seq, refused[seq], sheets.raw_row(rows, seq - first))
        for seq in sorted(refused)
        if any(low <= seq <= high for low, high in missing)
    ]
    _add(connection, "quarantine", ("stream_id", "seq", "reason", "raw"), aside)
    kept = written if not refused else [row for row in written if row[1] not in refused]
    _add(connection, "clock", sheets.CLOCK_NAMES, sheets.clocks(rows, gateway_id, kept))
    return len(aside)


def _insert_what_fits(connection: apsw.Connection, sheet: Sheet, rows: list[Row]) -> dict[int, str]:
    """Numbers of the rows that SQLite refused, and why: all at once, and one by one only when that fails."""
    names = (*sheets.KEY, *sheet.names)
    try:
        with connection:  # a savepoint
            _insert(connection, sheet.table, names, rows)
        return {}
    except ROW_REFUSED:
        pass
    refused = {}
    for row in rows:
        try:
            _insert(connection, sheet.table, names, [row])
        except ROW_REFUSED as error:
            refused[row[1]] = f"refused: {type(error).__name__}"
    return refused


def _add(connection: apsw.Connection, table: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Rows beside the large tables. One that is there already, by some accident, must not stop the batch."""
    connection.executemany(_inserting(table, names) + " ON CONFLICT DO NOTHING", rows)


def _insert(connection: apsw.Connection, table: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    connection.executemany(_inserting(table, names), rows)


def _inserting(table: str, names: Sequence[str]) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608  # our own names
