"""The report of `edged model benchmark` for people."""

from __future__ import annotations

from edged.workbench.benchmarking import Benchmark, Run, describe_machine
from edged.workbench.measuring import RungFigures
from edged.workbench.page import Card, Cell, listing, megabytes, page, section, table
from edged.workbench.svg import Bar, Series, bars, lines

_TONES = ("a", "b", "c", "d")
_STATES = {"not_installed": "not installed here", "refused": "refused", "crashed": "crashed", "hung": "hung"}


def render(found: Benchmark) -> str:
    machine = describe_machine()
    measured = found.measured
    sections = []
    if measured:
        sections = [_latency(found), _percentiles(found), _processor(found), _memory(found)]
        if any(len(figures.batches) > 1 for _, figures in measured):
            sections.insert(2, _throughput(found))
    missing = [run for run in found.runs if run.figures is None]
    if missing:
        sections.append(_missing(missing))
    if found.notes:
        sections.append(section("Notes", "What the figures mean.", listing(found.notes)))
    return page(
        "Benchmark of " + ", ".join(found.sizes),
        f"{machine['cpu']}, {machine['cores']} cores; threads per call: {found.threads}; {found.seconds:g} s each;"
        f" INT8 instructions: {'yes' if machine['int8_instructions'] else 'none found'}",
        (f"{len(measured)} of {len(found.runs)} measured", "plain"),
        _cards(found),
        sections,
        " · ".join(f"{name} sha256 {digest}" for name, digest in found.digests.items()),
    )


def name_of(run: Run, found: Benchmark) -> str:
    """The rung, and the model where there are several."""
    return run.rung if len(found.sizes) == 1 else f"{run.model} {run.rung}"


def _cards(found: Benchmark) -> list[Card]:
    if not found.measured:
        return [Card("–", "nothing could be measured", "bad")]
    run, figures = min(found.measured, key=lambda pair: pair[1].batches[0].cpu_ms)
    first = figures.batches[0]
    fastest = max(batch.samples_per_s for _, figures in found.measured for batch in figures.batches)
    return [
        Card(f"{first.cpu_ms:.3g} ms", f"least processor time, {name_of(run, found)}", "good"),
        Card(f"{first.p50_ms:.3g} ms", "half of its calls are faster"),
        Card(_ms(first.p99_ms), "99 of 100 are faster"),
        Card(f"{fastest:.0f}/s", "most samples per second"),
    ]


def _latency(found: Benchmark) -> str:
    rows = [
        (name_of(run, found), str(one.batch), str(one.calls), _ms(one.p50_ms), _ms(one.p95_ms), _ms(one.p99_ms),
         _ms(one.max_ms), _ms(one.cpu_ms), f"{one.samples_per_s:.0f}")
        for run, figures in found.measured
        for one in figures.batches
    ]  # fmt: skip
    return section(
        "How long a call takes",
        "By the clock on the wall, while this machine did whatever else it did; processor time is the least of all"
        " calls and hardly depends on that. Percentiles that so few calls do not have are left out.",
        table(("rung", "batch", "calls", "p50", "p95", "p99", "slowest", "processor", "samples/s"), rows),
    )


def _percentiles(found: Benchmark) -> str:
    series = [
        Series(
            name_of(run, found),
            tuple((float(at), ms) for at, ms in enumerate(figures.batches[0].curve_ms[:-1])),
            _TONES[i % 4],
        )
        for i, (run, figures) in enumerate(found.measured)
    ]
    batch = found.measured[0][1].batches[0].batch
    return section(
        "How even it is",
        f"Calls of batch {batch} from the fastest to the slowest: a flat line is a steady model, the rise at the right"
        " is its tail.",
        lines(series, title="Latency by percentile", across_label="percent of calls", up_label="ms"),
    )


def _throughput(found: Benchmark) -> str:
    series = [
        Series(
            name_of(run, found), tuple((float(one.batch), one.samples_per_s) for one in figures.batches), _TONES[i % 4]
        )
        for i, (run, figures) in enumerate(found.measured)
    ]
    return section(
        "What batches gain",
        "Samples per second by how many share a call. A flat line gains nothing: leave micro-batching to small models.",
        lines(
            series, title="Throughput by batch", across_label="samples per call", up_label="samples/s", log_across=True
        ),
    )


def _processor(found: Benchmark) -> str:
    rows = [
        Bar(name_of(run, found), figures.batches[0].cpu_ms, _ms(figures.batches[0].cpu_ms), _TONES[i % 4])
        for i, (run, figures) in enumerate(found.measured)
    ]
    return section(
        "Processor time of one call",
        "The least over all calls, all threads together: the fairest figure to compare.",
        bars(rows, title="Processor time"),
    )


def _memory(found: Benchmark) -> str:
    rows = [
        (name_of(run, found), _ms(one.import_ms), _ms(one.load_ms), _ms(one.first_ms), megabytes(one.runtime_bytes),
         megabytes(one.model_bytes), megabytes(one.peak_bytes), megabytes(one.drift_bytes))
        for run, one in found.measured
    ]  # fmt: skip
    return section(
        "Start and memory",
        "Each rung in a process of its own; memory is what it added to the bare process. Drift is growth while"
        " the same calls were repeated: a little is caches, steady growth is a leak.",
        bars(
            [
                Bar(name_of(run, found), one.peak_bytes, megabytes(one.peak_bytes), _TONES[i % 4])
                for i, (run, one) in enumerate(found.measured)
            ],
            title="Memory at the peak",
        ),
        table(("rung", "import", "load", "first call", "runtime", "model", "peak", "drift"), rows),
    )


def _missing(runs: list[Run]) -> str:
    rows = [
        (
            run.model,
            run.rung,
            Cell(_STATES[run.state], "plain" if run.state == "not_installed" else "bad"),
            f"{run.code}: {run.detail}",
        )
        for run in runs
    ]
    return section("Not measured", "And why.", table(("model", "rung", "", "reason"), rows))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"


def figures_line(figures: RungFigures) -> str:
    """One line for a terminal."""
    return "; ".join(
        f"batch {one.batch}: p50 {_ms(one.p50_ms)}, p95 {_ms(one.p95_ms)}, p99 {_ms(one.p99_ms)},"
        f" processor {_ms(one.cpu_ms)}, {one.samples_per_s:.0f} samples/s"
        for one in figures.batches
    )
