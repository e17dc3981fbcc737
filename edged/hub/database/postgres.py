"""Rows in PostgreSQL: one transaction per batch, binary COPY into the table itself, what is home decided by ranges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from edged.hub.database import settling, sheets
from edged.hub.database.postgres_schema import VERSION
from edged.hub.database.settling import Standing
from edged.hub.database.trouble import away, not_migrated, shown
from edged.hub.ports import StreamBooks
from edged.sync import ranges

if TYPE_CHECKING:
    from edged.hub.database.sheets import Row, Sheet
    from edged.hub.ports import Batch
    from edged.sync.protocol import Ack, Hello, HelloAck, Range

TIMEOUT_S = 15.0  # of a statement; a gateway sends again after 30 s without an answer
CONNECT_TIMEOUT_S = 5.0
COPY_TRIES_MAX = 2_000  # to find out which rows the server refuses; then the rest of a refused part is set aside whole
PG_EPOCH_MS = 946_684_800_000  # 2000-01-01

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)
ROW_REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    TypeError,
    ValueError,
    OverflowError,
)

_LOCK = """
SELECT s.id, s.gateway_id, s.base, s.upto, s.ranges::text AS beyond, s.tombstoned, s.quarantined,
       (SELECT id::text FROM receiver) AS receiver
FROM stream s JOIN gateway g ON g.id = s.gateway_id
WHERE g.site = $1 AND g.gateway = $2 AND s.epoch = $3 AND s.stream = $4
FOR UPDATE OF s
"""
_NEW_GATEWAY = "INSERT INTO gateway (site, gateway) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_NEW_STREAM = """
INSERT INTO stream (gateway_id, epoch, stream, base, upto, newest, announced)
SELECT id, $3, $4, $5::bigint, $5::bigint - 1, $5::bigint - 1, $6 FROM gateway WHERE site = $1 AND gateway = $2
ON CONFLICT DO NOTHING
"""
_ANNOUNCE = """
UPDATE stream s SET announced = $5 FROM gateway g
WHERE g.id = s.gateway_id AND g.site = $1 AND g.gateway = $2 AND s.epoch = $3 AND s.stream = $4 AND s.announced < $5
"""
_SETTLE = """
UPDATE stream SET base = $2, upto = $3, ranges = $4, newest = $5, rows = rows + $6, tombstoned = tombstoned + $7,
       quarantined = quarantined + $8, late = late + $9, batches = batches + 1, updated_at = now()
WHERE id = $1
"""
_LATE = """
SELECT coalesce(sum(least(last, $3) - greatest(first, $2) + 1), 0)::bigint
FROM tombstone WHERE stream_id = $1 AND first <= $3 AND last >= $2
"""
_BAD = """
SELECT seq, reason FROM quarantine WHERE stream_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4
"""
_NEW_CONTEXT = "INSERT INTO context VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING"
_STREAMS = """
SELECT s.epoch, s.stream, s.base, s.upto, s.ranges::text
FROM stream s JOIN gateway g ON g.id = s.gateway_id WHERE g.site = $1 AND g.gateway = $2 ORDER BY s.id DESC LIMIT $3
"""
_MISMATCHES = """
SELECT p.epoch, p.seq
FROM unnest($3::text[], $4::bigint[], $5::text[], $6::bigint[]) AS p (epoch, seq, boot, mono_ns)
JOIN gateway g ON g.site = $1 AND g.gateway = $2
JOIN stream s ON s.gateway_id = g.id AND s.epoch = p.epoch AND s.stream = 'result'
JOIN result r ON r.stream_id = s.id AND r.seq = p.seq
JOIN context c ON c.id = r.context_id
WHERE c.boot <> p.boot OR r.mono_ns <> p.mono_ns
"""
_BOOKS = """
SELECT site, gateway, epoch, stream, rows, tombstoned, quarantined, missing FROM ledger
ORDER BY site, gateway, epoch, stream
"""


async def prepare(connection: Any) -> None:
    """Times travel as Unix ms: a `datetime` per row costs more than the rest of the row, and ends with year 9999."""
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda ms: ((ms - PG_EPOCH_MS) * 1000,),
        decoder=lambda found: found[0] // 1000 + PG_EPOCH_MS,
    )


def server_settings(timeout_s: float) -> dict[str, str]:
    """What a connection needs whatever the server's configuration says: durable, and never holding a lock for long."""
    return {
        "application_name": "edged-hub",
        "synchronous_commit": "on",
        "statement_timeout": f"{int(timeout_s * 1000)}",
        "idle_in_transaction_session_timeout": f"{int(timeout_s * 2000)}",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "timezone": "UTC",
    }


