"""Which rung serves: it falls at once and returns when it has proved itself; a liar is never believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.policy.chain import (
    MEANINGS,
    ChainState,
    Event,
    Failed,
    Limits,
    Load,
    Loaded,
    Probe,
    Probed,
    Serve,
    Tick,
    Unload,
    start,
    step,
)
from edged.policy.faults import FAULTS

LIMITS = Limits()


class Bench:
    """A chain whose clock the test moves; `effects` are those of the last event."""

    def __init__(self, *names: str, limits: Limits = LIMITS) -> None:
        self.state = start(names or ("best", "next"))
        self.now_ms = 0
        self.limits = limits
        self.effects: tuple[object, ...] = ()

    def see(self, event: Event, after_s: float = 0.0) -> tuple[object, ...]:
        self.now_ms += round(after_s * 1000)
        self.state, self.effects = step(self.state, event, self.now_ms, self.limits)
        return self.effects

    def states(self) -> list[str]:
        return [rung.state for rung in self.state.rungs]

    def serving_both(self) -> Bench:
        """The best serves, the next is warm."""
        self.see(Tick())
        self.see(Loaded(0))
        self.see(Loaded(1))
        assert (self.state.serving, self.states()[:2]) == (0, ["ready", "ready"])
        return self

    def fallen(self, code: str = "worker_crashed") -> Bench:
        self.see(Failed(0, code, "scripted"))
        assert self.state.serving == 1
        return self

    def reloaded(self) -> Bench:
        """The best has been loaded again and is on probation."""
        self.see(Tick(), after_s=700)
        assert Load(0) in self.effects
        self.see(Loaded(0))
        assert self.state.serving == 1
        return self

    def probed(self, times: int, every_s: float) -> Bench:
        for _ in range(times):
            self.see(Tick(), after_s=every_s)
            if self.state.serving == 0:
                break
            assert Probe(0) in self.effects
            self.see(Probed(0))
        return self


def test_at_the_start_the_best_rung_is_loaded_first_and_serves_at_once_with_the_next_one_warm() -> None:
    bench = Bench("a", "b", "c")
    assert bench.see(Tick()) == (Load(0),)
    assert bench.see(Tick()) == ()
    assert bench.see(Loaded(0)) == (Serve(None, 0, "loaded", "a is the first that can serve"), Load(1))
    assert bench.see(Loaded(1)) == ()
    assert bench.states() == ["ready", "ready", "cold"]


def test_a_rung_that_loads_for_long_lets_the_next_one_serve_and_takes_over_when_it_is_there() -> None:
    bench = Bench()
    bench.see(Tick())
    assert bench.see(Tick(), after_s=1) == ()
    assert bench.see(Tick(), after_s=1.5) == (Load(1),)
    bench.see(Loaded(1))
    assert bench.state.serving == 1
    bench.see(Loaded(0), after_s=300)
    assert bench.state.serving == 0, "it has never failed: there is nothing to wait for"


def test_a_failure_of_the_serving_rung_is_answered_by_the_next_at_once() -> None:
    bench = Bench().serving_both()
    effects = bench.see(Failed(0, "infer_timeout", "no answer"))
    assert effects[:2] == (Unload(0), Serve(0, 1, "infer_timeout", "no answer"))
    assert bench.states() == ["resting", "ready"]


def test_pauses_between_attempts_double_up_to_a_bound() -> None:
    bench = Bench().serving_both().fallen("device_unavailable")
    pauses = []
    for _ in range(12):
        rung = bench.state.rungs[0]
        pauses.append((rung.retry_at_ms - bench.now_ms) / 1000)
        bench.see(Tick(), after_s=pauses[-1])
        assert Load(0) in bench.effects
        bench.see(Failed(0, "device_unavailable"))
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]


def test_a_better_rung_returns_only_after_several_probes_over_its_holding_time() -> None:
    bench = Bench().serving_both().fallen().reloaded().probed(3, every_s=2)
    assert bench.state.serving == 1, "six seconds are too soon"
    bench.probed(2, every_s=2)
    assert bench.state.serving == 0
    assert Serve(1, 0, "returned", "best answers rightly") in bench.effects
    assert bench.state.rungs[0].failures == 0


def test_a_rung_does_not_return_while_it_is_being_probed() -> None:
    bench = Bench().serving_both().fallen().reloaded().probed(3, every_s=2)
    bench.see(Tick(), after_s=2)
    assert bench.state.rungs[0].probing
    bench.see(Tick(), after_s=100)
    assert bench.state.serving == 1
    bench.see(Probed(0))
    assert bench.state.serving == 0


def test_a_probe_that_fails_sends_the_rung_back_to_rest() -> None:
    bench = Bench().serving_both().fallen().reloaded()
    assert bench.see(Failed(0, "infer_timeout"))[0] == Unload(0)
    assert (bench.state.serving, bench.states()[0]) == (1, "resting")


def test_who_relapses_soon_after_a_return_has_to_wait_twice_as_long() -> None:
    bench = Bench().serving_both()
    holds = []
    for _ in range(9):
        bench.fallen("device_unavailable")
        holds.append(bench.state.rungs[0].hold_s)
        bench.reloaded()
        while bench.state.serving == 1:
            bench.probed(1, every_s=50)
    assert holds == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_who_has_served_well_for_long_begins_anew() -> None:
    bench = Bench().serving_both().fallen().reloaded().probed(5, every_s=3)
    bench.see(Tick(), after_s=601)
    bench.fallen()
    assert (bench.state.rungs[0].failures, bench.state.rungs[0].hold_s) == (1, 10)


def test_beyond_the_budget_of_restarts_the_device_needs_a_power_cycle_and_is_tried_at_long_intervals() -> None:
    bench = Bench().serving_both().fallen()
    for _ in range(LIMITS.restarts_count):
        bench.see(Failed(0, "worker_crashed"), after_s=1)
    rung = bench.state.rungs[0]
    assert rung.state == "power_cycle"
    assert rung.retry_at_ms - bench.now_ms == 1_800_000
    assert len(rung.restarts) == LIMITS.restarts_count + 1
    bench.see(Tick(), after_s=1800)
    assert Load(0) in bench.effects


def test_a_device_that_says_so_itself_needs_a_power_cycle_at_once() -> None:
    assert Bench().serving_both().fallen("needs_power_cycle").states()[0] == "power_cycle"


def test_failures_that_lie_far_apart_do_not_use_up_the_budget() -> None:
    bench = Bench().serving_both().fallen()
    for _ in range(3 * LIMITS.restarts_count):
        bench.see(Failed(0, "worker_crashed"), after_s=150)
    assert bench.states()[0] == "resting"


@pytest.mark.parametrize("code", [code for code, fault in FAULTS.items() if fault.action == "disable"])
def test_a_rung_that_trying_again_would_not_change_is_out_for_good(code: str) -> None:
    bench = Bench().serving_both().fallen(code)
    for event in (Tick(), Loaded(0), Probed(0), Failed(0, "io")):
        bench.see(event, after_s=10_000)
    assert (bench.states()[0], bench.state.rungs[0].code, bench.state.serving) == ("disabled", code, 1)


def test_without_any_rung_nobody_serves_until_one_can_be_loaded() -> None:
    bench = Bench().serving_both().fallen()
    bench.see(Failed(1, "infer_timeout", "gone, too"))
    assert bench.state.serving is None
    assert Serve(1, None, "infer_timeout", "gone, too") in bench.effects
    bench.see(Tick(), after_s=2)
    bench.see(Loaded(0))
    assert bench.state.serving == 0


def test_when_the_serving_rung_falls_one_on_probation_is_better_than_none() -> None:
    bench = Bench().serving_both().fallen().reloaded()
    bench.see(Failed(1, "infer_timeout", "both"))
    assert bench.state.serving == 0
    assert Serve(1, 0, "infer_timeout", "both") in bench.effects


def test_after_a_return_only_so_many_rungs_below_stay_loaded() -> None:
    bench = Bench("a", "b", "c").serving_both()
    bench.fallen()
    bench.see(Loaded(2))
    assert bench.states()[1:] == ["ready", "ready"]
    bench.reloaded().probed(5, every_s=3)
    assert bench.state.serving == 0
    assert bench.states() == ["ready", "ready", "cold"]
    assert Unload(2) in bench.effects


def test_a_warm_rung_that_dies_is_replaced_by_the_one_below() -> None:
    bench = Bench("a", "b", "c").serving_both()
    bench.see(Failed(1, "worker_crashed"))
    assert (bench.state.serving, Load(2) in bench.effects) == (0, True)


def test_what_is_kept_warm_is_asked_seldom_and_loaded_anew_when_it_has_died() -> None:
    bench = Bench().serving_both()
    assert bench.see(Tick(), after_s=59) == ()
    assert bench.see(Tick(), after_s=1) == (Probe(1),)
    assert bench.see(Tick(), after_s=60) == (), "one question at a time"
    bench.see(Probed(1))
    assert bench.see(Tick(), after_s=60) == (Probe(1),)
    assert bench.see(Failed(1, "worker_crashed")) == (Unload(1),)
    assert (bench.see(Tick(), after_s=2), bench.state.serving) == ((Load(1),), 0)


def test_a_load_or_a_probe_that_nobody_asked_for_changes_nothing() -> None:
    bench = Bench()
    assert bench.see(Probed(0)) == (Load(0),)
    bench.see(Loaded(1))
    assert bench.states() == ["loading", "cold"]


# --- whatever happens ---

EVENTS = st.one_of(
    st.just(Tick()),
    st.builds(Loaded, st.integers(0, 2)),
    st.builds(Probed, st.integers(0, 2)),
    st.builds(Failed, st.integers(0, 2), st.sampled_from([*FAULTS, "made_up"]), st.just("x")),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 2000)), max_size=60), st.integers(0, 2))
def test_whatever_happens_the_table_keeps_its_promises(events: list[tuple[Event, float]], warm: int) -> None:
    bench = Bench("a", "b", "c", limits=LIMITS._replace(warm_count=warm))
    loaded: set[int] = set()
    for event, after_s in events:
        before = bench.state
        if isinstance(event, Loaded) and before.rungs[event.rung].state == "loading":
            loaded.add(event.rung)
        bench.see(event, after_s)
        _check(before, event, bench, loaded)


def _check(before: ChainState, event: Event, bench: Bench, loaded: set[int]) -> None:
    state, effects = bench.state, bench.effects
    loaded -= {effect.rung for effect in effects if isinstance(effect, Unload)}
    ready = [at for at, rung in enumerate(state.rungs) if rung.state == "ready"]
    assert set(ready) == loaded, "what is loaded is known, and everything else was let go"
    assert (state.serving in ready) if ready else (state.serving is None), "somebody serves if anybody can"
    for old, new in zip(before.rungs, state.rungs, strict=True):
        assert old.state != "disabled" or new.state == "disabled", "a liar is never believed again"
        assert new.state in MEANINGS
        assert len(new.restarts) <= bench.limits.restarts_count + 1
    switches = [effect for effect in effects if isinstance(effect, Serve)]
    assert [(s.before, s.after) for s in switches] == (
        [] if before.serving == state.serving else [(before.serving, state.serving)]
    )
    loads = [effect.rung for effect in effects if isinstance(effect, Load)]
    assert len(loads) <= 1
    assert all(before.rungs[at].state not in ("ready", "loading", "disabled") or _failed(event, at) for at in loads)
    assert all(state.rungs[effect.rung].probing for effect in effects if isinstance(effect, Probe))
    if state.serving is not None and before.serving is not None and state.serving < before.serving:
        rung, was_up = (
            state.rungs[state.serving],
            before.rungs[before.serving].state == state.rungs[before.serving].state,
        )
        proved = rung.probes >= bench.limits.return_probes or not rung.code
        assert proved or not was_up, "a better rung serves again only when it has proved itself, or nobody else can"


def _failed(event: Event, at: int) -> bool:
    return isinstance(event, Failed) and event.rung == at
