"""How many inputs a call takes and where a model runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.policy.batching import Cost, best_batch, choose_commit, choose_host, fit_cost


def test_the_cost_line_goes_through_both_measurements() -> None:
    cost = fit_cost(50.0, 81.0, 32)
    assert cost == Cost(call_us=49.0, item_us=1.0)
    assert cost.batch_us(1) == 50.0
    assert cost.batch_us(32) == 81.0


def test_noise_never_makes_a_negative_cost() -> None:
    assert fit_cost(90.0, 80.0, 32) == Cost(90.0, 0.0)
    assert fit_cost(10.0, 1000.0, 32).call_us == 0.0


def test_a_quick_model_runs_on_the_loop_and_a_slow_one_on_a_lane() -> None:
    assert choose_host(Cost(40.0, 1.0), inline_max_us=1000) == "inline"
    assert choose_host(Cost(0.0, 200.0), inline_max_us=1000) == "lane"
    assert choose_host(Cost(40.0, 1.0), inline_max_us=0) == "lane"


def test_auto_commits_together_only_while_events_need_not_wait_long() -> None:
    assert choose_commit("auto", Cost(0.0, 200.0), together_max_ms=20) == "together"
    assert choose_commit("auto", Cost(0.0, 15_000.0), together_max_ms=20) == "after"


@pytest.mark.parametrize("wish", ["together", "after"])
def test_a_declared_commit_policy_wins_over_the_measurement(wish: str) -> None:
    for cost in (Cost(0.0, 0.0), Cost(1e6, 1e6)):
        assert choose_commit(wish, cost, together_max_ms=20) == wish  # type: ignore[arg-type]


def test_nothing_waiting_makes_no_batch() -> None:
    assert best_batch(Cost(10.0, 10.0), 0, 50) == 0


def test_a_batch_takes_what_fits_into_the_deadline() -> None:
    assert best_batch(Cost(1000.0, 1000.0), 100, 50) == 49


def test_one_input_is_taken_even_where_the_deadline_cannot_be_met() -> None:
    assert best_batch(Cost(0.0, 90_000.0), 5, 50) == 1
    assert best_batch(Cost(60_000.0, 1.0), 5, 50) == 1


def test_a_free_call_takes_everything_up_to_the_largest_batch() -> None:
    assert best_batch(Cost(0.0, 0.0), 5000, 50, largest=256) == 256


@given(
    call_us=st.floats(0, 1e6),
    item_us=st.floats(0, 1e6),
    waiting=st.integers(1, 10_000),
    deadline_ms=st.floats(1, 60_000),
    largest=st.integers(1, 4096),
)
def test_a_batch_is_within_its_bounds_and_meets_the_deadline_if_one_item_does(
    call_us: float, item_us: float, waiting: int, deadline_ms: float, largest: int
) -> None:
    cost = Cost(call_us, item_us)
    size = best_batch(cost, waiting, deadline_ms, largest=largest)
    assert 1 <= size <= min(waiting, largest)
    if item_us and cost.batch_us(1) <= deadline_ms * 1000:
        assert cost.batch_us(size) <= deadline_ms * 1000 * (1 + 1e-9)
