"""Waiting times between attempts."""

from __future__ import annotations

import pytest

from edged.mqtt.backoff import Backoff, next_patience


@pytest.mark.parametrize(
    ("failures", "ceiling_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (40, 60), (10_000, 60)]
)
def test_the_ceiling_doubles_up_to_the_cap(failures: int, ceiling_s: float) -> None:
    backoff = Backoff()
    assert backoff.delay_s(failures, 0.0) == 0
    assert backoff.delay_s(failures, 0.5) == ceiling_s / 2
    assert backoff.delay_s(failures, 0.999) < ceiling_s


@pytest.mark.parametrize(("failures", "up_s", "then"), [(0, 0, 1), (5, 0, 6), (5, 59.9, 6), (5, 60, 1), (0, 1e6, 1)])
def test_only_a_stable_connection_makes_it_start_anew(failures: int, up_s: float, then: int) -> None:
    assert Backoff().failures_after(failures, up_s) == then


@pytest.mark.parametrize(
    ("patience", "code", "up_s", "then"),
    [
        (1, "timeout", 0, 2),
        (2, "half_open", 300, 4),
        (6, "timeout", 0, 8),
        (4, "closed", 0, 4),
        (4, "closed", 60, 2),
        (1, "taken_over", 600, 1),
    ],
)
def test_patience_grows_with_ends_of_a_slow_line_and_falls_after_a_stable_connection(
    patience: float, code: str, up_s: float, then: float
) -> None:
    assert next_patience(patience, 8, code, up_s, stable_s=60) == then
