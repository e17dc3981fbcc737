"""Which batches lie around an alarm: they are given up after all others, as far as a part of the budget allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edged.store import marks

if TYPE_CHECKING:
    import apsw

    from edged.messages import Unit

OPEN = 1 << 62  # last batch of surroundings that still go on
STRETCHES_MAX = 500  # what lies between two of them gets a tombstone of its own
MEAN_SHARE = 64  # how much of the mean row size the newest row is
NS_PER_S = 1_000_000_000

_ARRIVED = "SELECT batch, boot, arrival_mono_ns FROM journal WHERE batch >= ? ORDER BY batch LIMIT 1"


class Surroundings(NamedTuple):
    """Batches first..last, both inclusive, which take about so many bytes."""

    first: int
    last: int
    bytes: int


class Protection:
    """Keeps the table `protected`, in the writer thread, inside its transactions.

    What is in memory follows from the tables and is found again by `load`.
    """

    def __init__(self, surroundings_s: float, limit_bytes: int) -> None:
        self.bytes = 0
        self.mean_row_bytes = 1.0
        self._around_ns = int(surroundings_s * NS_PER_S)
        self._limit_bytes = limit_bytes
        self._open: Surroundings | None = None
        self._until = ("", 0)
        self._count = 0

    def load(self, connection: apsw.Connection) -> None:
        """Find everything again."""
        rows = connection.execute("SELECT max(batch) - min(batch) + 1, max(batch) FROM journal").fetchone()
        pages = connection.pragma("page_count") - connection.pragma("freelist_count")
        if rows is not None and rows[0]:
            self.mean_row_bytes = max(1.0, pages * connection.pragma("page_size") / rows[0])
        open_row = connection.execute("SELECT * FROM protected WHERE last_batch = ?", (OPEN,)).fetchone()
        self._open = None
        boot, _, mono_ns = marks.text(connection, marks.ALARM_UNTIL).rpartition(" ")
        self._until = (boot, int(mono_ns) if mono_ns.isdigit() else 0)
        total = connection.execute("SELECT total(bytes), count(*) FROM protected").fetchone()
        self.bytes, self._count = (int(total[0]), int(total[1])) if total else (0, 0)
        if open_row is not None:  # what has come since they began stands in no table
            grown = int(((rows[1] if rows else 0) - open_row[0] + 1) * self.mean_row_bytes)
            self._open = Surroundings(open_row[0], OPEN, max(open_row[2], grown))
            self.bytes += self._open.bytes - open_row[2]

    # --- as units come ---

    def note(self, connection: apsw.Connection, batch: int, unit: Unit, *, alarm: bool, row_bytes: int) -> None:
        """A unit was stored: it may be near an alarm before it, or carry one itself."""
        self.mean_row_bytes += (row_bytes - self.mean_row_bytes) / MEAN_SHARE
        if self._open is not None:
            if unit.boot != self._until[0] or unit.arrival_mono_ns > self._until[1]:
                self._close(connection, batch - 1)
            else:
                self._open = self._open._replace(bytes=self._open.bytes + row_bytes)
                self.bytes += row_bytes
        if alarm and self._around_ns:
            if self._open is None:
                self._begin(connection, batch, unit)
            self._until = (unit.boot, unit.arrival_mono_ns + self._around_ns)
            marks.put(connection, marks.ALARM_UNTIL, f"{unit.boot} {self._until[1]}")

    def _begin(self, connection: apsw.Connection, batch: int, unit: Unit) -> None:
        first = first_arrived(connection, unit.boot, unit.arrival_mono_ns - self._around_ns, batch)
        size = rows = 0
        while (
            before := connection.execute("SELECT * FROM protected ORDER BY first_batch DESC LIMIT 1").fetchone()
        ) is not None and before[1] >= first - 1:  # one alarm after the other: one stretch
            connection.execute("DELETE FROM protected WHERE first_batch = ?", (before[0],))
            first, size, rows = min(first, before[0]), size + before[2], rows + before[1] - before[0] + 1
            self.bytes -= before[2]
            self._count -= 1
        size += max(0, int((batch - first + 1 - rows) * self.mean_row_bytes))
        connection.execute("INSERT INTO protected VALUES (?,?,?)", (first, OPEN, size))
        self._count += 1
        self._open = Surroundings(first, OPEN, size)
        self.bytes += size

    def _close(self, connection: apsw.Connection, last: int) -> None:
        assert self._open is not None
        if last < self._open.first:  # all of them have been let go
            connection.execute("DELETE FROM protected WHERE first_batch = ?", (self._open.first,))
            self._count -= 1
            self.bytes -= self._open.bytes
        else:
            connection.execute(
                "UPDATE protected SET last_batch = ?, bytes = ? WHERE first_batch = ?",
                (last, self._open.bytes, self._open.first),
            )
        marks.forget(connection, marks.ALARM_UNTIL)
        self._open = None

    # --- as room is needed ---

    def next_clear(self, connection: apsw.Connection, batch: int) -> tuple[int, int]:
        """The first stretch (first, last) of batches at or after `batch` that are not protected."""
        covering = connection.execute(
            "SELECT last_batch FROM protected WHERE first_batch <= ? ORDER BY first_batch DESC LIMIT 1", (batch,)
        ).fetchone()
        if covering is not None and covering[0] >= batch:
            batch = covering[0] + 1
        following = connection.execute(
            "SELECT first_batch FROM protected WHERE first_batch >= ? ORDER BY first_batch LIMIT 1", (batch,)
        ).fetchone()
        if following is None:
            return batch, OPEN
        if following[0] == batch:  # two that touch
            return self.next_clear(connection, batch)
        return batch, following[0] - 1

    def is_over(self) -> bool:
        """Whether the surroundings hold more than their part, or are too many."""
        return self.bytes > self._limit_bytes or self._count > STRETCHES_MAX

    def drop_oldest(self, connection: apsw.Connection) -> int | None:
        """Let the oldest surroundings go; returns their first batch, None when there are none.

        Surroundings that still go on lose their older half.
        """
        row = connection.execute("SELECT * FROM protected ORDER BY first_batch LIMIT 1").fetchone()
        if row is None:
            return None
        oldest = Surroundings(*row)
        newest = connection.execute("SELECT max(batch) FROM journal").fetchone()
        newest_batch = newest[0] if newest and newest[0] else 0
        if oldest.first >= newest_batch:
            return None
        connection.execute("DELETE FROM protected WHERE first_batch = ?", (oldest.first,))
        if oldest.last != OPEN:
            self.bytes -= oldest.bytes
            self._count -= 1
            return oldest.first
        middle = (oldest.first + newest_batch) // 2 + 1
        current = self._open or oldest
        self._open = Surroundings(middle, OPEN, current.bytes // 2)
        self.bytes -= current.bytes - self._open.bytes
        connection.execute("INSERT INTO protected VALUES (?,?,?)", self._open)
        return oldest.first

    def forget_before(self, connection: apsw.Connection, batch: int) -> None:
        """Surroundings whose rows are all gone."""
        while (
            row := connection.execute("SELECT * FROM protected ORDER BY first_batch LIMIT 1").fetchone()
        ) is not None and row[1] < batch:
            connection.execute("DELETE FROM protected WHERE first_batch = ?", (row[0],))
            self.bytes -= row[2]
            self._count -= 1


def first_arrived(connection: apsw.Connection, boot: str, mono_ns: int, before: int) -> int:
    """The first batch of this boot that arrived at `mono_ns` or later, by search; `before` when there is none."""
    first = connection.execute("SELECT min(batch) FROM journal").fetchone()
    low, high = (first[0] if first and first[0] else before), before
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_ARRIVED, (middle,)).fetchone()
        if row is None or row[0] >= high or (row[1] == boot and row[2] >= mono_ns):
            high = middle
        else:
            low = row[0] + 1
    return low
