"""What one transaction does with a unit: make room if there is none, write the row, say what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edged.ports import Committed
from edged.store import budget
from edged.store.eviction import Cursors, Evicted, evict
from edged.store.segment import Packer, Segment

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
    """Runs in the writer thread; keeps nothing that a rolled-back transaction would make wrong."""

    def __init__(
        self,
        path: Path,
        limits: budget.Limits,
        clock: Clock,
        other_bytes: Callable[[], int],
        free_bytes: Callable[[Path], int],
    ) -> None:
        self.cursors = Cursors()
        self.usage = budget.Usage(0, 0, 0, 0, 0)
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self.limits = limits
        self._clock = clock
        self._other_bytes = other_bytes
        self._free_bytes = free_bytes
        self._packer = Packer()

    def encode(self, unit: Unit) -> Segment:
        return self._packer.segment(unit)

    def pack(self, blob: bytes) -> bytes:
        return self._packer.pack_bytes(blob)

    def apply(self, numbers: Numbers, unit: Unit, connection: apsw.Connection, segment: Segment) -> Committed:
        """The statements of one unit. `commit_us` is filled in by the one who measured it."""
        evicted = self._make_room(connection, sum(len(blob) for blob in segment if blob))
        connection.execute(
            _INSERT, (*numbers, unit.arrival_wall_ms, unit.arrival_mono_ns, unit.boot, unit.clock, *segment)
        )
        used = self.usage.pages * self.limits.page_bytes + self.usage.wal_bytes
        return Committed(
            numbers.batch, used, 0, evicted.events, evicted.results, evicted.unsent_results, evicted.result_upto
        )

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
            evicted = evict(connection, missing, self.limits.page_bytes, self.cursors, self._clock.wall_ms())
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
