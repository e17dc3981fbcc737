"""The derived mode: entered at once, left with hysteresis, always with its reasons."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.policy.causes import CAUSES, MACHINES, MEANINGS, MODES, OF_ONE_PIPELINE, Machine
from edged.policy.governor import LADDER, LINGERING, RUNGS
from edged.policy.governor import Cause as Row
from edged.policy.mode import (
    Cleared,
    Event,
    ModeChanged,
    ModeState,
    Raised,
    Reason,
    ReasonEntered,
    ReasonLeft,
    Tick,
    degrades,
    derive,
    step,
)


def run(*events: tuple[int, Event]) -> ModeState:
    """The state after (monotonic ms, event) pairs; wall time runs 1000 ms ahead."""
    state = ModeState()
    for mono_ms, event in events:
        state, _ = step(state, event, mono_ms=mono_ms, wall_ms=mono_ms + 1000)
    return state


def test_a_gateway_without_reasons_is_normal() -> None:
    assert ModeState().mode == "normal"
    assert derive([]) == "normal"


def test_a_reason_changes_the_mode_at_once_and_says_since_when() -> None:
    state, effects = step(ModeState(), Raised("broker_away", detail="closed"), mono_ms=5, wall_ms=1005)
    (reason,) = state.reasons
    assert state.mode == "offline"
    assert state.since_ms == reason.since_ms == 1005
    assert reason.detail == "closed"
    assert effects == (ReasonEntered(reason), ModeChanged("normal", "offline"))


def test_raising_again_updates_the_detail_and_keeps_since() -> None:
    state = run((0, Raised("broker_away", detail="closed")))
    again, effects = step(state, Raised("broker_away", detail="refused"), mono_ms=70, wall_ms=1070)
    assert again.reasons[0].since_ms == 1000
    assert again.reasons[0].detail == "refused"
    assert effects == ()


def test_the_worst_reason_decides_whatever_the_order() -> None:
    state = run((0, Raised("model_unusable", "pump")), (1, Raised("broker_away")), (2, Raised("store_full")))
    assert state.mode == "safe"
    assert state.codes == ("model_unusable", "broker_away", "store_full")
    assert state.since_ms == 1000


def test_a_reason_stays_for_its_holding_time_after_its_cause_has_gone() -> None:
    hold_ms = CAUSES["broker_away"].hold_s * 1000
    state = run((0, Raised("broker_away")), (100, Cleared("broker_away")))
    state, effects = step(state, Tick(), mono_ms=100 + hold_ms - 1, wall_ms=0)
    assert (state.mode, effects) == ("offline", ())
    state, effects = step(state, Tick(), mono_ms=100 + hold_ms, wall_ms=77)
    assert (state.mode, state.reasons, state.since_ms) == ("normal", (), 77)
    assert [type(effect) for effect in effects] == [ReasonLeft, ModeChanged]


def test_a_flapping_cause_keeps_its_reason_and_restarts_the_holding_time() -> None:
    hold_ms = CAUSES["broker_away"].hold_s * 1000
    state = run(
        (0, Raised("broker_away")),
        (100, Cleared("broker_away")),
        (200, Raised("broker_away", detail="again")),
        (300, Cleared("broker_away")),
    )
    state, _ = step(state, Tick(), mono_ms=100 + hold_ms, wall_ms=0)
    assert state.mode == "offline"
    state, _ = step(state, Tick(), mono_ms=300 + hold_ms, wall_ms=0)
    assert state.mode == "normal"


def test_clearing_twice_does_not_prolong_the_holding_time() -> None:
    hold_ms = CAUSES["gap"].hold_s * 1000
    state = run((0, Raised("gap")), (10, Cleared("gap")), (hold_ms, Cleared("gap")), (hold_ms + 10, Tick()))
    assert state.mode == "normal"


def test_one_pipeline_that_recovers_leaves_the_reason_of_the_other() -> None:
    state = run(
        (0, Raised("fallback_runtime", "pump")),
        (0, Raised("fallback_runtime", "valve")),
        (10, Cleared("fallback_runtime", "pump")),
        (1_000_000, Tick()),
    )
    assert [reason.subject for reason in state.reasons] == ["valve"]
    assert state.codes == ("fallback_runtime",)
    assert state.mode == "degraded"


def test_clearing_what_was_never_raised_changes_nothing() -> None:
    assert step(ModeState(), Cleared("gap"), mono_ms=0, wall_ms=0) == (ModeState(), ())


def test_an_unsynchronised_clock_is_said_but_does_not_degrade_a_gateway_without_time_source() -> None:
    state = run((0, Raised("clock_unsynced")))
    assert state.mode == "normal"
    assert state.codes == ("clock_unsynced",)


def test_an_unknown_code_is_our_bug() -> None:
    with pytest.raises(KeyError):
        step(ModeState(), Raised("made_up"), mono_ms=0, wall_ms=0)


def test_every_mode_has_a_meaning_and_every_mode_but_normal_a_cause() -> None:
    assert set(MEANINGS) == set(MODES)
    assert {cause.mode for cause in CAUSES.values()} == set(MODES)


_events = st.one_of(
    st.builds(Raised, st.sampled_from(sorted(CAUSES)), st.sampled_from(["", "pump"])),
    st.builds(Cleared, st.sampled_from(sorted(CAUSES)), st.sampled_from(["", "pump"])),
    st.just(Tick()),
)


@given(st.lists(st.tuples(st.integers(0, 100_000), _events), max_size=40))
def test_whatever_happens_effects_tell_every_change_and_quiet_ends_in_normal(steps: list[tuple[int, Event]]) -> None:
    state, mono_ms = ModeState(), 0
    for elapsed_ms, event in steps:
        mono_ms += elapsed_ms
        before = state
        state, effects = step(state, event, mono_ms=mono_ms, wall_ms=mono_ms)
        keys = {(reason.code, reason.subject) for reason in state.reasons}
        assert len(keys) == len(state.reasons)
        entered = {(e.reason.code, e.reason.subject) for e in effects if isinstance(e, ReasonEntered)}
        left = {(e.reason.code, e.reason.subject) for e in effects if isinstance(e, ReasonLeft)}
        assert keys == {(reason.code, reason.subject) for reason in before.reasons} - left | entered
        assert any(isinstance(e, ModeChanged) for e in effects) == (before.mode != state.mode)
    for reason in state.reasons:
        state, _ = step(state, Cleared(reason.code, reason.subject), mono_ms=mono_ms, wall_ms=0)
    state, _ = step(state, Tick(), mono_ms=mono_ms + 10**9, wall_ms=0)
    assert (state.mode, state.reasons) == ("normal", ())


def test_results_are_degraded_by_their_own_pipeline_and_by_what_concerns_all_and_by_nothing_else() -> None:
    def reason(code: str, subject: str = "") -> Reason:
        return Reason(code, subject, 0, "")

    assert degrades([reason("model_unusable", "pump")], "pump")
    assert not degrades([reason("model_unusable", "pump")], "fan")
    assert degrades([reason("store_full")], "fan")
    assert not degrades([reason("broker_away"), reason("clock_unsynced")], "fan")
    assert set(CAUSES) >= OF_ONE_PIPELINE


def test_every_cause_belongs_to_exactly_one_of_the_small_machines() -> None:
    assert set(MACHINES) == set(CAUSES)
    assert set(MACHINES.values()) == set(get_args(Machine))


@pytest.mark.parametrize("row", LADDER, ids=lambda row: row.code)
def test_a_reason_of_the_governor_asks_for_the_mode_of_its_level_and_is_held_by_the_governor_alone(row: Row) -> None:
    cause = CAUSES[row.code]
    assert (cause.mode, cause.hold_s) == (RUNGS[row.level].mode, 0)


def test_a_reason_of_the_governor_takes_nothing_from_the_results_of_a_pipeline_that_is_not_slowed() -> None:
    assert not degrades([Reason("heat_critical", "", 0, ""), Reason(LINGERING, "", 0, "")], "pump")
