"""What is asked about: a band of scores, a budget that fills with time, first come first served."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.policy.cascade import Band, Bucket, choose, full_bucket

BAND = Band(0.2, 0.7)
SECOND = 1_000_000_000


def test_the_band_has_its_lower_end_and_not_its_upper_one_and_no_answer_is_outside() -> None:
    assert [BAND.holds(score) for score in (0.1, 0.2, 0.5, 0.7, None)] == [False, True, True, False, False]


def test_what_came_first_has_the_first_claim_and_the_rest_is_shed() -> None:
    choice = choose([0.9, 0.5, None, 0.3, 0.6], BAND, Bucket(2.0, 2.0, 0))
    assert (choice.ask, choice.shed, choice.bucket.tokens) == ((1, 3), (4,), 0.0)


def test_a_budget_fills_with_time_up_to_one_second_of_it_and_never_by_a_clock_that_goes_back() -> None:
    empty = Bucket(4.0, 0.0, SECOND)
    assert empty.at(SECOND + SECOND // 2).tokens == 2.0
    assert empty.at(60 * SECOND).tokens == 4.0
    assert empty.at(0) == empty


def test_less_than_one_question_a_second_saves_up_to_one() -> None:
    bucket = full_bucket(0.5, 0)
    assert bucket.tokens == 1.0
    spent = choose([0.5, 0.5], BAND, bucket)
    assert (spent.ask, spent.shed) == ((0,), (1,))
    assert choose([0.5], BAND, spent.bucket.at(SECOND)).shed == (0,)
    assert choose([0.5], BAND, spent.bucket.at(2 * SECOND)).ask == (0,)


@given(
    st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 5)), max_size=30),
    st.floats(0.1, 20, allow_nan=False),
)
def test_never_more_is_asked_than_the_budget_of_the_time_and_one_burst(
    calls: list[tuple[int, int]], per_s: float
) -> None:
    bucket, now_ns, asked = full_bucket(per_s, 0), 0, 0
    for pause_ns, rows in calls:
        now_ns += pause_ns
        choice = choose([0.5] * rows, BAND, bucket.at(now_ns))
        asked += len(choice.ask)
        assert len(choice.ask) + len(choice.shed) == rows
        bucket = choice.bucket
    assert asked <= max(1.0, per_s) + per_s * now_ns / SECOND + 1e-6
