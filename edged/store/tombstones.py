"""Ranges of numbers that have no rows any more, why, and what is kept of them.

A tombstone and its summary are one thing and go home together. So whatever may be on its way is left as it is: the
oldest few of a stream that are not home, and what is home in part.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import StoreCorrupt
from edged.store.summary import HOUR_S, Summary
from edged.sync import ranges

if TYPE_CHECKING:
    import apsw

    from edged.store.cursors import Cursors
    from edged.store.segment import Packer, Unpacker
    from edged.sync.protocol import Range
    from edged.sync.ranges import Ranges

REASON_BUDGET = "budget"
REASON_DAMAGE = "damage"
REASON_FREED = "freed"
"""Nobody needed these rows any more; it only says why their numbers are missing in the middle of the journal."""

TOMBSTONES_MAX = 2000  # beyond, neighbours are merged
ON_THE_WAY = 8  # not home yet, oldest first: twice what is in flight at once
GROWS_BYTES = 8_192  # a summary up to this size takes more rows in: it is written again each time
SUMMARY_ROWS_MAX = 4_000  # of one tombstone: far below what one batch may carry
SWEEP_STEPS = 16  # tombstones looked at per call
SWEEP_BYTES = 65_536  # packed summaries handled per call
HOURS_STEPS = 4  # summaries turned into hours per call
SUMMARY_SHARE = 16  # minutes become hours when summaries take this part of the budget

_COLUMNS = "id, stream, first, last, n, reason, since_wall_ms"
_AT_OR_AFTER = f"SELECT {_COLUMNS} FROM tombstone WHERE stream = ? AND last >= ? ORDER BY last LIMIT 1"  # noqa: S608
_FROM = "SELECT first, last FROM tombstone WHERE stream = ? AND last >= ? ORDER BY last"
_BEGINS = "SELECT first_event, first_result FROM start UNION SELECT first_event, first_result FROM epoch"
_AFTER = f"SELECT {_COLUMNS} FROM tombstone WHERE (stream, last) > (?, ?) ORDER BY stream, last LIMIT ?"  # noqa: S608
_INSERT = "INSERT INTO tombstone(stream, first, last, n, reason, since_wall_ms) VALUES (?,?,?,?,?,?)"
_NTH_WAITING = "SELECT first FROM tombstone WHERE stream = ? AND last > ? ORDER BY last LIMIT 1 OFFSET ?"


class Tombstone(NamedTuple):
    id: int
    stream: str
    first: int
    last: int
    n: int
    reason: str
    since_wall_ms: int


def at_or_after(connection: apsw.Connection, stream: str, seq: int) -> Tombstone | None:
    """The tombstone that covers `seq`, or the next one behind it."""
    row = connection.execute(_AT_OR_AFTER, (stream, seq)).fetchone()
    return Tombstone(*row) if row else None


def upto(connection: apsw.Connection, stream: str) -> int:
    """The highest number of a stream that a tombstone stands for."""
    row = connection.execute("SELECT max(last) FROM tombstone WHERE stream = ?", (stream,)).fetchone()
    return row[0] if row and row[0] else 0


def covered(connection: apsw.Connection, stream: str, first: int, last: int) -> Ranges:
    """The parts of first..last that tombstones stand for."""
    found = takewhile(lambda span: span[0] <= last, connection.execute(_FROM, (stream, first)))
    return ranges.clip(ranges.normalise((low, high) for low, high in found), first, last)


def uncovered(connection: apsw.Connection, stream: str, first: int, last: int) -> list[Range]:
    """The parts of first..last that no tombstone stands for."""
    return ranges.missing(covered(connection, stream, first, last), first, last)


def bury(connection: apsw.Connection, stream: str, first: int, last: int, n: int, reason: str, wall_ms: int) -> None:
    """Write a tombstone for `first`..`last`, or lengthen the one of the same reason that ends just before."""
    before = at_or_after(connection, stream, first - 1)
    if before is not None and before.last == first - 1 and before.reason == reason:
        connection.execute("UPDATE tombstone SET last = ?, n = n + ? WHERE id = ?", (last, n, before.id))
    else:
        connection.execute(_INSERT, (stream, first, last, n, reason, wall_ms))


class Graveyard:
    """Writes and tidies tombstones with their summaries, in the writer thread, inside its transactions.

    Counts and places are found out anew by `load`, which a rolled-back transaction makes necessary.
    """

    def __init__(self, cursors: Cursors, packer: Packer, unpacker: Unpacker, budget_bytes: int) -> None:
        self.count = 0
        self.summary_bytes = 0
        self.begins: dict[str, frozenset[int]] = {}
        """Numbers that starts began with, by stream. An epoch may begin there: no summary tells of both sides."""
        self._cursors = cursors
        self._packer = packer
        self._unpacker = unpacker
        self._summary_limit = budget_bytes // SUMMARY_SHARE
        self._hours_from = 0
        self._place = ("", 0)
        self._rounds = 2

    @property
    def sweep_wanted(self) -> bool:
        """What is home has changed: summaries may have done their service."""
        return self._rounds > 0

    def want_sweep(self) -> None:
        """Look at every tombstone once more. Called on the loop; a round lost to the other thread is no loss."""
        if self.count:
            self._rounds = 2  # the round under way, and a whole one

    def load(self, connection: apsw.Connection) -> None:
        counted = connection.execute("SELECT count(*) FROM tombstone").fetchone()
        weighed = connection.execute("SELECT total(length(data)) FROM aggregate").fetchone()
        self.count = int(counted[0]) if counted else 0
        self.summary_bytes = int(weighed[0]) if weighed else 0
        events, results = zip(*connection.execute(_BEGINS), strict=True)
        self.begins = {"event": frozenset(events), "result": frozenset(results)}

    # --- writing ---

    def bury(
        self,
        connection: apsw.Connection,
        stream: str,
        first: int,
        last: int,
        reason: str,
        wall_ms: int,
        summary: Summary | None = None,
    ) -> None:
        """A tombstone for the parts of first..last that have none; the first of them takes the summary."""
        for low, high in uncovered(connection, stream, first, last):
            self._bury(connection, stream, low, high, reason, wall_ms, summary)
            summary = None

    def _bury(
        self,
        connection: apsw.Connection,
        stream: str,
        first: int,
        last: int,
        reason: str,
        wall_ms: int,
        summary: Summary | None,
    ) -> None:
        n = last - first + 1
        before = at_or_after(connection, stream, first - 1)
        if before is not None and before.last == first - 1 and before.reason == reason:
            grown = self._grown(connection, before, last, summary)
            if grown is not None:
                connection.execute("UPDATE tombstone SET last = ?, n = n + ? WHERE id = ?", (last, n, before.id))
                self._keep(connection, before.id, grown)
                return
        connection.execute(_INSERT, (stream, first, last, n, reason, wall_ms))
        self.count += 1
        if summary is not None and len(summary):
            self._keep(connection, connection.last_insert_rowid(), summary)

    def _grown(self, connection: apsw.Connection, before: Tombstone, last: int, more: Summary | None) -> Summary | None:
        """The summary of a tombstone that grows up to `last`, with `more` in it; None when it should not grow.

        A summary tells of all the numbers of its tombstone, or there is none.
        """
        first = before.last + 1
        if first in self.begins.get(before.stream, ()) or not self._rests(connection, before._replace(last=last)):
            return None
        row = connection.execute(
            "SELECT interval_s, length(data) FROM aggregate WHERE tombstone = ?", (before.id,)
        ).fetchone()
        if row is None:
            return None if more else Summary()
        if not more or row[0] != more.interval_s or row[1] > GROWS_BYTES:
            return None
        return self._with(connection, before.id, more)

    def _rests(self, connection: apsw.Connection, tombstone: Tombstone) -> bool:
        """Whether nothing of it is home and it is not on its way, so that it may still change."""
        if tombstone.stream not in self._cursors.outward or tombstone.reason == REASON_FREED:
            return True
        home = self._cursors.home.get(tombstone.stream, ())
        if ranges.clip(home, tombstone.first, tombstone.last):
            return False
        home_upto, _ = ranges.contiguous(home, 1)
        row = connection.execute(_NTH_WAITING, (tombstone.stream, home_upto, ON_THE_WAY)).fetchone()
        return row is not None and bool(tombstone.first >= row[0])

    # --- summaries ---

    def _keep(self, connection: apsw.Connection, tombstone: int, summary: Summary) -> None:
        """Store a summary in place of what was there; an empty one changes nothing."""
        if not len(summary):
            return
        self._drop(connection, tombstone)
        data = self._packer.pack(summary.rows())
        connection.execute(
            "INSERT INTO aggregate VALUES (?,?,?,?)", (tombstone, summary.interval_s, len(summary), data)
        )
        self.summary_bytes += len(data)

    def _drop(self, connection: apsw.Connection, tombstone: int) -> None:
        row = connection.execute("SELECT length(data) FROM aggregate WHERE tombstone = ?", (tombstone,)).fetchone()
        if row is not None:
            connection.execute("DELETE FROM aggregate WHERE tombstone = ?", (tombstone,))
            self.summary_bytes -= row[0]

    def _with(self, connection: apsw.Connection, tombstone: int, summary: Summary) -> Summary:
        """`summary` with the rows of the tombstone's own; what cannot be read is left out."""
        row = connection.execute("SELECT n, data FROM aggregate WHERE tombstone = ?", (tombstone,)).fetchone()
        if row is not None:
            try:
                summary.add_rows(self._unpacker.summary(row[1], row[0]))
            except StoreCorrupt:
                pass  # the count stands in the tombstone; a damaged summary must not stop the daemon
        return summary

    def drop_oldest_summary(self, connection: apsw.Connection) -> bool:
        """The last thing there is to give up; False when there is none."""
        row = connection.execute("SELECT min(tombstone) FROM aggregate").fetchone()
        if row is None or row[0] is None:
            return False
        self._drop(connection, row[0])
        return True

    # --- tidying ---

    def tidy(self, connection: apsw.Connection, oldest: dict[str, int]) -> None:
        """A little of what keeps tombstones few and summaries small. oldest: first number stored, by stream."""
        if self.summary_bytes > self._summary_limit:
            self._to_hours(connection)
        if self.sweep_wanted or self.count > TOMBSTONES_MAX or self.summary_bytes > self._summary_limit:
            self._sweep(connection, oldest)

    def _to_hours(self, connection: apsw.Connection) -> None:
        rows = list(
            connection.execute(
                "SELECT tombstone FROM aggregate WHERE tombstone > ? AND interval_s < ? ORDER BY tombstone LIMIT ?",
                (self._hours_from, HOUR_S, HOURS_STEPS),
            )
        )
        self._hours_from = rows[-1][0] if rows else 0
        for (tombstone,) in rows:
            row = connection.execute(f"SELECT {_COLUMNS} FROM tombstone WHERE id = ?", (tombstone,)).fetchone()  # noqa: S608
            if row is None:
                self._drop(connection, tombstone)
            elif self._rests(connection, Tombstone(*row)):
                self._keep(connection, tombstone, self._with(connection, tombstone, Summary(HOUR_S)))

    def _sweep(self, connection: apsw.Connection, oldest: dict[str, int]) -> None:
        """Look at the next few: merge neighbours, drop what has done its service. Goes round and round."""
        found = [Tombstone(*row) for row in connection.execute(_AFTER, (*self._place, SWEEP_STEPS))]
        handled = 0
        before: Tombstone | None = None
        for tombstone in found:
            if handled > SWEEP_BYTES:
                break
            self._place = (tombstone.stream, tombstone.last)
            handled += self._weight(connection, tombstone.id)
            if self._is_home(tombstone):
                self._drop(connection, tombstone.id)
            if self._has_served(tombstone, oldest):
                self._remove(connection, tombstone.id)
                continue
            merged = before is not None and self._merge(connection, before, tombstone)
            before = None if merged else tombstone  # a pair per round: summaries of like size meet
        else:
            if len(found) < SWEEP_STEPS:
                self._place = ("", 0)
                self._rounds = max(0, self._rounds - 1)

    def _has_served(self, tombstone: Tombstone, oldest: dict[str, int]) -> bool:
        """Whether nothing is missing without it: nobody waits for it, and no row stands before it."""
        if tombstone.last >= oldest.get(tombstone.stream, tombstone.last + 1):
            return False
        if tombstone.reason == REASON_FREED:
            return True
        waits = tombstone.stream in self._cursors.outward and not self._is_home(tombstone)
        return self.count > TOMBSTONES_MAX and not waits

    def _weight(self, connection: apsw.Connection, tombstone: int) -> int:
        row = connection.execute("SELECT length(data) FROM aggregate WHERE tombstone = ?", (tombstone,)).fetchone()
        return row[0] if row else 0

    def _is_home(self, tombstone: Tombstone) -> bool:
        return tombstone.stream in self._cursors.outward and self._cursors.is_home(
            tombstone.stream, tombstone.first, tombstone.last
        )

    def _merge(self, connection: apsw.Connection, one: Tombstone, other: Tombstone) -> bool:
        if one.stream != other.stream or one.reason != other.reason or one.last + 1 != other.first:
            return False
        if not (self._is_home(one) and self._is_home(other)):
            if other.first in self.begins.get(other.stream, ()):
                return False
            if not (self._rests(connection, one) and self._rests(connection, other)):
                return False
            merged = self._merged_summary(connection, one, other)
            if merged is None:
                return False
            self._keep(connection, one.id, merged)
        self._remove(connection, other.id)
        connection.execute("UPDATE tombstone SET last = ?, n = n + ? WHERE id = ?", (other.last, other.n, one.id))
        return True

    def _merged_summary(self, connection: apsw.Connection, one: Tombstone, other: Tombstone) -> Summary | None:
        """None where only one of them has a summary, or both together have too much."""
        found = connection.execute(
            "SELECT count(*), max(interval_s) FROM aggregate WHERE tombstone IN (?, ?)", (one.id, other.id)
        ).fetchone()
        assert found is not None
        count, longest = found
        if count != 2:
            return None if count else Summary()
        merged = self._with(connection, other.id, self._with(connection, one.id, Summary(longest)))
        if len(merged) > SUMMARY_ROWS_MAX:
            merged, minutes = Summary(HOUR_S), merged
            merged.add_rows(minutes.rows())
        return merged if len(merged) <= SUMMARY_ROWS_MAX else None

    def _remove(self, connection: apsw.Connection, tombstone: int) -> None:
        self._drop(connection, tombstone)
        connection.execute("DELETE FROM tombstone WHERE id = ?", (tombstone,))
        self.count -= 1
