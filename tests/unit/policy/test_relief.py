"""Which windows are answered under pressure: the declared share, evenly, and of every device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.policy.governor import LEVELS, Measures, declares
from edged.policy.relief import NOT_ESSENTIAL, NOTHING_ASKED, SLOWED, Declared, Thinning, share_of


@pytest.mark.parametrize("level", LEVELS)
def test_a_pipeline_that_declares_nothing_and_raises_alarms_is_answered_whole_at_every_level(level: str) -> None:
    assert share_of(declares(level), Declared(may_slow=False, raises_alarms=True)) == 1.0  # type: ignore[arg-type]


def test_a_pipeline_that_may_be_slowed_is_answered_at_the_rate_of_the_level() -> None:
    shares = [share_of(declares(level), Declared(may_slow=True, raises_alarms=True)) for level in LEVELS]
    assert shares == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_pipeline_without_alarms_is_not_answered_when_only_alarms_count() -> None:
    assert share_of(declares("essential"), Declared(may_slow=False)) == 0.0
    assert share_of(NOTHING_ASKED, Declared(may_slow=True)) == 1.0


def test_nothing_is_left_out_at_full_share() -> None:
    thinning = Thinning()
    assert not thinning.active
    assert all(thinning.takes("a") for _ in range(5))


def test_half_of_the_windows_of_each_device_are_answered_the_first_one_included() -> None:
    thinning = Thinning()
    thinning.set(0.5)
    assert (thinning.active, thinning.reason) == (True, SLOWED)
    assert [thinning.takes("a") for _ in range(6)] == [True, False, True, False, True, False]
    assert thinning.takes("b")  # devices that take turns must not leave one of them silent


def test_a_share_of_nothing_takes_nothing_and_says_why() -> None:
    thinning = Thinning()
    thinning.set(0.0)
    assert thinning.reason == NOT_ESSENTIAL
    assert not any(thinning.takes("a") for _ in range(5))


def test_the_same_share_again_changes_nothing() -> None:
    thinning = Thinning()
    thinning.set(0.5)
    assert thinning.takes("a")
    thinning.set(0.5)
    assert not thinning.takes("a")
    thinning.set(0.25)
    assert thinning.takes("a")


@given(st.floats(0.01, 1.0), st.integers(1, 200))
def test_the_answered_share_is_never_off_by_more_than_one_window(share: float, count: int) -> None:
    thinning = Thinning()
    thinning.set(share)
    taken = sum(thinning.takes("a") for _ in range(count))
    assert abs(taken - share * count) <= 1


def test_measures_of_full_work_ask_for_nothing() -> None:
    assert NOTHING_ASKED == declares("full") == Measures(1.0, False, False, False)
