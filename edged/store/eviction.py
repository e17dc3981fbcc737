"""Giving up what matters least, inside the transaction that needs the room; what was lost leaves a tombstone.

The classes, in their order (docs/adr/0014): rows that nobody needs; raw events of answered rows; results, oldest first,
which leave a summary; the surroundings of alarms; summaries. A commit takes one bite of bounded size and makes a little
more room than it needs, so that not every commit has to. Hands remember where each class goes on, so that nothing is
counted through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from edged.errors import StoreCorrupt
from edged.store import lookup, marks, records, tombstones
from edged.store.freedom import FreeRows, Numbered
from edged.store.losses import Losses
from edged.store.protection import Protection
from edged.store.segment import Unpacker
from edged.store.summary import Summary
from edged.store.tombstones import REASON_BUDGET, REASON_FREED, Graveyard, bury

if TYPE_CHECKING:
    import apsw

    from edged.messages import EventColumns, ResultColumns, Unit
    from edged.ports import Clock
    from edged.store.budget import Limits
    from edged.store.cursors import Cursors
    from edged.store.segment import Packer

T = TypeVar("T")

EVICT_ROWS_MAX = 256  # per commit: a commit's time stays bounded, the next commit continues
EVICT_ENTRIES_MAX = 4_000  # results and events decoded per commit
EVICT_NS = 8_000_000  # a bite that takes longer is over
STRIP_ROWS_MAX = 96  # of these rows, so many may be only stripped: small ones free little
CHUNK_ROWS = 32
SPARE_SHARE = 16  # of the file, at most, is given up beyond the need: it may be small when others fill the disk

_VICTIMS = """
SELECT batch, event_first, event_n, result_first, result_n, notice_n,
    length(meta) + ifnull(length(notices), 0) + ifnull(length(results), 0) + ifnull(length(events), 0)
FROM journal WHERE batch >= ? AND batch <= ? ORDER BY batch LIMIT ?
"""
_STRIPPABLE = """
SELECT batch, event_first, event_n, result_first, result_n, notice_n, ifnull(length(events), 0)
FROM journal WHERE batch >= ? AND batch <= ? ORDER BY batch LIMIT ?
"""
_FRONT = "SELECT batch, event_first, result_first FROM journal ORDER BY batch LIMIT 1"


class Evicted(NamedTuple):
    rows: int = 0
    events: int = 0
    results: int = 0
    unsent_results: int = 0
    result_upto: int = 0
    result_last: int = 0


class Bite:
    """One commit's share of the work: what it needs, what it has, when it is over.

    spare_bytes: made beyond the need, so that not every commit has to; neither alarms nor summaries go for it.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        need_bytes: int,
        spare_bytes: int,
        page_bytes: int,
        clock: Clock,
        newest: int,
    ) -> None:
        self.connection = connection
        self.newest = newest
        self.rows = 0
        self.entries = 0
        self._need_bytes = need_bytes
        self._spare_bytes = spare_bytes
        self._page_bytes = page_bytes
        self._free_before = int(connection.pragma("freelist_count"))
        self._clock = clock
        self._until_ns = clock.mono_ns() + EVICT_NS

    @property
    def missing_bytes(self) -> int:
        """Rows share pages with their neighbours, so that only the file itself knows what came free."""
        came_free = int(self.connection.pragma("freelist_count")) - self._free_before
        return self._need_bytes + self._spare_bytes - came_free * self._page_bytes

    @property
    def is_short(self) -> bool:
        """Whether even what is needed now is missing."""
        return self.missing_bytes > self._spare_bytes

    def goes_on(self, rows_max: int = EVICT_ROWS_MAX) -> bool:
        return (
            self.rows < rows_max
            and self.entries < EVICT_ENTRIES_MAX
            and self.missing_bytes > 0
            and self._clock.mono_ns() < self._until_ns
        )

    def chosen(self, query: str, first: int, last: int, limit: int) -> list[Numbered]:
        """The next rows of first..last, as many as may do."""
        rows: list[Numbered] = []
        wanted = self.missing_bytes
        cursor = self.connection.execute(query, (first, last, min(CHUNK_ROWS, limit - self.rows)))
        for *numbers, size in cursor:
            if wanted <= 0:
                break
            rows.append(Numbered(*numbers))
            wanted -= size
        return rows


