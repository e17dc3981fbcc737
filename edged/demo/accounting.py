"""What was lost, what came twice, how long it took: a fold over what plant and SCADA saw. No clock, no I/O.

The daemon is not asked. An event counts once the broker has acknowledged it to the plant; from then on every pipeline
owes the results that its window and stride imply, named by the seq of the newest event of the window.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

MEMORY = 200_000  # results whose id is remembered; a repetition that comes later than that counts as a new result
LATENCIES = 20_000  # newest latencies kept for the percentiles


class Owing(NamedTuple):
    """A pipeline, as far as it says which results are owed for the events 1, 2, 3, ... of a device."""

    name: str
    window: int
    stride: int

    def owes(self, seq: int) -> bool:
        return seq >= self.window and (seq - self.window) % self.stride == 0


class Seen(NamedTuple):
    """One result message at SCADA. `at_ns`: monotonic arrival."""

    pipeline: str
    device: str
    seq: int
    id: str
    at_ns: int


class Tally(NamedTuple):
    """The sums. `lost`: owed and never seen. `duplicates`: second results with another id; `resent`: the same id again.

    `unexpected`: results that nobody owed, for example of an event whose acknowledgement never reached the plant.
    """

    events: int
    results: int
    expected_results: int
    lost: int
    duplicates: int
    resent: int
    unexpected: int
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None


class Accounts:
    """Folds publications, acknowledgements and results, in any order. Latency is measured on the first pipeline."""

    def __init__(self, pipelines: Sequence[Owing], *, memory: int = MEMORY) -> None:
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._timed = pipelines[0].name
        self._memory = memory
        self._published: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str, int], str] = OrderedDict()
        self._owed: dict[tuple[str, str, int], int] = {}  # in order of the acknowledgements, with their time
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES)
        self.events = 0
        self.results = 0
        self.duplicates = 0
        self.resent = 0
        self._expected = 0
        self._worst_ms = 0.0

    def published(self, device: str, seq: int, at_ns: int) -> None:
        """The plant handed the event to its socket."""
        self._published[device, seq] = at_ns
        if len(self._published) > self._memory:
            self._published.popitem(last=False)

    def acknowledged(self, device: str, seq: int, at_ns: int) -> None:
        """The broker has it: from now on its results are owed."""
        self.events += 1
        for name, pipeline in self._pipelines.items():
            if pipeline.owes(seq):
                self._expected += 1
                if (name, device, seq) not in self._ids:  # a result may overtake the acknowledgement
                    self._owed[name, device, seq] = at_ns

    def result(self, seen: Seen) -> float | None:
        """Count a result; returns its latency in ms when it is the first one for its event on the timed pipeline."""
        key = (seen.pipeline, seen.device, seen.seq)
        known = self._ids.get(key)
        if known is not None:
            if known == seen.id:
                self.resent += 1
            else:
                self.duplicates += 1
            return None
        self._ids[key] = seen.id
        if len(self._ids) > self._memory:
            self._ids.popitem(last=False)
        self.results += 1
        self._owed.pop(key, None)
        return self._latency(seen)

    def _latency(self, seen: Seen) -> float | None:
        if seen.pipeline != self._timed:
            return None
        sent_ns = self._published.pop((seen.device, seen.seq), None)
        if sent_ns is None:
            return None
        latency_ms = (seen.at_ns - sent_ns) / 1e6
        self._latencies_ms.append(latency_ms)
        self._worst_ms = max(self._worst_ms, latency_ms)
        return latency_ms

    @property
    def owed(self) -> int:
        """Results that are owed and have not arrived."""
        return len(self._owed)

    @property
    def oldest_owed_ns(self) -> int | None:
        """When the event was acknowledged whose result is awaited longest."""
        return next(iter(self._owed.values()), None)

    def recent_ms(self, count: int) -> list[float]:
        """The newest latencies, oldest first."""
        return list(self._latencies_ms)[-count:]

    def tally(self) -> Tally:
        ordered = sorted(self._latencies_ms)
        return Tally(
            events=self.events,
            results=self.results,
            expected_results=self._expected,
            lost=len(self._owed),
            duplicates=self.duplicates,
            resent=self.resent,
            unexpected=self.results - (self._expected - len(self._owed)),
            p50_ms=percentile(ordered, 0.50),
            p99_ms=percentile(ordered, 0.99),
            worst_ms=self._worst_ms if ordered else None,
        )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile of ascending values; None when there are none."""
    if not ordered:
        return None
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
