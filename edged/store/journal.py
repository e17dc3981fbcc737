"""The durable log of units over SQLite: numbers on the loop, transactions in the writer, reads in the reader."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from edged.errors import BugError
from edged.ports import Committed
from edged.store import lookup
from edged.store.segment import Packer, Segment, counts
from edged.store.writer import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

    from edged.messages import Unit
    from edged.ports import StoredEvents, StoredNotices, StoredResults
    from edged.store.reader import Reader
    from edged.store.values import Recovered
    from edged.store.writer import Writer

IN_FLIGHT_LIMIT = 8  # units; more would only hide that the disk is slow
CLOSE_PATIENCE_S = 5.0


class SqliteJournal:
    """Implements `edged.ports.Journal`."""

    def __init__(self, recovered: Recovered, writer: Writer, reader: Reader, loop: asyncio.AbstractEventLoop) -> None:
        self._epoch = recovered.epoch
        self._next_event = recovered.next_event
        self._next_result = recovered.next_result
        self._next_batch = recovered.next_batch
        self._writer = writer
        self._reader = reader
        self._loop = loop
        self._packer = Packer()  # used in the writer thread only
        self._in_flight = 0

    @property
    def epoch(self) -> str:
        return self._epoch

    def submit(self, unit: Unit, done: Callable[[Committed], None]) -> None:
        """Commit `unit` (not to be changed from now on); `done` runs on the loop once it is durable.

        Raises `BugError` when its numbers do not follow the last unit's, or too many units are in flight.
        """
        n_events, n_results, n_notices = counts(unit)
        if n_events and unit.event_first != self._next_event:
            raise BugError(f"event seq must be dense: expected {self._next_event}, got {unit.event_first}")
        if n_results and unit.result_first != self._next_result:
            raise BugError(f"result seq must be dense: expected {self._next_result}, got {unit.result_first}")
        if self._in_flight >= IN_FLIGHT_LIMIT:
            raise BugError(f"{self._in_flight} units in flight, limit {IN_FLIGHT_LIMIT}")
        numbers = (self._next_batch, self._next_event, n_events, self._next_result, n_results, n_notices)
        self._next_batch += 1
        self._next_event += n_events
        self._next_result += n_results
        self._in_flight += 1
        self._writer.submit(
            Job(partial(self._packer.segment, unit), partial(_insert, numbers, unit), partial(self._committed, done))
        )

    async def read_results(self, first_seq: int, limit: int) -> list[StoredResults]:
        return await self._reader.read(lambda c, u: lookup.results_from(c, u, first_seq, limit))

    async def read_events(self, first_seq: int, limit: int) -> list[StoredEvents]:
        return await self._reader.read(lambda c, u: lookup.events_from(c, u, first_seq, limit))

    async def read_notices(self, after_batch: int, limit: int) -> list[StoredNotices]:
        return await self._reader.read(lambda c, u: lookup.notices_after(c, u, after_batch, limit))

    async def save_snapshot(self, event_seq: int, blob: bytes) -> None:
        await self._write(partial(self._packer.pack_bytes, blob), partial(_put_snapshot, event_seq))

    async def save_meta(self, meta: bytes) -> None:
        await self._write(partial(self._packer.pack_bytes, meta), _put_meta)

    async def close(self) -> None:
        """Finish what is in flight, bring the WAL home, close. Idempotent."""
        await self._loop.run_in_executor(None, self._stop)

    def _stop(self) -> None:
        self._reader.stop()
        self._writer.stop(CLOSE_PATIENCE_S)

    async def _write(self, encode: Callable[[], bytes], apply: Callable[[apsw.Connection, bytes], None]) -> None:
        answer: asyncio.Future[None] = self._loop.create_future()

        def done(_result: object, _took_us: int) -> None:
            if not answer.done():  # the one who asked may have gone away; the transaction stands
                answer.set_result(None)

        self._writer.submit(Job(encode, apply, done))
        await answer

    def _committed(self, done: Callable[[Committed], None], result: Committed, took_us: int) -> None:
        self._in_flight -= 1
        done(result._replace(commit_us=took_us))


def _insert(numbers: tuple[int, ...], unit: Unit, connection: apsw.Connection, segment: Segment) -> Committed:
    connection.execute(
        "INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            *numbers, unit.arrival_wall_ms, unit.arrival_mono_ns, unit.boot, unit.clock,
            segment.meta, segment.notices, segment.results, segment.events,
        ),
    )  # fmt: skip
    return Committed(numbers[0], 0, 0, 0, 0, 0)


def _put_snapshot(event_seq: int, connection: apsw.Connection, packed: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (event_seq, packed))


def _put_meta(connection: apsw.Connection, packed: bytes) -> None:
    connection.execute("UPDATE journal SET meta = ? WHERE batch = (SELECT max(batch) FROM journal)", (packed,))
