"""Counters, gauges and histograms as plain numbers: cheap per batch, turned into Prometheus text only when asked.

Hot code holds on to a cell and does `cell.value += n`. Durations are kept as whole µs and shown as seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from edged.errors import BugError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MAX_CELLS = 1000  # label values can come from outside (devices); beyond this they share one cell
OVERFLOW = "other"

DURATION_BOUNDS_US: tuple[int, ...] = tuple(
    step * 10**decade for decade in range(7) for step in (10, 15, 20, 30, 50, 70)
)
"""10 µs to 70 s; neighbours differ by a factor of at most 1.67, which bounds the error of a quantile."""

COUNT_BOUNDS: tuple[int, ...] = tuple(2**power for power in range(17))
SHARE_BOUNDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 21))
"""For confidences between 0 and 1."""


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Gauge:
    """A number that goes up and down; None is unknown and not shown."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None


class Histogram:
    """Counts per bucket. `bounds`: upper, inclusive, ascending; one more bucket holds what is above."""

    __slots__ = ("bounds", "buckets", "count", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.buckets[bisect_left(self.bounds, value)] += times
        self.count += times
        self.total += value * times

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the observations lie, interpolated inside its bucket; None without any.

        What lies above the last bound is reported as the last bound.
        """
        if not self.count:
            return None
        rank = share * self.count
        below = 0
        for index, bound in enumerate(self.bounds):
            inside = self.buckets[index]
            if inside and below + inside >= rank:
                lower = self.bounds[index - 1] if index else 0.0
                return lower + (bound - lower) * max(0.0, rank - below) / inside
            below += inside
        return self.bounds[-1]


CellT = TypeVar("CellT", Counter, Gauge, Histogram)


class Family(Generic[CellT]):
    """One metric with its cells by label values. `scale`: from our unit to the shown one."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], make: Callable[[], CellT], *, scale: float = 1.0
    ) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.scale = scale
        self.cells: dict[tuple[str, ...], CellT] = {}
        self._make: Callable[[], CellT] = make

    def at(self, *values: str) -> CellT:
        """The cell for these label values, made when first asked for; keep it where speed matters."""
        cell = self.cells.get(values)
        if cell is None:
            if len(values) != len(self.labels):
                raise BugError(f"{self.name} has the labels {self.labels}, got {values}")
            if len(self.cells) >= MAX_CELLS:
                values = (OVERFLOW,) * len(self.labels)
            cell = self.cells.setdefault(values, self._make())
        return cell


class Sample(NamedTuple):
    """One number of a source that is read when somebody asks. `value` None is unknown and not shown."""

    kind: Literal["counter", "gauge"]
    name: str
    text: str
    labels: Mapping[str, str]
    value: float | None


Source = Callable[[], Iterable[Sample]]


