"""The governor: at once up, slowly down, never by what is unknown, and always with its reasons."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.policy.governor import (
    ACCELERATOR_STATES,
    EASING,
    LADDER,
    LEVELS,
    RUNGS,
    STEP_HOLD_S,
    Cause,
    Facts,
    GovernorState,
    Level,
    LevelChanged,
    ReasonEntered,
    ReasonLeft,
    declares,
    step,
)

GOOD = Facts(30, 40, False, 0.8, 0.0, 0.5, 1e11, 30.0, 0.0, 0.0, "ok")
BY_CODE = {cause.code: cause for cause in LADDER}
STEP_MS = STEP_HOLD_S * 1000


def run(state: GovernorState, *samples: tuple[int, Facts]) -> GovernorState:
    """The state after (monotonic ms, facts) pairs."""
    for mono_ms, facts in samples:
        state, _ = step(state, facts, mono_ms=mono_ms)
    return state


def pressed(code: str) -> Facts:
    """Good facts but for the one that raises this reason."""
    cause = BY_CODE[code]
    value: Any = cause.enter
    if cause.fact == "throttled":
        value = True
    elif cause.fact == "accelerator":
        value = ACCELERATOR_STATES[int(cause.enter)]
    return GOOD._replace(**{cause.fact: value})


def entered(code: str, mono_ms: int = 0) -> GovernorState:
    return run(GovernorState(), *((mono_ms, pressed(code)) for _ in range(BY_CODE[code].samples)))


def test_a_gateway_without_pressure_does_all_of_its_work() -> None:
    state, effects = step(GovernorState(), GOOD, mono_ms=0)
    assert (state.level, state.codes, state.unknown, effects) == ("full", (), (), ())


@pytest.mark.parametrize("code", BY_CODE)
def test_every_reason_is_entered_after_its_samples_and_takes_the_gateway_to_its_level_at_once(code: str) -> None:
    cause, state = BY_CODE[code], GovernorState()
    for _ in range(cause.samples - 1):
        state = run(state, (0, pressed(code)))
        assert code not in state.codes
    state, effects = step(state, pressed(code), mono_ms=0)
    assert code in state.codes
    assert state.level == cause.level
    assert any(isinstance(effect, ReasonEntered) and effect.code == code and effect.detail for effect in effects)
    assert any(isinstance(effect, LevelChanged) and effect.after == cause.level for effect in effects)


def test_a_single_bad_sample_between_good_ones_counts_for_nothing() -> None:
    bad, state = pressed("heat_near_throttling"), GovernorState()
    for number in range(10):
        state = run(state, (number, bad), (number, bad), (number, GOOD))
    assert state.level == "full"


def test_the_detail_of_a_reason_names_the_value_for_people() -> None:
    _, effects = step(GovernorState(), GOOD._replace(critical_margin_c=2.5), mono_ms=0)
    assert effects == (
        ReasonEntered("heat_critical", "about to be switched off by heat (critical_margin_c: 2.5)"),
        LevelChanged("full", "essential"),
    )


def test_the_worst_reason_decides_and_stands_first() -> None:
    both = GOOD._replace(accelerator="fallback", disk_free_bytes=1e6)
    state = run(GovernorState(), (0, both), (0, both), (0, both))
    assert (state.level, state.codes) == ("essential", ("disk_full", "disk_very_low", "accelerator_fallback"))


def test_a_reason_leaves_after_its_holding_time_and_the_level_one_step_at_a_time_after_it() -> None:
    hold_ms = BY_CODE["heat_critical"].hold_s * 1000
    state = run(entered("heat_critical"), (1000, GOOD), (1000 + hold_ms - 1, GOOD))
    assert (state.level, state.codes) == ("essential", ("heat_critical",))
    state, effects = step(state, GOOD, mono_ms=1000 + hold_ms)
    assert (state.level, state.codes) == ("essential", (EASING,))
    assert effects == (ReasonEntered(EASING, ""), ReasonLeft("heat_critical"))
    at_ms = 1000 + hold_ms
    for before, after in pairwise(reversed(LEVELS)):
        state, effects = step(state, GOOD, mono_ms=at_ms + STEP_MS - 1)
        assert (state.level, effects) == (before, ())
        at_ms += STEP_MS
        state, effects = step(state, GOOD, mono_ms=at_ms)
        assert state.level == after
        assert effects[-1] == LevelChanged(before, after)
    assert (state.codes, effects[0]) == ((), ReasonLeft(EASING))


def test_between_its_two_thresholds_a_reason_stays_for_ever() -> None:
    state = entered("memory_low")
    for hours in range(10):
        state = run(state, (hours * 3_600_000, GOOD._replace(memory_available_share=0.12)))
    assert state.codes == ("memory_low",)


def test_a_value_that_comes_back_restarts_the_holding_time() -> None:
    hold_ms = BY_CODE["queue_late"].hold_s * 1000
    middling = GOOD._replace(queue_deadline_ratio=0.6)
    state = run(entered("queue_late"), (0, GOOD), (hold_ms - 1, middling), (hold_ms, GOOD), (2 * hold_ms - 1, GOOD))
    assert state.codes == ("queue_late",)
    assert run(state, (2 * hold_ms, GOOD)).codes == (EASING,)


def test_pressure_that_returns_takes_the_level_back_at_once() -> None:
    hold_ms = BY_CODE["accelerator_failed"].hold_s * 1000
    state = run(entered("accelerator_failed"), (0, GOOD), (hold_ms, GOOD), (hold_ms + STEP_MS, GOOD))
    assert (state.level, state.codes) == ("lower_rate", (EASING,))
    state, effects = step(state, pressed("accelerator_failed"), mono_ms=hold_ms + STEP_MS + 1)
    assert state.level == "smaller_model"
    assert LevelChanged("lower_rate", "smaller_model") in effects
    assert ReasonLeft(EASING) in effects


def test_the_level_eases_down_to_what_a_lighter_reason_still_asks_for() -> None:
    failed, fallback = pressed("accelerator_failed"), pressed("accelerator_fallback")
    state = run(GovernorState(), (0, failed), (0, fallback), (60_000, fallback))
    assert (state.level, state.codes) == ("smaller_model", ("accelerator_fallback",))
    state = run(state, (60_000 + STEP_MS, fallback), (60_000 + 9 * STEP_MS, fallback))
    assert (state.level, state.codes) == ("lower_rate", ("accelerator_fallback",))


def test_what_is_unknown_raises_nothing_and_is_told() -> None:
    state = GovernorState()
    for number in range(10):
        state, effects = step(state, Facts(throttled=False, store_room_days=float("nan")), mono_ms=number)
        assert effects == ()
    assert state.level == "full"
    assert set(state.unknown) == set(Facts._fields) - {"throttled"}


def test_what_becomes_unknown_lowers_nothing_and_restarts_the_holding_time() -> None:
    state = run(entered("heat_critical"), (0, GOOD), (10**9, Facts()))
    assert state.level == "essential"
    state = run(state, (2 * 10**9, GOOD))
    assert "heat_critical" in state.codes
    assert "heat_critical" not in run(state, (2 * 10**9 + 300_000, GOOD)).codes


def test_an_unknown_sample_between_bad_ones_neither_counts_nor_hinders() -> None:
    bad = pressed("throttled")
    state = run(GovernorState(), *((0, bad), (0, Facts())) * 4)
    assert state.level == "full"
    assert run(state, (0, bad)).level == "smaller_model"


def test_a_ladder_of_another_length_or_a_state_that_is_none_is_our_bug() -> None:
    with pytest.raises(ValueError, match="zip"):
        step(entered("throttled"), GOOD, mono_ms=0, ladder=LADDER[:3])
    with pytest.raises(ValueError, match="index"):
        step(GovernorState(), GOOD._replace(accelerator="gone"), mono_ms=0)  # type: ignore[arg-type]


def test_a_ladder_of_ones_own_is_followed() -> None:
    own = (Cause("hot", "throttle_margin_c", "falls", 0, 1, 1, 1, "summaries", "hot"),)
    state, _ = step(GovernorState(), Facts(throttle_margin_c=-1), mono_ms=0, ladder=own)
    assert (state.level, state.codes, state.unknown) == ("summaries", ("hot",), ())


def test_the_table_is_sound() -> None:
    assert len(BY_CODE) == len(LADDER)
    assert EASING not in BY_CODE
    assert {cause.fact for cause in LADDER} == set(Facts._fields)
    assert {cause.level for cause in LADDER} == set(LEVELS) - {"full"}
    for cause in LADDER:
        easier = cause.leave - cause.enter if cause.worse == "falls" else cause.enter - cause.leave
        assert easier > 0, f"{cause.code}: no hysteresis"
        assert cause.samples >= 1
        assert cause.hold_s > 0
    assert tuple(RUNGS) == LEVELS


def test_each_level_gives_up_what_the_one_before_it_does_and_more() -> None:
    assert declares("full") == (1.0, False, False, False)
    for before, after in pairwise(LEVELS):
        less, more = declares(before), declares(after)
        assert more != less
        assert more.rate_factor <= less.rate_factor
        assert all(now >= then for then, now in zip(less[1:], more[1:], strict=True))


# --- whatever happens ------------------------------------------------------------------------------------------------


def _around(fact: str) -> list[float]:
    """The thresholds of a fact, what lies between and beyond them, from the easiest to the worst."""
    causes = [cause for cause in LADDER if cause.fact == fact]
    points = sorted({value for cause in causes for value in (cause.enter, cause.leave)})
    between = [(low + high) / 2 for low, high in pairwise(points)]
    values = sorted([*points, *between, points[0] - 1, points[-1] + 1])
    return values if causes[0].worse == "rises" else values[::-1]


NUMBERS = {name: _around(name) for name in Facts._fields if name not in {"throttled", "accelerator"}}
EASIEST_FIRST: dict[str, list[Any]] = {
    **NUMBERS,
    "throttled": [False, True],
    "accelerator": list(ACCELERATOR_STATES),
}
"""Values of each fact by growing pressure."""

_places = st.fixed_dictionaries(
    {name: st.none() | st.integers(0, len(values) - 1) for name, values in EASIEST_FIRST.items()}
)
_gaps_ms = st.sampled_from([0, 1, 2000, 10_000, 29_999, 30_000, 61_000, 700_000])
_histories = st.lists(st.tuples(_gaps_ms, _places), max_size=25)


def facts_at(places: dict[str, int | None]) -> Facts:
    return Facts(**{name: None if place is None else EASIEST_FIRST[name][place] for name, place in places.items()})


def levels(history: Iterable[tuple[int, Facts]]) -> list[tuple[int, Level]]:
    """(monotonic ms, level) after each sample; checks on the way that effects tell every change and nothing else."""
    state, mono_ms, found = GovernorState(), 0, []
    for gap_ms, facts in history:
        mono_ms += gap_ms
        before = state
        state, effects = step(state, facts, mono_ms=mono_ms)
        assert (state, effects) == step(before, facts, mono_ms=mono_ms)
        came = {effect.code for effect in effects if isinstance(effect, ReasonEntered)}
        went = {effect.code for effect in effects if isinstance(effect, ReasonLeft)}
        assert set(state.codes) == set(before.codes) - went | came
        assert not came & went
        assert [effect for effect in effects if isinstance(effect, LevelChanged)] == (
            [LevelChanged(before.level, state.level)] if before.level != state.level else []
        )
        assert bool(state.codes) == (state.level != "full")
        found.append((mono_ms, state.level))
    return found


@given(_histories)
def test_the_level_falls_by_single_steps_and_never_within_the_holding_time_of_its_last_change(
    history: list[tuple[int, dict[str, int | None]]],
) -> None:
    changed_ms, now = 0, 0
    for mono_ms, level in levels((gap_ms, facts_at(places)) for gap_ms, places in history):
        then, now = now, LEVELS.index(level)
        if now < then:
            assert now == then - 1
            assert mono_ms - changed_ms >= STEP_MS
        if now != then:
            changed_ms = mono_ms


@given(_histories, st.lists(st.fixed_dictionaries({name: st.integers(0, 3) for name in EASIEST_FIRST}), max_size=25))
def test_more_pressure_never_means_a_lighter_level(
    history: list[tuple[int, dict[str, int | None]]], extra: list[dict[str, int]]
) -> None:
    extra = extra + [dict.fromkeys(EASIEST_FIRST, 0)] * (len(history) - len(extra))
    harder = [
        (
            gap_ms,
            {
                name: None if place is None else min(place + more[name], len(EASIEST_FIRST[name]) - 1)
                for name, place in places.items()
            },
        )
        for (gap_ms, places), more in zip(history, extra, strict=False)
    ]
    light = levels((gap_ms, facts_at(places)) for gap_ms, places in history)
    heavy = levels((gap_ms, facts_at(places)) for gap_ms, places in harder)
    for (_, less), (_, more_level) in zip(light, heavy, strict=True):
        assert LEVELS.index(more_level) >= LEVELS.index(less)


@given(_histories)
def test_after_enough_quiet_everything_is_full_again(history: list[tuple[int, dict[str, int | None]]]) -> None:
    state, mono_ms = GovernorState(), 0
    for gap_ms, places in history:
        mono_ms += gap_ms
        state, _ = step(state, facts_at(places), mono_ms=mono_ms)
    for _ in range(8):
        mono_ms += 700_000
        state, _ = step(state, GOOD, mono_ms=mono_ms)
    assert (state.level, state.codes) == ("full", ())