class Retention:
    """Runs in the writer thread, inside its transactions. What it remembers follows from the tables."""

    def __init__(self, limits: Limits, surroundings_s: float, clock: Clock, cursors: Cursors, packer: Packer) -> None:
        self._limits = limits
        self._clock = clock
        self._cursors = cursors
        self._unpacker = Unpacker()
        self.free = FreeRows(cursors, self._unpacker)
        self.graves = Graveyard(cursors, packer, self._unpacker, limits.budget_bytes)
        self.protection = Protection(surroundings_s, limits.protected_bytes)
        self._loaded = False
        self._strip_from = self._drop_from = 0

    def reset(self) -> None:
        """A transaction was rolled back: look everything up again."""
        self._loaded = False
        self.free.reset()

    def load(self, connection: apsw.Connection) -> None:
        """Find the places to go on from, unless they are known."""
        if self._loaded:
            return
        self.graves.load(connection)
        self.protection.load(connection)
        self._strip_from = marks.number(connection, marks.STRIP_FROM)
        self._drop_from = marks.number(connection, marks.DROP_FROM)
        snapshot = connection.execute("SELECT event_seq FROM snapshot").fetchone()
        self._cursors.folded = snapshot[0] if snapshot else 0
        self._loaded = True

    # --- as units come ---

    def note(self, connection: apsw.Connection, batch: int, unit: Unit, row_bytes: int) -> None:
        """A unit was stored."""
        numbers = records.numbers(unit.notices) if unit.notices else {}
        if numbers:
            records.note(connection, batch, numbers)
        self.protection.note(connection, batch, unit, alarm="alarm" in numbers, row_bytes=row_bytes)
        if self.protection.is_over():
            self._unprotect(connection)

    def _unprotect(self, connection: apsw.Connection) -> bool:
        """Let the oldest surroundings of an alarm go."""
        first = self.protection.drop_oldest(connection)
        if first is None:
            return False
        self._move_hands(connection, min(self._strip_from, first), min(self._drop_from, first))
        return True

    def _move_hands(self, connection: apsw.Connection, strip_from: int, drop_from: int) -> None:
        if strip_from != self._strip_from:
            marks.put(connection, marks.STRIP_FROM, strip_from)
        if drop_from != self._drop_from:
            marks.put(connection, marks.DROP_FROM, drop_from)
        self._strip_from, self._drop_from = strip_from, drop_from

    # --- when room is short ---

    def make_room(self, connection: apsw.Connection, missing_bytes: int) -> Evicted:
        """Free pages worth `missing_bytes` and some more, never the newest row, as far as one bite goes."""
        newest = connection.execute("SELECT max(batch) FROM journal").fetchone()
        if newest is None or newest[0] is None:
            return Evicted()
        page_bytes = self._limits.page_bytes
        spare_bytes = min(self._limits.slack_bytes, connection.pragma("page_count") * page_bytes // SPARE_SHARE)
        bite = Bite(connection, missing_bytes, spare_bytes, page_bytes, self._clock, newest[0])
        losses = self._losses(connection)
        while bite.goes_on() and self._take_free(bite, losses):
            pass
        while bite.goes_on(STRIP_ROWS_MAX) and self._strip(bite, losses):
            pass
        while bite.goes_on() and (self._give_up(bite, losses) or (bite.is_short and self._unprotect(connection))):
            pass
        while bite.goes_on() and bite.is_short and self.graves.drop_oldest_summary(connection):
            bite.rows += 1
        upto = self._book(connection, losses)
        return Evicted(
            bite.rows,
            losses.events,
            losses.results,
            losses.unsent_results,
            upto if losses.results else 0,
            losses.result_last,
        )

    def take_free(self, connection: apsw.Connection, limit: int) -> int:
        """Remove up to `limit` rows that nobody needs, without need; returns how many."""
        newest = connection.execute("SELECT max(batch) FROM journal").fetchone()
        rows = self.free.take(connection, newest[0], limit) if newest and newest[0] else []
        if rows:
            losses = self._losses(connection)
            self._remove(connection, rows, losses)
            self._book(connection, losses)
        return len(rows)

    def _take_free(self, bite: Bite, losses: Losses) -> bool:
        rows = self.free.take(bite.connection, bite.newest, CHUNK_ROWS)
        bite.rows += len(rows)
        self._remove(bite.connection, rows, losses)
        return bool(rows)

    def _strip(self, bite: Bite, losses: Losses) -> bool:
        """Take the raw events of the oldest answered rows; the rows stay."""
        connection = bite.connection
        first, last = self.protection.next_clear(connection, self._strip_from)
        rows = bite.chosen(_STRIPPABLE, first, min(last, bite.newest - 1), STRIP_ROWS_MAX)
        hand = min(first, bite.newest)  # surroundings that go on have no end yet
        for row in rows:
            if row.event_first + row.event_n - 1 > self._cursors.settled_events:
                break
            hand = row.batch + 1
            bite.rows += 1
            bite.entries += row.event_n
            if row.event_n:
                losses.events_of(row, self._events_reader(connection, row))
                connection.execute("UPDATE journal SET event_n = 0, events = NULL WHERE batch = ?", (row.batch,))
        if not rows and last < bite.newest - 1:
            hand = last + 1  # only surroundings of an alarm stand here
        moved = hand > self._strip_from
        self._move_hands(connection, hand, self._drop_from)
        return moved

    def _give_up(self, bite: Bite, losses: Losses) -> bool:
        """Take the oldest rows that are not protected, whatever they hold."""
        connection = bite.connection
        first, last = self.protection.next_clear(connection, self._drop_from)
        rows = bite.chosen(_VICTIMS, first, min(last, bite.newest - 1), EVICT_ROWS_MAX)
        bite.rows += len(rows)
        bite.entries += sum(row.result_n + row.event_n for row in rows)
        self._remove(connection, rows, losses)
        hand = rows[-1].batch + 1 if rows else min(last + 1, bite.newest)
        moved = hand > self._drop_from
        self._move_hands(connection, self._strip_from, max(hand, self._drop_from))
        return moved

    # --- what is to go home as a summary ---

    def summarize(self, connection: apsw.Connection, first: int, last: int, reason: str) -> None:
        """Tombstones with summaries for the results first..last that have none; their rows stay."""
        wall_ms = self._clock.wall_ms()
        for low, high in tombstones.uncovered(connection, "result", first, last):
            for begin, end in _within_epochs(low, high, self.graves.begins["result"]):
                summary = Summary()
                for group in lookup.results_from(connection, self._unpacker, begin, end - begin + 1):
                    count = min(len(group.columns.context), end + 1 - group.first_seq)
                    if count > 0:
                        summary.add_results(group.columns, 0, count)
                self.graves.bury(connection, "result", begin, end, reason, wall_ms, summary)

    # --- what going means ---

    def _losses(self, connection: apsw.Connection) -> Losses:
        return Losses(self._cursors, partial(tombstones.uncovered, connection), self.graves.begins)

    def _remove(self, connection: apsw.Connection, rows: list[Numbered], losses: Losses) -> None:
        for row in rows:
            losses.results_of(row, self._results_reader(connection, row))
            losses.events_of(row, self._events_reader(connection, row))
            if row.notice_n:
                self._lose_notices(connection, row, losses)
            connection.execute("DELETE FROM journal WHERE batch = ?", (row.batch,))

    def _lose_notices(self, connection: apsw.Connection, row: Numbered, losses: Losses) -> None:
        blob = connection.execute("SELECT notices FROM journal WHERE batch = ?", (row.batch,)).fetchone()
        try:
            notices = self._unpacker.notices(blob[0], row.notice_n) if blob else []
        except StoreCorrupt:
            notices = []  # which numbers they had is not known any more; the receiver is told that they are missing
        losses.notices_of(row.batch, notices)
        for stream, (first, _) in records.numbers(notices).items():
            records.forget(connection, stream, first)

    def _results_reader(self, connection: apsw.Connection, row: Numbered) -> _Reader[ResultColumns]:
        return _Reader(connection, "results", row.batch, row.result_n, self._unpacker.results)

    def _events_reader(self, connection: apsw.Connection, row: Numbered) -> _Reader[EventColumns]:
        return _Reader(connection, "events", row.batch, row.event_n, self._unpacker.events)

    def _book(self, connection: apsw.Connection, losses: Losses) -> int:
        """Write the tombstones; returns up to which result everything is gone."""
        wall_ms = self._clock.wall_ms()
        front = connection.execute(_FRONT).fetchone()
        assert front is not None  # the newest row always stays
        oldest = _oldest(connection, front)
        for run in losses.runs():
            if run.reason == REASON_FREED and run.last < oldest.get(run.stream, 0):
                continue  # nothing stands before it: no number is missing in the middle
            self.graves.bury(connection, run.stream, run.first, run.last, run.reason, wall_ms, run.summary)
        if losses.notices:
            first, last = losses.notice_batches
            bury(connection, "notice", first, last, losses.notices, REASON_BUDGET, wall_ms)
        self.protection.forget_before(connection, front[0])
        self.graves.tidy(connection, oldest)
        return int(front[2]) - 1

    def tidy(self, connection: apsw.Connection) -> None:
        """Tombstones and summaries, while there is nothing else to do."""
        front = connection.execute(_FRONT).fetchone()
        if front is not None:
            self.graves.tidy(connection, _oldest(connection, front))


def _within_epochs(first: int, last: int, begins: Collection[int]) -> Iterator[tuple[int, int]]:
    """first..last, parted where an epoch may begin."""
    for begin in sorted(each for each in begins if first < each <= last):
        yield first, begin - 1
        first = begin
    yield first, last


def _oldest(connection: apsw.Connection, front: tuple[int, ...]) -> dict[str, int]:
    """The first number that is stored, by stream. front: of the oldest row."""
    oldest = {"event": front[1], "result": front[2]}
    for stream in records.STREAMS:
        record = records.at_or_after(connection, stream, 0)
        if record is not None:
            oldest[stream] = record.first
    return oldest


class _Reader(Generic[T]):
    """Reads one blob of a row when it is asked for, once. None when it cannot be read: then only the count is kept."""

    def __init__(
        self, connection: apsw.Connection, column: str, batch: int, n: int, unpack: Callable[[bytes, int], T]
    ) -> None:
        self._connection = connection
        self._query = f"SELECT {column} FROM journal WHERE batch = ?"  # noqa: S608  one of two constants
        self._batch = batch
        self._n = n
        self._unpack = unpack
        self._asked = False
        self._columns: T | None = None

    def __call__(self) -> T | None:
        if not self._asked:
            self._asked = True
            row = self._connection.execute(self._query, (self._batch,)).fetchone()
            try:
                self._columns = self._unpack(row[0], self._n) if row else None
            except StoreCorrupt:
                pass  # giving it up must not end the process
        return self._columns
