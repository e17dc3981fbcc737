"""What the engine measures, by name. One call per turn; everything else is read when somebody asks."""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING, Protocol, cast

from edged.messages import QUALITY_BAD
from edged.ops.meters import COUNT_BOUNDS, SHARE_BOUNDS, Histogram, Metrics, Sample, quantiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edged.messages import ResultColumns
    from edged.ports import Clock, Committed

_SCORE_STEPS = len(SHARE_BOUNDS)
_SCORE_SCALE = float(_SCORE_STEPS).__mul__


class Drafted(Protocol):
    """What a turn produced."""

    @property
    def results(self) -> ResultColumns: ...


class EngineMetrics:
    """Written by the engine on the loop; `prometheus_text` and `snapshot` are in `registry`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registry = Metrics()
        self.connects = 0
        self.disconnects: dict[str, int] = {}
        self.gaps: dict[str, int] = {}
        self.missing: dict[str, int] = {}
        make = self.registry
        self._turns = make.counter("edged_turns", "Turns committed").at()
        self._messages = make.histogram(
            "edged_turn_messages", "MQTT messages taken in one turn", bounds=COUNT_BOUNDS
        ).at()
        self._turn = make.durations(
            "edged_turn_seconds", "From the first message of a turn to the write of its results and acknowledgements"
        ).at()
        self._commit = make.durations("edged_commit_seconds", "One commit of the store").at()
        self._results = make.counter("edged_results", "Results by pipeline and outcome", "pipeline", "outcome")
        self._inference = make.durations(
            "edged_inference_seconds", "One model call, per result that it made", "pipeline"
        )
        self._queue = make.durations("edged_queue_seconds", "From arrival to the start of the model call", "pipeline")
        self._end_to_end = make.durations(
            "edged_end_to_end_seconds", "From arrival to the write of the committed result", "pipeline"
        )
        self._score = make.histogram(
            "edged_score", "Scores between 0 and 1 (confidence)", "pipeline", bounds=SHARE_BOUNDS
        )
        make.add_source(self._link_samples)

    def turn(self, drafted: Drafted, committed: Committed, messages: int, turn_ns: int) -> None:
        """Count one turn. turn_ns: from the arrival of its first message until everything is written."""
        turn_us = turn_ns // 1000
        self._turns.value += 1
        self._turn.observe(turn_us)
        self._commit.observe(committed.commit_us)
        if messages:
            self._messages.observe(messages)
        self._count_results(drafted.results)

    def gap(self, kind: str, count: int) -> None:
        """A gap was reported; `count` events are missing (0: nobody knows)."""
        self.gaps[kind] = self.gaps.get(kind, 0) + 1
        self.missing[kind] = self.missing.get(kind, 0) + count

    def latencies_ms(self) -> dict[str, dict[str, float | int | None]]:
        """p50, p95 and p99 in ms: of a turn, of a commit, and from arrival to written result by pipeline."""
        return {
            "turn": _quantiles_ms(self._turn),
            "commit": _quantiles_ms(self._commit),
            **{f"end_to_end.{labels[0]}": _quantiles_ms(cell) for labels, cell in self._end_to_end.cells.items()},
        }

    def _count_results(self, rows: ResultColumns) -> None:
        """Rows of one model call share everything that is counted here, so they are counted as a few groups."""
        now_ns = self._clock.mono_ns()
        names = [context.pipeline for context in rows.contexts]
        bad = map(QUALITY_BAD.__eq__, rows.quality)  # map and zip stay in C: this runs for every result
        groups = Tally(zip(rows.context, bad, rows.queue_us, rows.infer_us, rows.mono_ns, strict=True))
        for (context, failed, queue_us, infer_us, produced_ns), n in groups.items():
            name = names[context]
            self._results.at(name, "failed" if failed else "answered").value += n
            self._queue.at(name).observe(queue_us, n)
            self._inference.at(name).observe(infer_us, n)
            self._end_to_end.at(name).observe(queue_us + infer_us + max(0, now_ns - produced_ns) // 1000, n)
        for (context, step), n in _score_steps(rows).items():
            inside = min(step, _SCORE_STEPS - 1)
            self._score.at(names[context]).observe((inside + 0.5) / _SCORE_STEPS, n)

    def _link_samples(self) -> Iterator[Sample]:
        yield Sample("counter", "edged_link_connects", "Connections to the plant's broker", {}, self.connects)
        for code, n in self.disconnects.items():
            yield Sample("counter", "edged_link_disconnects", "Connections lost, by cause", {"code": code}, n)
        for kind, n in self.gaps.items():
            yield Sample("counter", "edged_gaps", "Reported gaps", {"kind": kind}, n)
        for kind, n in self.missing.items():
            yield Sample("counter", "edged_gap_events", "Events known to be missing", {"kind": kind}, n)


def _score_steps(rows: ResultColumns) -> Tally[tuple[int, int]]:
    """How many scores between 0 and 1 fall on each step, by context; other scores are no confidences."""
    scores = cast("list[float]", rows.score)
    try:
        if min(scores) >= 0 and max(scores) <= 1:  # the usual batch; map and zip stay in C
            return Tally(zip(rows.context, map(int, map(_SCORE_SCALE, scores)), strict=True))
    except (TypeError, ValueError):  # None for a failed inference, no result at all, or not a number
        pass
    pairs = zip(rows.context, rows.score, strict=True)
    return Tally(
        (context, int(score * _SCORE_STEPS)) for context, score in pairs if score is not None and 0 <= score <= 1
    )


def _quantiles_ms(histogram: Histogram) -> dict[str, float | int | None]:
    return quantiles(histogram, 1e-3)