async def open_postgres(url: str, *, connections: int = 2, timeout_s: float = TIMEOUT_S) -> PostgresDatabase:
    """Raises `DatabaseAway`, or `DatabaseUnfit` for a schema of another version."""
    pool: Any = None
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=connections,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=timeout_s + 2,  # the server's own limit says more; this one is for a server that is gone
            server_settings=server_settings(timeout_s),
            init=prepare,
            reset=_nothing_to_reset,
        )
        async with pool.acquire(timeout=timeout_s) as connection:
            found = await schema_version(connection)
            if found != VERSION:
                raise not_migrated(found, VERSION)
            receiver = await connection.fetchval("SELECT id::text FROM receiver")
    except BaseException as error:
        if pool is not None:
            pool.terminate()
        if isinstance(error, AWAY):
            raise away(f"opening {shown(url)}", error) from error
        raise
    return PostgresDatabase(pool, receiver, timeout_s)


async def schema_version(connection: Any) -> int:
    """0 for a database without our tables."""
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_version"))


async def _nothing_to_reset(_connection: Any) -> None:
    """Nothing is ever set on a connection: one round trip less per batch."""


class PostgresDatabase:
    """Implements `edged.hub.ports.Database`."""

    def __init__(self, pool: Any, receiver: str, timeout_s: float) -> None:
        self._pool = pool
        self._receiver = receiver
        self._timeout_s = timeout_s

    @property
    def receiver(self) -> str:
        return self._receiver

    async def commit(self, batch: Batch) -> Ack:
        header = batch.header
        n = None if batch.rows is None else sheets.count(batch.rows) or 0
        if reason := settling.unusable(header, n):
            return settling.ack(header, self._receiver, "reject", reason=reason)
        sheet = None if batch.rows is None else await asyncio.to_thread(sheets.sheet, batch.rows)
        doing = f"committing {header.stream} {header.first}-{header.last} of {header.site}/{header.gateway}"
        async with self._connection(doing) as connection, _transaction(connection):
            return await _Commit(connection, batch, sheet).run()

    async def hello(self, hello: Hello) -> HelloAck:
        if reason := settling.unusable_hello(hello):
            return settling.hello_refused(hello, self._receiver, reason)
        who = hello.site, hello.gateway
        async with self._connection(f"looking up what is home of {hello.site}/{hello.gateway}") as connection:
            streams = await connection.fetch(_STREAMS, *who, settling.CURSORS_MAX)
            probes = [(probe.epoch, probe.seq, probe.boot, probe.mono_ns) for probe in hello.probes]
            mismatches = await connection.fetch(_MISMATCHES, *who, *zip(*probes, strict=True)) if probes else []
            if not settling.parted(hello, map(tuple, streams), map(tuple, mismatches)):
                await _announce(connection, hello)
                streams = await connection.fetch(_STREAMS, *who, settling.CURSORS_MAX)
            self._receiver = await connection.fetchval("SELECT id::text FROM receiver")
        return settling.hello_ack(hello, self._receiver, map(tuple, streams), map(tuple, mismatches))

    async def books(self) -> list[StreamBooks]:
        async with self._connection("reading the ledger") as connection:
            return [StreamBooks(*row) for row in await connection.fetch(_BOOKS)]

    async def close(self) -> None:
        """Waits for what is in hand, but not for a server that does not answer."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pool.close()
        except AWAY:
            self._pool.terminate()

    @asynccontextmanager
    async def _connection(self, doing: str) -> AsyncIterator[Any]:
        """A connection of the pool. One that failed in any way is not used again: nobody knows what it still does."""
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                try:
                    yield connection
                except BaseException:
                    connection.terminate()
                    raise
        except AWAY as error:
            raise away(doing, error, hint=_hint(error)) from error


@asynccontextmanager
async def _transaction(connection: Any) -> AsyncIterator[None]:
    """After a failure nothing is rolled back: the connection ends, and a server that hangs is not asked once more."""
    transaction = connection.transaction(isolation="read_committed")
    await transaction.start()
    yield
    await transaction.commit()


async def _announce(connection: Any, hello: Hello) -> None:
    """What the gateway has made is expected from now on."""
    who = hello.site, hello.gateway
    async with _transaction(connection):
        await connection.execute(_NEW_GATEWAY, *who)
        for extent in sorted(hello.extents, key=lambda extent: (extent.epoch, extent.stream)):
            made = extent.next - 1
            await connection.execute(_NEW_STREAM, *who, extent.epoch, extent.stream, extent.base, made)
            await connection.execute(_ANNOUNCE, *who, extent.epoch, extent.stream, made)


def _hint(error: BaseException) -> str:
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return "edged-hub migrate"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return "grant this user the rights on the tables, or make it their owner"
    return ""


class _Stream(NamedTuple):
    """The locked row."""

    id: int
    gateway_id: int
    books: Standing
    tombstoned: int
    quarantined: int
    receiver: str


class _Commit:
    """One batch within its transaction."""

    def __init__(self, connection: Any, batch: Batch, sheet: Sheet | None) -> None:
        self._connection = connection
        self._batch = batch
        self._sheet = sheet

    async def run(self) -> Ack:
        header = self._batch.header
        stream = await self._lock()
        books = settling.rebased(stream.books, header.base)
        missing = ranges.missing(books.home, header.first, header.last)
        after = settling.added(books, header.first, header.last)
        if settling.scattered(after):
            retry_ms = settling.BUSY_RETRY_MS
            return settling.ack(header, stream.receiver, "retry", reason="busy", retry_ms=retry_ms)
        count = ranges.count(tuple(missing))
        buried = aside = late = 0
        if self._sheet is None:
            buried = await self._bury(stream, missing)
        else:
            aside = await self._write(stream, missing) if missing else 0
            if stream.tombstoned and count < self._sheet.n:
                late = await self._connection.fetchval(_LATE, stream.id, header.first, header.last)
        if late or after != stream.books:
            place = after.base, after.upto, settling.beyond_text(after), after.newest
            await self._connection.execute(_SETTLE, stream.id, *place, count - buried - aside, buried, aside, late)
        bad: list[Any] = []
        if stream.quarantined or aside:
            bad = await self._connection.fetch(_BAD, stream.id, header.first, header.last, settling.BAD_NAMED_MAX)
        return settling.ack(header, stream.receiver, books=after, bad=((seq, reason) for seq, reason in bad))

    async def _lock(self) -> _Stream:
        header = self._batch.header
        who = header.site, header.gateway
        row = await self._connection.fetchrow(_LOCK, *who, header.epoch, header.stream)
        if row is None:
            await self._connection.execute(_NEW_GATEWAY, *who)
            await self._connection.execute(_NEW_STREAM, *who, header.epoch, header.stream, header.base, 0)
            row = await self._connection.fetchrow(_LOCK, *who, header.epoch, header.stream)
        stream_id, gateway_id, base, upto, beyond, tombstoned, quarantined, receiver = row
        books = settling.standing(base, upto, beyond)
        return _Stream(stream_id, gateway_id, books, tombstoned, quarantined, receiver)

    # --- rows ---

    async def _write(self, stream: _Stream, missing: Sequence[Range]) -> int:
        """Rows into their table, those that it cannot take aside. Returns how many were set aside."""
        sheet, header, rows = self._sheet, self._batch.header, self._batch.rows
        assert sheet is not None
        assert rows is not None
        if sheet.contexts:
            await self._connection.executemany(_NEW_CONTEXT, sorted(sheet.contexts))
        written = list(sheet.rows(stream.id, header.first, missing))
        refused = await self._copy_what_fits(sheet, written)
        for place, reason in sheet.bad.items():
            refused[header.first + place] = reason
        aside = [
            (stream.id, seq, refused[seq], sheets.raw_row(rows, seq - header.first))
            for seq in sorted(refused)
            if any(low <= seq <= high for low, high in missing)
        ]
        await self._add("quarantine", ("stream_id", "seq", "reason", "raw"), aside)
        kept = written if not refused else [row for row in written if row[1] not in refused]
        await self._add("clock", sheets.CLOCK_NAMES, sheets.clocks(rows, stream.gateway_id, kept))
        return len(aside)

    async def _copy_what_fits(self, sheet: Sheet, rows: list[Row]) -> dict[int, str]:
        """Numbers of the rows that the server refused, and why. Found by halves, since its message does not tell."""
        refused: dict[int, str] = {}
        waiting, tries = [rows], 0
        while waiting:
            part, tries = waiting.pop(), tries + 1
            if not part:
                continue
            savepoint = self._connection.transaction()
            await savepoint.start()
            try:
                await self._copy(sheet.table, (*sheets.KEY, *sheet.names), part)
                await savepoint.commit()
            except ROW_REFUSED as error:
                await savepoint.rollback()
                if len(part) == 1 or tries > COPY_TRIES_MAX:
                    refused |= dict.fromkeys((row[1] for row in part), f"refused: {type(error).__name__}")
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
        return refused

    async def _copy(self, table: str, names: Sequence[str], rows: Sequence[Row]) -> None:
        await self._connection.copy_records_to_table(table, records=rows, columns=names)

    async def _add(self, table: str, names: Sequence[str], rows: Sequence[Row]) -> None:
        """Few rows, beside the large tables. One that is there already, by some accident, must not stop the batch."""
        places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
        query = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608
        if rows:
            await self._connection.executemany(query, rows)

    # --- what has no rows any more ---

    async def _bury(self, stream: _Stream, missing: Sequence[Range]) -> int:
        """A tombstone for every part that is missing. Returns the count of numbers."""
        header, lost = self._batch.header, self._batch.lost
        assert lost is not None
        if missing:
            rows = sheets.tombstones(stream.id, header, missing, lost)
            await self._add("tombstone", sheets.TOMBSTONE_NAMES, rows)
            summary = sheets.summaries(stream.id, header.first, header.last, lost)
            await self._add("summary", sheets.SUMMARY_NAMES, summary)
        return ranges.count(tuple(missing))
