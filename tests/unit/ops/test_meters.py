"""Plain numbers in, Prometheus text and status out."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edged.errors import BugError
from edged.ops.meters import DURATION_BOUNDS_US, MAX_CELLS, OVERFLOW, Histogram, Metrics, Sample


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the text, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.prometheus_text().decode())
        for sample in family.samples
    }


def test_counters_and_gauges_are_shown_with_their_labels() -> None:
    metrics = Metrics()
    metrics.counter("edged_results", "Results", "pipeline").at("pump").value += 3
    metrics.counter("edged_turns", "Turns").at().value += 2
    metrics.gauge("edged_wal_bytes", "WAL").at().value = 7
    assert scraped(metrics) == {
        ("edged_results_total", (("pipeline", "pump"),)): 3,
        ("edged_turns_total", ()): 2,
        ("edged_wal_bytes", ()): 7,
    }
    assert metrics.snapshot() == {
        "edged_results_total": [{"pipeline": "pump", "value": 3}],
        "edged_turns_total": 2,
        "edged_wal_bytes": 7,
    }


def test_an_unknown_gauge_is_absent_and_not_zero() -> None:
    metrics = Metrics()
    metrics.gauge("edged_temperature_c", "Temperature").at()
    assert scraped(metrics) == {}
    assert metrics.snapshot() == {"edged_temperature_c": None}


def test_durations_are_observed_in_microseconds_and_shown_in_seconds() -> None:
    metrics = Metrics()
    cell = metrics.durations("edged_commit_seconds", "Commit").at()
    cell.observe(15)
    cell.observe(10_000_000, times=3)
    found = scraped(metrics)
    assert found["edged_commit_seconds_count", ()] == 4
    assert found["edged_commit_seconds_sum", ()] == pytest.approx(30.000015)
    assert found["edged_commit_seconds_bucket", (("le", "1.5e-05"),)] == 1
    assert found["edged_commit_seconds_bucket", (("le", "1e-05"),)] == 0
    assert found["edged_commit_seconds_bucket", (("le", "10"),)] == 4
    assert found["edged_commit_seconds_bucket", (("le", "+Inf"),)] == 4
    shown = metrics.snapshot()["edged_commit_seconds"]
    assert isinstance(shown, dict)
    assert shown["count"] == 4
    assert 5 < shown["p95"] <= 10


def test_sources_are_asked_only_when_somebody_looks_and_gathered_by_name() -> None:
    asked = []

    def source() -> list[Sample]:
        asked.append(1)
        return [
            Sample("counter", "edged_gaps", "Gaps", {"kind": "sequence"}, 2),
            Sample("gauge", "edged_up", "Up", {}, 1),
            Sample("counter", "edged_gaps", "Gaps", {"kind": "session"}, 1),
            Sample("gauge", "edged_temperature_c", "Temperature", {}, None),
        ]

    metrics = Metrics()
    metrics.add_source(source)
    assert not asked
    assert scraped(metrics) == {
        ("edged_gaps_total", (("kind", "sequence"),)): 2,
        ("edged_gaps_total", (("kind", "session"),)): 1,
        ("edged_up", ()): 1,
    }
    assert metrics.snapshot() == {
        "edged_gaps_total": [{"kind": "sequence", "value": 2}, {"kind": "session", "value": 1}],
        "edged_up": 1,
    }


def test_label_values_from_outside_cannot_grow_memory_without_bound() -> None:
    family = Metrics().counter("edged_events", "Events", "device")
    for number in range(MAX_CELLS + 500):
        family.at(f"device-{number}").value += 1
    assert len(family.cells) == MAX_CELLS + 1
    assert family.at(OVERFLOW).value == 500


def test_the_wrong_number_of_labels_is_our_bug() -> None:
    with pytest.raises(BugError):
        Metrics().counter("edged_events", "Events", "device").at()


def test_hostile_label_values_are_escaped() -> None:
    metrics = Metrics()
    metrics.counter("edged_events", "Events", "device").at('a"\n\\b').value += 1
    assert scraped(metrics) == {("edged_events_total", (("device", 'a"\n\\b'),)): 1}


def test_nobody_who_does_not_scrape_loads_the_client_library() -> None:
    code = "import sys, edged.ops.metrics; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- quantiles ---


def test_quantiles_of_nothing_are_unknown() -> None:
    assert Histogram(DURATION_BOUNDS_US).quantile(0.5) is None


def test_what_lies_above_the_last_bound_is_reported_as_the_last_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(5.0)
    assert histogram.quantile(0.5) == 2.0


def test_a_quantile_is_interpolated_inside_its_bucket() -> None:
    histogram = Histogram((10.0, 20.0))
    histogram.observe(15.0, times=100)
    assert histogram.quantile(0.5) == 15.0
    assert histogram.quantile(1.0) == 20.0


@given(st.lists(st.integers(11, 60_000_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_off_by_less_than_the_width_of_a_bucket(values: list[int], share: float) -> None:
    histogram = Histogram(DURATION_BOUNDS_US)
    for value in values:
        histogram.observe(value)
    found = histogram.quantile(share)
    ordered = sorted(values)
    true = ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
    assert found is not None
    assert true / 1.7 <= found <= true * 1.7


def test_the_bounds_of_durations_ascend() -> None:
    assert list(DURATION_BOUNDS_US) == sorted(set(DURATION_BOUNDS_US))
    assert max(b / a for a, b in pairwise(DURATION_BOUNDS_US)) < 1.7
