"""What one bite takes away: runs of numbers that are lost, with their summaries, and runs that nobody needed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edged.messages import EventColumns, Notice, ResultColumns
from edged.store import records
from edged.store.cursors import Cursors
from edged.store.freedom import Numbered
from edged.store.summary import Summary
from edged.store.tombstones import REASON_BUDGET, REASON_FREED
from edged.sync import ranges
from edged.sync.protocol import Range
from edged.sync.ranges import Ranges


class Run(NamedTuple):
    """Neighbouring numbers of one stream that go for one reason."""

    stream: str
    reason: str
    first: int
    last: int
    summary: Summary


class Losses:
    """Gathers while rows go, in the order of their numbers. What is not home yet gets into a summary.

    unburied: the parts of a range of a stream that no tombstone stands for yet; the others have been told already.
    begins: numbers of a stream that a run never goes over, because an epoch may begin there.
    """

    def __init__(
        self,
        cursors: Cursors,
        unburied: Callable[[str, int, int], list[Range]],
        begins: Mapping[str, frozenset[int]],
    ) -> None:
        self.events = 0
        self.results = 0
        self.unsent_results = 0
        self.result_last = 0
        self.notices = 0
        self.notice_batches = (0, 0)
        self._cursors = cursors
        self._unburied = unburied
        self._begins = begins
        self._runs: dict[tuple[str, str, bool], list[Run]] = {}

    def runs(self) -> Iterator[Run]:
        for runs in self._runs.values():
            yield from runs

    def results_of(self, row: Numbered, columns: Callable[[], ResultColumns | None]) -> None:
        """All results of a row. columns: read only where a summary is needed; None when they cannot be read."""
        if not row.result_n:
            return
        first, last = row.result_first, row.result_first + row.result_n - 1
        lost = self._cursors.lost_results(first, last)
        self.results += row.result_n
        self.unsent_results += ranges.count(lost)
        self.result_last = last
        for summary, low, high in self._lose("result", lost, first, last):
            if (rows := columns()) is not None:
                summary.add_results(rows, low - first, high - first + 1)

    def events_of(self, row: Numbered, columns: Callable[[], EventColumns | None]) -> None:
        """All events of a row; see `results_of`."""
        if not row.event_n:
            return
        first, last = row.event_first, row.event_first + row.event_n - 1
        self.events += row.event_n
        for summary, low, high in self._lose("event", self._cursors.lost_events(first, last), first, last):
            if (rows := columns()) is not None:
                summary.add_events(rows, low - first, high - first + 1)

    def notices_of(self, batch: int, notices: list[Notice]) -> None:
        for stream, (first, last) in records.numbers(notices).items():
            for waited in self._cursors.not_home(stream, first, last):
                for low, high in self._unburied(stream, *waited):
                    self._run(stream, REASON_BUDGET, low, high, waited=True)
        undelivered = sum(notice.plant for notice in notices)
        if undelivered and batch > self._cursors.notice_batch:
            first, last = self.notice_batches
            self.notice_batches = (min(first or batch, batch), max(last, batch))
            self.notices += undelivered

    def _lose(self, stream: str, lost: Ranges, first: int, last: int) -> Iterator[tuple[Summary, int, int]]:
        """Book first..last; yields what somebody still waits for, and where its summary goes."""
        for low, high in [part for span in lost for part in self._unburied(stream, *span)]:
            waited = self._cursors.not_home(stream, low, high)
            for part in waited:
                yield self._run(stream, REASON_BUDGET, *part, waited=True).summary, *part
            for part in ranges.missing(tuple(waited), low, high):
                self._run(stream, REASON_BUDGET, *part, waited=False)
        for low, high in ranges.missing(lost, first, last):
            self._run(stream, REASON_FREED, low, high, waited=False)

    def _run(self, stream: str, reason: str, first: int, last: int, *, waited: bool) -> Run:
        """Lengthen the last run of its kind, or begin one. waited: a summary may stand for it."""
        runs = self._runs.setdefault((stream, reason, waited), [])
        if runs and runs[-1].last == first - 1 and first not in self._begins.get(stream, ()):
            runs[-1] = runs[-1]._replace(last=last)
        else:
            runs.append(Run(stream, reason, first, last, Summary()))
        return runs[-1]
