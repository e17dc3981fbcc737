"""The durable log of units over SQLite: numbers on the loop, transactions in the writer, reads in the reader."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import apsw

from edged.errors import BugError, StoreError
from edged.store import examination, lookup, starts
from edged.store.budget import file_allowance
from edged.store.commit import Numbers
from edged.store.cursors import table_stream
from edged.store.forecast import forecast
from edged.store.segment import counts
from edged.store.values import COMMIT_US_BOUNDS, StoreStatistics
from edged.store.writer import Job
from edged.sync import ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from edged.messages import Notice, Unit
    from edged.ports import Committed, StoredEvents, StoredNotices, StoredResults
    from edged.store.commit import RowCommitter
    from edged.store.reader import Reader
    from edged.store.values import Recovered, RowSpan
    from edged.store.writer import Writer
    from edged.sync.protocol import Stream
    from edged.sync.ranges import Ranges

IN_FLIGHT_LIMIT = 8  # units; more would only hide that the disk is slow
TRIM_PAUSE = 3  # times what a step of trimming took: the writer belongs to the units
CLOSE_PATIENCE_S = 2.0  # for units that cannot be committed now: nobody was told that they are durable


T = TypeVar("T")


class SqliteJournal:
    """Implements `edged.ports.Journal`; made by `open_store`."""

    def __init__(
        self,
        recovered: Recovered,
        writer: Writer,
        reader: Reader,
        committer: RowCommitter,
        loop: asyncio.AbstractEventLoop,
        *,
        on_closed: Callable[[], None],
    ) -> None:
        self._epoch = recovered.epoch
        self._past_epochs = recovered.past_epochs
        self._next_event = recovered.next_event
        self._next_result = recovered.next_result
        self._next_batch = recovered.next_batch
        self._next_record = {"alarm": recovered.next_alarm, "health": recovered.next_health}
        self._outward: frozenset[Stream] = frozenset()
        self._trimming = False
        self._writer = writer
        self._reader = reader
        self._committer = committer
        self._loop = loop
        self._on_closed = on_closed
        self._closed = False
        self._in_flight = 0
        self._units = 0
        self._evicted_events = 0
        self._evicted_results = 0
        self._evicted_unsent_results = 0
        self._commit_us = [0] * (len(COMMIT_US_BOUNDS) + 1)
        self._commit_us_sum = 0

    @property
    def epoch(self) -> str:
        return self._epoch

    def epoch_of_result(self, seq: int) -> str:
        """The epoch that `seq` was made in: results salvaged from a damaged store keep their identity."""
        return next((past.epoch for past in self._past_epochs if seq <= past.last_result), self._epoch)

    @property
    def file_bytes(self) -> int:
        """Size of the database file when everything is home, as of the last commit."""
        return self._committer.usage.pages * self._committer.limits.page_bytes

    @property
    def delivered_upto(self) -> int:
        """Newest result seq that the broker has: older rows go first and without a tombstone. Set by the engine."""
        return self._committer.cursors.results

    @delivered_upto.setter
    def delivered_upto(self, seq: int) -> None:
        self._committer.cursors.results = seq

    @property
    def answered_upto(self) -> int:
        """Newest event seq up to which every event has its result or its counted reason. Set by the engine."""
        return self._committer.cursors.events

    @answered_upto.setter
    def answered_upto(self, seq: int) -> None:
        self._committer.cursors.events = seq

    @property
    def noticed_upto(self) -> int:
        """Newest batch whose notices the broker has. Set by the engine."""
        return self._committer.cursors.notice_batch

    @noticed_upto.setter
    def noticed_upto(self, batch: int) -> None:
        self._committer.cursors.notice_batch = batch

    @property
    def outward_streams(self) -> frozenset[Stream]:
        """Streams that must be home before their rows are free. Set by the engine, before the first unit."""
        return self._outward

    @outward_streams.setter
    def outward_streams(self, streams: frozenset[Stream]) -> None:
        self._outward = streams
        self._committer.cursors.outward = frozenset(table_stream(stream) for stream in streams)

    def set_synced(self, stream: Stream, home: Ranges) -> None:
        """Everything of `stream` that is home. Set by the engine; what it frees may go from now on."""
        self._committer.cursors.home = {**self._committer.cursors.home, table_stream(stream): home}
        self._committer.retention.graves.want_sweep()

    def submit(self, unit: Unit, done: Callable[[Committed], None]) -> None:
        """Commit `unit` (not to be changed from now on); `done` runs on the loop once it is durable.

        Raises `BugError` when its numbers do not follow the last unit's, or too many units are in flight.
        """
        n_events, n_results, n_notices = counts(unit)
        if n_events and unit.event_first != self._next_event:
            raise BugError(f"event seq must be dense: expected {self._next_event}, got {unit.event_first}")
        if n_results and unit.result_first != self._next_result:
            raise BugError(f"result seq must be dense: expected {self._next_result}, got {unit.result_first}")
        made = self._records_of(unit.notices) if unit.notices else {}
        if self._in_flight >= IN_FLIGHT_LIMIT:
            raise BugError(f"{self._in_flight} units in flight, limit {IN_FLIGHT_LIMIT}")
        if self._closed:
            raise BugError("a unit was submitted after the journal was closed")
        numbers = Numbers(self._next_batch, self._next_event, n_events, self._next_result, n_results, n_notices)
        self._next_batch += 1
        self._next_event += n_events
        self._next_result += n_results
        self._next_record.update(made)
        self._in_flight += 1
        self._writer.submit(
            Job(
                encode=partial(self._committer.encode, unit),
                apply=partial(self._committer.apply, numbers, unit),
                done=partial(self._committed, done),
            )
        )

    async def read_results(self, first_seq: int, limit: int) -> list[StoredResults]:
        self._require_open()
        return await self._reader.read(lambda c, u: lookup.results_from(c, u, first_seq, limit))

    async def read_events(self, first_seq: int, limit: int) -> list[StoredEvents]:
        self._require_open()
        return await self._reader.read(lambda c, u: lookup.events_from(c, u, first_seq, limit))

    async def read_notices(self, after_batch: int, limit: int) -> list[StoredNotices]:
        self._require_open()
        return await self._reader.read(lambda c, u: lookup.notices_after(c, u, after_batch, limit))

    async def save_snapshot(self, event_seq: int, blob: bytes) -> None:
        def durable() -> None:
            self._committer.cursors.folded = event_seq

        await self._write(partial(self._committer.pack, blob), partial(_put_snapshot, event_seq), durable)

    async def save_meta(self, meta: bytes) -> None:
        await self._write(partial(self._committer.pack, meta), _put_meta)

    async def give_up(self, stream: Stream, first: int, last: int, reason: str) -> None:
        """A tombstone for numbers whose rows the receiver refuses. Their rows stay as long as others need them."""
        await self._write(
            bool, lambda connection, _: self._committer.give_up(connection, table_stream(stream), first, last, reason)
        )

    async def summarize(self, first: int, last: int, reason: str) -> None:
        """Results first..last go home as a summary by minute. Their rows stay as long as others need them."""
        await self._write(bool, lambda connection, _: self._committer.summarize(connection, first, last, reason))

    async def fork(self, first_result: int) -> str:
        """A new epoch from the start on that made `first_result`; returns it. The process must start again.

        Raises `StoreError` when no start is known there.
        """
        began: list[str] = []

        def apply(connection: apsw.Connection, _encoded: object) -> None:
            began[:] = [starts.fork(connection, first_result, self._committer.clock.wall_ms())]

        self._require_open()
        await self._reader.read(lambda c, _u: starts.place_of(c, first_result))
        await self._write(bool, apply)
        return began[0]

    def trim(self) -> None:
        """Remove rows that nobody needs beyond `keep_bytes` and give their space back, step by step, until it is done.

        Cheap when there is nothing to do; may be called at any time and as often as one likes.
        """
        usage = self._committer.usage
        if self._trimming or self._closed or self._writer.trouble:
            return
        if self._committer.trimmer.may_do(usage.pages, usage.free_pages):
            self._trimming = True
            self._writer.submit(Job(bool, self._committer.trim, self._trimmed))

    def _trimmed(self, more: bool, took_us: int) -> None:
        self._trimming = False
        self._committer.trimmer.took(took_us)
        if more:
            self._loop.call_later(TRIM_PAUSE * took_us / 1e6, self.trim)

    async def statistics(self) -> StoreStatistics:
        """Size, span, losses, room and counters; a few small reads in the reader thread."""
        self._require_open()
        (oldest, newest), losses = await self._reader.read(lambda c, _u: (lookup.span(c), lookup.losses(c)))
        usage, page_bytes = self._committer.usage, self._committer.limits.page_bytes
        unsent, share = self._unsent(oldest)
        live_bytes = (usage.pages - usage.free_pages) * page_bytes
        room_bytes = file_allowance(usage, self._committer.limits) - int(live_bytes * share)
        outlook = forecast(self._committer.sampled(), room_bytes)
        return StoreStatistics(
            units=self._units,
            oldest=oldest,
            newest=newest,
            file_bytes=self.file_bytes,
            free_bytes=usage.free_pages * page_bytes,
            wal_bytes=usage.wal_bytes,
            budget_bytes=self._committer.limits.budget_bytes,
            checkpoints=self._writer.checkpoints,
            evicted_events=self._evicted_events,
            evicted_results=self._evicted_results,
            evicted_unsent_results=self._evicted_unsent_results,
            commit_us=tuple(self._commit_us),
            commit_us_sum=self._commit_us_sum,
            trouble=self._writer.trouble,
            unsent=unsent,
            tombstones=losses.tombstones,
            summary_rows=losses.summary_rows,
            summary_bytes=losses.summary_bytes,
            protected_bytes=losses.protected_bytes,
            bytes_per_day=outlook.bytes_per_day,
            days_of_room=outlook.days_of_room,
        )

    def _unsent(self, oldest: RowSpan | None) -> tuple[dict[str, int], float]:
        """Numbers of each stream that wait to go home, and the part of the rows they are in, 0 to 1."""
        following = {**self._next_record, "result": self._next_result, "telemetry": self._next_event}
        cursors = self._committer.cursors
        unsent = {
            str(stream): ranges.count(tuple(cursors.not_home(table_stream(stream), 1, following[stream] - 1)))
            for stream in sorted(self._outward)
        }
        if not self._outward:
            unsent["result"] = max(0, self._next_result - 1 - cursors.results)
        firsts = {"result": oldest.result_first, "telemetry": oldest.event_first} if oldest else {}
        return unsent, max(
            (
                min(1.0, unsent[s] / (following[s] - first))
                for s, first in firsts.items()
                if s in unsent and following[s] > first
            ),
            default=0.0,
        )

    async def close(self) -> None:
        """Finish what is in flight, bring the WAL home, close, unlock. Idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._loop.run_in_executor(None, self._stop))

    def _require_open(self) -> None:
        if self._closed:  # the threads have ended: nobody would answer
            raise StoreError("using the store: it is closed")

    def _stop(self) -> None:
        self._reader.stop()
        self._writer.stop(CLOSE_PATIENCE_S, last=partial(examination.mark_open, is_open=False))
        self._on_closed()

    async def _write(
        self,
        encode: Callable[[], T],
        apply: Callable[[apsw.Connection, T], None],
        durable: Callable[[], None] = lambda: None,
    ) -> None:
        """Run `apply` in a transaction of its own. durable: on the loop, even if the one who asked has gone away."""
        self._require_open()
        answer: asyncio.Future[None] = self._loop.create_future()

        def done(_result: object, _took_us: int) -> None:
            durable()
            if not answer.done():  # the one who asked may have gone away; the transaction stands
                answer.set_result(None)

        self._writer.submit(Job(encode, apply, done))
        await answer

    def _records_of(self, notices: list[Notice]) -> dict[str, int]:
        """The numbers that come after those of these notices. Raises `BugError` where they are not dense."""
        made: dict[str, int] = {}
        for notice in notices:
            if notice.stream:
                expected = made.get(notice.stream, self._next_record[notice.stream])
                if notice.seq < expected or (notice.stream in made and notice.seq > expected):
                    raise BugError(f"{notice.stream} seq must be dense: expected {expected}, got {notice.seq}")
                made[notice.stream] = notice.seq + 1
        return made

    def _committed(self, done: Callable[[Committed], None], result: Committed, took_us: int) -> None:
        self._in_flight -= 1
        self._units += 1
        self._evicted_events += result.evicted_events
        self._evicted_results += result.evicted_results
        self._evicted_unsent_results += result.evicted_unsent_results
        self._commit_us[bisect_left(COMMIT_US_BOUNDS, took_us)] += 1
        self._commit_us_sum += took_us
        done(result._replace(commit_us=took_us))


def _put_snapshot(event_seq: int, connection: apsw.Connection, packed: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (event_seq, packed))


def _put_meta(connection: apsw.Connection, packed: bytes) -> None:
    connection.execute("UPDATE journal SET meta = ? WHERE batch = (SELECT max(batch) FROM journal)", (packed,))
