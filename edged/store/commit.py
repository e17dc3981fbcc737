"""What one transaction does with a unit: make room if there is none, write the row, say what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edged.ports import Committed
from edged.store import budget
from edged.store.cursors import Cursors
from edged.store.eviction import Evicted, Retention
from edged.store.forecast import Sample, Samples
from edged.store.segment import Packer, Segment
from edged.store.trimming import Trimmer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import apsw

    from edged.messages import Unit
    from edged.ports import Clock

_INSERT = "INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


class Numbers(NamedTuple):
    """The numbers of a row, decided when the unit was submitted."""

    batch: int
    event_first: int
    event_n: int
    result_first: int
    result_n: int
    notice_n: int


class RowCommitter:
    """Runs in the writer thread; `rolled_back` drops what a rolled-back transaction has made wrong."""

    def __init__(
        self,
        path: Path,
        limits: budget.Limits,
        clock: Clock,
        other_bytes: Callable[[], int],
        free_bytes: Callable[[Path], int],
        surroundings_s: float = 60.0,
    ) -> None:
        self.cursors = Cursors()
        self.usage = budget.Usage(0, 0, 0, 0, 0)
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self.limits = limits
        self.clock = clock
        self._other_bytes = other_bytes
        self._free_bytes = free_bytes
        self._packer = Packer()
        self.retention = Retention(limits, surroundings_s, clock, self.cursors, self._packer)
        self.trimmer = Trimmer(limits, self.retention)
        self._samples = Samples()
        self._stored_bytes = 0  # since the process started

    def encode(self, unit: Unit) -> Segment:
        return self._packer.segment(unit)

    def pack(self, blob: bytes) -> bytes:
        return self._packer.pack_bytes(blob)

    def apply(self, numbers: Numbers, unit: Unit, connection: apsw.Connection, segment: Segment) -> Committed:
        """The statements of one unit. `commit_us` is filled in by the one who measured it."""
        payload_bytes = sum(len(blob) for blob in segment if blob)
        self.retention.load(connection)
        evicted = self._make_room(connection, payload_bytes)
        connection.execute(
            _INSERT, (*numbers, unit.arrival_wall_ms, unit.arrival_mono_ns, unit.boot, unit.clock, *segment)
        )
        row_bytes = payload_bytes + budget.ROW_OVERHEAD_BYTES
        self.retention.note(connection, numbers.batch, unit, row_bytes)
        self._stored_bytes += row_bytes
        self._samples.add(self.clock.mono_ns(), self._stored_bytes)
        used = self.usage.pages * self.limits.page_bytes + self.usage.wal_bytes
        return Committed(
            numbers.batch,
            used,
            0,
            evicted.events,
            evicted.results,
            evicted.unsent_results,
            evicted.result_upto,
            evicted.result_last,
        )

    def trim(self, connection: apsw.Connection, _encoded: object) -> bool:
        """One small step of giving back what nobody needs; True when there is more to do."""
        self.retention.load(connection)
        more = self.trimmer.step(connection)
        self.usage = self._measure(connection)
        return more

    def is_home_due(self) -> bool:
        """True once after the file has become shorter: with its WAL brought home the file system gets the space."""
        due, self.trimmer.home_wanted = self.trimmer.home_wanted, False
        return due

    def give_up(self, connection: apsw.Connection, stream: str, first: int, last: int, reason: str) -> None:
        """A tombstone for rows that the receiver refuses. stream: as the tables name it."""
        self.retention.load(connection)
        self.retention.graves.bury(connection, stream, first, last, reason, self.clock.wall_ms())

    def summarize(self, connection: apsw.Connection, first: int, last: int, reason: str) -> None:
        """Results first..last go home as a summary by minute, as far as they are not there yet."""
        self.retention.load(connection)
        for part in self.cursors.not_home("result", first, last):
            self.retention.summarize(connection, *part, reason)

    def sampled(self) -> list[Sample]:
        """What was stored when, up to now."""
        return self._samples.until(self.clock.mono_ns(), self._stored_bytes)

    def rolled_back(self) -> None:
        """Nothing of the last transaction has happened."""
        self.retention.reset()

    def is_urgent(self) -> bool:
        """Whether the WAL holds pages behind the end of the file while the disk runs out of room.

        Brought home in time, they let the store go on inside its present size even when nothing is left to grow.
        """
        if self.usage.disk_free_bytes >= self.limits.free_floor_bytes:
            return False
        return self._path.stat().st_size < self.usage.pages * self.limits.page_bytes

    def _make_room(self, connection: apsw.Connection, payload_bytes: int) -> Evicted:
        usage = self.usage = self._measure(connection)
        need = budget.row_bytes(payload_bytes, self.limits.page_bytes)
        missing = budget.shortage(usage, self.limits, need)
        evicted = Evicted()
        if missing:
            evicted = self.retention.make_room(connection, missing)
        surplus = budget.pages_to_return(usage, self.limits)
        if surplus:
            connection.pragma("incremental_vacuum", min(surplus, budget.RETURN_PAGES_MAX))
        return evicted

    def _measure(self, connection: apsw.Connection) -> budget.Usage:
        return budget.Usage(
            pages=connection.pragma("page_count"),
            free_pages=connection.pragma("freelist_count"),
            wal_bytes=self._wal.stat().st_size,
            other_bytes=self._other_bytes(),
            disk_free_bytes=self._free_bytes(self._path.parent),
        )