class Metrics:
    """All metrics of the process. Nothing here is global: the composition root makes one."""

    def __init__(self) -> None:
        self._counters: list[Family[Counter]] = []
        self._gauges: list[Family[Gauge]] = []
        self._histograms: list[Family[Histogram]] = []
        self._sources: list[Source] = []

    def counter(self, name: str, text: str, *labels: str, scale: float = 1.0) -> Family[Counter]:
        """`name` without `_total`, which is added when shown."""
        family = Family(name, text, labels, Counter, scale=scale)
        self._counters.append(family)
        return family

    def gauge(self, name: str, text: str, *labels: str, scale: float = 1.0) -> Family[Gauge]:
        family = Family(name, text, labels, Gauge, scale=scale)
        self._gauges.append(family)
        return family

    def durations(self, name: str, text: str, *labels: str) -> Family[Histogram]:
        """Observed in µs, shown in seconds; `name` should end in `_seconds`."""
        return self.histogram(name, text, *labels, bounds=DURATION_BOUNDS_US, scale=1e-6)

    def histogram(
        self, name: str, text: str, *labels: str, bounds: Sequence[float], scale: float = 1.0
    ) -> Family[Histogram]:
        family = Family(name, text, labels, lambda: Histogram(bounds), scale=scale)
        self._histograms.append(family)
        return family

    def add_source(self, source: Source) -> None:
        """`source` is called at every scrape and must be quick: it runs on the loop."""
        self._sources.append(source)

    def prometheus_text(self) -> bytes:
        """The text exposition format. Imported here: a gateway that nobody scrapes never loads the library."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client: every family as its metric objects."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for counters in self._counters:
            metric: Any = CounterMetricFamily(counters.name, counters.text, labels=counters.labels)
            for labels, counter in counters.cells.items():
                metric.add_metric(labels, counter.value * counters.scale)
            yield metric
        for gauges in self._gauges:
            metric = GaugeMetricFamily(gauges.name, gauges.text, labels=gauges.labels)
            for labels, gauge in gauges.cells.items():
                if gauge.value is not None:
                    metric.add_metric(labels, gauge.value * gauges.scale)
            yield metric
        for histograms in self._histograms:
            metric = HistogramMetricFamily(histograms.name, histograms.text, labels=histograms.labels)
            for labels, histogram in histograms.cells.items():
                metric.add_metric(labels, _cumulative(histogram, histograms.scale), histogram.total * histograms.scale)
            yield metric
        yield from self._collect_sources()

    def snapshot(self) -> dict[str, object]:
        """The same numbers for `status --json`: name → number or list of {labels, value}; histograms as quantiles."""
        shown: dict[str, object] = {}
        for counters in self._counters:
            shown[counters.name + "_total"] = _shown(
                counters.labels, {key: cell.value * counters.scale for key, cell in counters.cells.items()}
            )
        for gauges in self._gauges:
            known = {key: cell.value * gauges.scale for key, cell in gauges.cells.items() if cell.value is not None}
            shown[gauges.name] = _shown(gauges.labels, known)
        for histograms in self._histograms:
            shown[histograms.name] = _shown(
                histograms.labels,
                {key: quantiles(cell, histograms.scale) for key, cell in histograms.cells.items()},
            )
        for sample in self._samples():
            if sample.value is None:
                continue
            name = sample.name + ("_total" if sample.kind == "counter" else "")
            if not sample.labels:
                shown[name] = sample.value
                continue
            listed = shown.setdefault(name, [])
            assert isinstance(listed, list)
            listed.append({**sample.labels, "value": sample.value})
        return shown

    def _samples(self) -> Iterator[Sample]:
        for source in self._sources:
            yield from source()

    def _collect_sources(self) -> Iterator[Metric]:
        """Samples of one name gathered into one metric, whatever order the sources gave them in."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        gathered: dict[tuple[str, str], Any] = {}
        for sample in self._samples():
            metric = gathered.get((sample.kind, sample.name))
            if metric is None:
                make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                metric = gathered[sample.kind, sample.name] = make(
                    sample.name, sample.text, labels=tuple(sample.labels)
                )
            if sample.value is not None:
                metric.add_metric(tuple(sample.labels.values()), sample.value)
        yield from gathered.values()


def _cumulative(histogram: Histogram, scale: float) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them: each with all below it, the last one named +Inf."""
    running = 0
    shown: list[tuple[str, float]] = []
    for bound, inside in zip(histogram.bounds, histogram.buckets, strict=False):
        running += inside
        shown.append((f"{bound * scale:.6g}", running))
    shown.append(("+Inf", histogram.count))
    return shown


def quantiles(histogram: Histogram, scale: float) -> dict[str, float | int | None]:
    """Count, p50, p95 and p99 in the shown unit; None without observations."""
    shown: dict[str, float | int | None] = {"count": histogram.count}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        value = histogram.quantile(share)
        shown[name] = None if value is None else round(value * scale, 9)
    return shown


def _shown(labels: tuple[str, ...], values: Mapping[tuple[str, ...], object]) -> object:
    """A bare value where there are no labels, else a list of objects that carry them."""
    if not labels:
        return values.get(())
    return [{**dict(zip(labels, key, strict=True)), "value": value} for key, value in values.items()]
