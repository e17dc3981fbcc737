"""What the engine measures."""

from __future__ import annotations

import pytest

from edged.messages import ResultColumns, ResultContext
from edged.ops.metrics import EngineMetrics
from edged.ports import Committed
from tests.doubles.clock import FakeClock

CONTEXT = ResultContext("pump", "m", "1", "0", "onnxruntime:cpu", "normal", False, "synced", "boot-1")
COMMITTED = Committed(1, 100, 800, 0, 0, 0)


class Drafted:
    def __init__(self, results: ResultColumns) -> None:
        self.results = results


def results(clock: FakeClock, scores: list[float | None], *, queue_us: int = 200, infer_us: int = 100) -> Drafted:
    """One result per score, quality 0 where there is none."""
    n = len(scores)
    return Drafted(
        ResultColumns(
            contexts=[CONTEXT],
            context=[0] * n,
            device=["p1"] * n,
            topic=["t"] * n,
            event_seq=list(range(n)),
            in_seq=[None] * n,
            ts=[0] * n,
            produced=[0] * n,
            mono_ns=[clock.mono_ns()] * n,
            label=[None] * n,
            score=scores,
            values=[None] * n,
            queue_us=[queue_us] * n,
            infer_us=[infer_us] * n,
            quality=[0 if score is None else 192 for score in scores],
            reasons=[()] * n,
        )
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics(clock: FakeClock) -> EngineMetrics:
    return EngineMetrics(clock)


def shown(metrics: EngineMetrics, name: str) -> object:
    return metrics.registry.snapshot()[name]


def test_a_turn_counts_its_results_by_outcome(metrics: EngineMetrics, clock: FakeClock) -> None:
    metrics.turn(results(clock, [0.9, 0.9, None]), COMMITTED, 3, 1_500_000)
    assert shown(metrics, "edged_turns_total") == 1
    assert shown(metrics, "edged_results_total") == [
        {"pipeline": "pump", "outcome": "answered", "value": 2},
        {"pipeline": "pump", "outcome": "failed", "value": 1},
    ]


def test_end_to_end_reaches_from_arrival_to_the_write(metrics: EngineMetrics, clock: FakeClock) -> None:
    drafted = results(clock, [0.9] * 10)
    clock.advance_us(700)
    metrics.turn(drafted, COMMITTED, 10, 1_000_000)
    latencies = metrics.latencies_ms()
    assert set(latencies) == {"turn", "commit", "end_to_end.pump"}
    assert latencies["end_to_end.pump"]["count"] == 10
    end_to_end = latencies["end_to_end.pump"]["p50"]
    assert end_to_end is not None
    assert 0.7 <= end_to_end <= 1.0
    commit = latencies["commit"]["p50"]
    assert commit is not None
    assert 0.7 <= commit <= 1.0


def test_a_turn_without_results_or_messages_counts_as_a_turn_only(metrics: EngineMetrics, clock: FakeClock) -> None:
    metrics.turn(results(clock, []), COMMITTED, 0, 1000)
    assert shown(metrics, "edged_turns_total") == 1
    assert shown(metrics, "edged_results_total") == []
    messages = shown(metrics, "edged_turn_messages")
    assert isinstance(messages, dict)
    assert messages["count"] == 0


def test_confidences_are_counted_and_other_scores_are_not(metrics: EngineMetrics, clock: FakeClock) -> None:
    metrics.turn(results(clock, [0.0, 0.52, 1.0, 1.5, -0.1, float("nan"), None]), COMMITTED, 7, 1000)
    scores = shown(metrics, "edged_score")
    assert isinstance(scores, list)
    assert scores[0]["value"]["count"] == 3
    text = metrics.registry.prometheus_text().decode()
    assert 'edged_score_bucket{le="0.05",pipeline="pump"} 1.0' in text
    assert 'edged_score_bucket{le="0.95",pipeline="pump"} 2.0' in text


def test_connections_and_gaps_are_told_by_cause(metrics: EngineMetrics) -> None:
    metrics.connects += 2
    metrics.disconnects["half_open"] = 1
    metrics.gap("sequence", 5)
    metrics.gap("sequence", 2)
    metrics.gap("session_lost", 0)
    snapshot = metrics.registry.snapshot()
    assert snapshot["edged_link_connects_total"] == 2
    assert snapshot["edged_link_disconnects_total"] == [{"code": "half_open", "value": 1}]
    assert snapshot["edged_gaps_total"] == [{"kind": "sequence", "value": 2}, {"kind": "session_lost", "value": 1}]
    assert snapshot["edged_gap_events_total"] == [
        {"kind": "sequence", "value": 7},
        {"kind": "session_lost", "value": 0},
    ]
