"""A journal in memory: the promises of the real one as long as the process lives. Commits when told, or at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edged.errors import BugError, StoreError
from edged.messages import EventColumns, Notice, ResultColumns, Unit
from edged.ports import Committed, StoredEvents, StoredNotices, StoredResults
from edged.sync.protocol import Stream
from edged.sync.ranges import Ranges


class MemoryJournal:
    """Implements `edged.ports.Journal`.

    hold: keep units undone until `release` is called, as a slow disk would.
    evict_upto: results up to this seq are given up with the next commit, as if the budget had been reached.
    gone_events_upto: events up to this seq are not in the store any more.
    """

    def __init__(self, *, epoch: str = "abcdef012345") -> None:
        self.epoch = epoch
        self.delivered_upto = 0
        self.answered_upto = 0
        self.noticed_upto = 0
        self.units: list[Unit] = []
        self.snapshot: tuple[int, bytes] | None = None
        self.meta: bytes | None = None
        self.next_event = 1
        self.next_result = 1
        self.hold = False
        self.evict_upto = 0
        self.gone_upto = 0
        self.gone_events_upto = 0
        self.outward_streams: frozenset[Stream] = frozenset()
        self.synced: dict[Stream, Ranges] = {}
        self.given_up: list[tuple[Stream, int, int, str]] = []
        self.summarized: list[tuple[int, int, str]] = []
        self.forked: list[int] = []
        self.unforkable = False
        self.trims = 0
        self._held: list[tuple[Unit, Callable[[Committed], None]]] = []

    def epoch_of_result(self, seq: int) -> str:
        return self.epoch

    def submit(self, unit: Unit, done: Callable[[Committed], None]) -> None:
        n_events = len(unit.events.source) if unit.events else 0
        n_results = len(unit.results.context) if unit.results else 0
        if n_events and unit.event_first != self.next_event:
            raise BugError(f"event seq {unit.event_first}, expected {self.next_event}")
        if n_results and unit.result_first != self.next_result:
            raise BugError(f"result seq {unit.result_first}, expected {self.next_result}")
        self.next_event += n_events
        self.next_result += n_results
        if self.hold:
            self._held.append((unit, done))
        else:
            asyncio.get_running_loop().call_soon(self._commit, unit, done)

    def release(self) -> None:
        """Everything held becomes durable."""
        held, self._held = self._held, []
        for unit, done in held:
            self._commit(unit, done)

    def _commit(self, unit: Unit, done: Callable[[Committed], None]) -> None:
        self.units.append(unit)
        self.meta = unit.meta
        upto, self.evict_upto = self.evict_upto, 0
        self.gone_upto = max(self.gone_upto, upto)
        done(Committed(len(self.units), 0, 100, 0, upto, max(0, upto - self.delivered_upto), upto))

    async def read_results(self, first_seq: int, limit: int) -> list[StoredResults]:
        found, rows = [], 0
        first_seq = max(first_seq, self.gone_upto + 1)
        for unit in self.units:
            if unit.results is None or unit.result_first + len(unit.results.context) <= first_seq or rows >= limit:
                continue
            skip = max(0, first_seq - unit.result_first)
            found.append(StoredResults(unit.result_first + skip, _cut_results(unit.results, skip)))
            rows += len(unit.results.context) - skip
        return found

    async def read_events(self, first_seq: int, limit: int) -> list[StoredEvents]:
        found, rows = [], 0
        first_seq = max(first_seq, self.gone_events_upto + 1)
        for unit in self.units:
            if unit.events is None or unit.event_first + len(unit.events.source) <= first_seq or rows >= limit:
                continue
            skip = max(0, first_seq - unit.event_first)
            columns = EventColumns(*(getattr(unit.events, name)[skip:] for name in EventColumns.__struct_fields__))
            found.append(
                StoredEvents(unit.event_first + skip, unit.arrival_wall_ms, unit.arrival_mono_ns, unit.boot, columns)
            )
            rows += len(columns.source)
        return found

    async def read_notices(self, after_batch: int, limit: int) -> list[StoredNotices]:
        found: list[tuple[int, list[Notice]]] = [
            (batch, unit.notices) for batch, unit in enumerate(self.units, 1) if batch > after_batch and unit.notices
        ]
        return [StoredNotices(*item) for item in found[:limit]]

    async def save_snapshot(self, event_seq: int, blob: bytes) -> None:
        self.snapshot = (event_seq, blob)

    async def save_meta(self, meta: bytes) -> None:
        self.meta = meta

    def set_synced(self, stream: Stream, home: Ranges) -> None:
        self.synced[stream] = home

    async def give_up(self, stream: Stream, first: int, last: int, reason: str) -> None:
        self.given_up.append((stream, first, last, reason))

    async def summarize(self, first: int, last: int, reason: str) -> None:
        self.summarized.append((first, last, reason))

    async def fork(self, first_result: int) -> str:
        if self.unforkable:
            raise StoreError("beginning a new epoch: no start of the daemon is known before it")
        self.forked.append(first_result)
        return "fedcba543210"

    def trim(self) -> None:
        self.trims += 1


def _cut_results(rows: ResultColumns, skip: int) -> ResultColumns:
    cut = [getattr(rows, name)[skip:] for name in ResultColumns.__struct_fields__[1:]]
    return ResultColumns(rows.contexts, *cut)
