"""Which rung of a chain of runtimes serves, when a fallen one is tried again, and when the chain returns to it. Pure.

A rung is one `runtime:device`; rung 0 is the best. Whoever loads, probes and calls them reports what happened as events
and carries out the effects. Falling is immediate. Returning takes several good probes over a holding time, which
doubles each time the rung falls again soon after a return: what comes and goes does not drag the results along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from edged.policy.faults import fault_of

RungState = Literal["cold", "loading", "ready", "resting", "power_cycle", "disabled"]

MEANINGS: Mapping[RungState, str] = {
    "cold": "not loaded; nobody needs it yet",
    "loading": "being prepared, loaded, warmed up and proved, in the background",
    "ready": "loaded and proved: it serves, or could serve at once",
    "resting": "it failed; it is tried again after a pause that grows",
    "power_cycle": "it failed as often as the budget of restarts allows; tried again at long intervals",
    "disabled": "trying again would change nothing: another model, runtime or configuration is needed",
}


class Limits(NamedTuple):
    """Times and counts of one chain.

    A rung that failed rests `retry_first_s`, then twice as long each time, at most `retry_most_s`. More than
    `restarts_count` failures that cost a restart within `restarts_within_s`: the device needs hands, and is asked every
    `power_cycle_retry_s`. A better rung serves again after `return_probes` good probes, `probe_every_s` apart, over at
    least `return_after_s`; that doubles up to `return_most_s` when it falls within `relapse_within_s` of a return.
    warm_count: rungs below the serving one that are kept loaded. patience_s: a load that takes longer (an engine is
    built, a device does not answer) no longer keeps the next rung waiting. warm_probe_every_s: distance of probes of
    loaded rungs below the serving one: whoever has died unnoticed is loaded anew before it is needed.
    check_serving_s: the same for the serving one, where it has a process of its own.
    """

    retry_first_s: float = 2.0
    retry_most_s: float = 300.0
    restarts_count: int = 5
    restarts_within_s: float = 600.0
    power_cycle_retry_s: float = 1800.0
    return_probes: int = 3
    probe_every_s: float = 2.0
    return_after_s: float = 10.0
    return_most_s: float = 600.0
    relapse_within_s: float = 600.0
    warm_count: int = 1
    patience_s: float = 2.0
    warm_probe_every_s: float = 60.0
    check_serving_s: float = 60.0


class Rung(NamedTuple):
    """One rung now. `code`, `detail`: of its last failure. Times in monotonic ms.

    failures: in a row. restarts: when failures cost a restart, the newest last. probes: good ones since it was ready.
    apart: it has a process of its own, so that it may be asked while it serves.
    """

    name: str
    state: RungState = "cold"
    since_ms: int = 0
    code: str = ""
    detail: str = ""
    failures: int = 0
    restarts: tuple[int, ...] = ()
    retry_at_ms: int = 0
    probes: int = 0
    probed_ms: int = 0
    probing: bool = False
    hold_s: float = 0.0
    returned_ms: int | None = None
    apart: bool = False


class ChainState(NamedTuple):
    """All rungs, best first. serving: index of the one that answers; None: nobody can, the caller answers an error."""

    rungs: tuple[Rung, ...]
    serving: int | None = None
    switches: int = 0


class Loaded(NamedTuple):
    """`rung` was loaded, warmed up and proved against golden vectors and its neighbours."""

    rung: int


class Failed(NamedTuple):
    """Loading, a probe, or a call of `rung` failed with `code`."""

    rung: int
    code: str
    detail: str = ""


class Probed(NamedTuple):
    """A loaded rung has answered its golden or probe inputs rightly."""

    rung: int


class Tick(NamedTuple):
    """Time passed."""


Event = Loaded | Failed | Probed | Tick


class Load(NamedTuple):
    """Prepare, load and prove this rung in the background; then `Loaded` or `Failed`."""

    rung: int


class Probe(NamedTuple):
    """Ask this loaded rung in the background; then `Probed` or `Failed`."""

    rung: int


class Unload(NamedTuple):
    """Close this rung: its process or session is not to be trusted, or not needed."""

    rung: int


class Serve(NamedTuple):
    """From now on `after` answers instead of `before` (None: nobody); why, for people and for the event."""

    before: int | None
    after: int | None
    code: str
    detail: str


Effect = Load | Probe | Unload | Serve


def start(names: tuple[str, ...], apart: Collection[int] = ()) -> ChainState:
    """A chain of which nothing is loaded yet. apart: rungs with a process of their own."""
    return ChainState(tuple(Rung(name, apart=at in apart) for at, name in enumerate(names)))


def step(state: ChainState, event: Event, now_ms: int, limits: Limits) -> tuple[ChainState, tuple[Effect, ...]]:
    """One event in, the next state and what to do out."""
    effects: list[Effect] = []
    rungs = list(state.rungs)
    code = detail = ""
    match event:
        case Loaded(at) if rungs[at].state == "loading":
            rungs[at] = rungs[at]._replace(
                state="ready", since_ms=now_ms, probes=1, probed_ms=now_ms, probing=False, retry_at_ms=0
            )
        case Probed(at) if rungs[at].state == "ready":
            rungs[at] = rungs[at]._replace(probes=rungs[at].probes + 1, probed_ms=now_ms, probing=False)
        case Failed(at, code, detail) if rungs[at].state != "disabled":
            if rungs[at].state == "ready":
                effects.append(Unload(at))
            rungs[at] = _fallen(rungs[at], code, detail, now_ms, limits)
        case _:
            pass
    serving = _choose(rungs, state.serving, now_ms, limits)
    switches = state.switches
    if serving != state.serving:
        switches += 1
        if serving is not None and state.serving is not None and serving < state.serving:
            rungs[serving] = rungs[serving]._replace(returned_ms=now_ms, failures=0)
            code, detail = code or "returned", detail or f"{rungs[serving].name} answers rightly"
        elif serving is not None and not code:
            code, detail = "loaded", f"{rungs[serving].name} is the first that can serve"
        effects.append(Serve(state.serving, serving, code, detail))
    effects += _wanted(rungs, serving, now_ms, limits)
    return ChainState(tuple(rungs), serving, switches), tuple(effects)


def _fallen(rung: Rung, code: str, detail: str, now_ms: int, limits: Limits) -> Rung:
    """The rung after a failure: out for good, out for long, or resting."""
    fault = fault_of(code)
    told = rung._replace(since_ms=now_ms, code=code, detail=detail, probes=0, probing=False)
    if fault.action == "disable":
        return told._replace(state="disabled")
    steady = rung.state == "ready" and now_ms - rung.since_ms > limits.relapse_within_s * 1000
    failures = 1 if steady else rung.failures + 1
    relapsed = rung.returned_ms is not None and now_ms - rung.returned_ms <= limits.relapse_within_s * 1000
    longer_s = min(limits.return_most_s, 2 * (rung.hold_s or limits.return_after_s))
    restarts = rung.restarts
    if fault.action == "restart":
        oldest_ms = now_ms - limits.restarts_within_s * 1000
        # One more than the budget is all that a decision needs.
        restarts = tuple(at for at in (*restarts, now_ms) if at > oldest_ms)[-limits.restarts_count - 1 :]
    spent = len(restarts) > limits.restarts_count or code == "needs_power_cycle"
    rest_s = min(limits.retry_most_s, limits.retry_first_s * 2 ** min(failures - 1, 30))
    return told._replace(
        state="power_cycle" if spent else "resting",
        failures=failures,
        restarts=restarts,
        retry_at_ms=now_ms + int((limits.power_cycle_retry_s if spent else rest_s) * 1000),
        hold_s=longer_s if relapsed else limits.return_after_s,
        returned_ms=None,
    )


def _choose(rungs: list[Rung], serving: int | None, now_ms: int, limits: Limits) -> int | None:
    """Who serves: the one that does while it can, a better one that has proved itself long enough, else the next."""
    if serving is None or rungs[serving].state != "ready":
        return next((at for at, rung in enumerate(rungs) if rung.state == "ready"), None)
    for at in range(serving):
        rung = rungs[at]
        hold_ms = (rung.hold_s or limits.return_after_s) * 1000
        # A rung that has never failed was only slow to load (an engine was built meanwhile): nothing to wait for.
        steady = rung.probes >= limits.return_probes and now_ms - rung.since_ms >= hold_ms
        # Never while it is being probed: a model may not like two calls at once.
        if rung.state == "ready" and not rung.probing and (steady or not rung.code):
            return at
    return serving


def _wanted(rungs: list[Rung], serving: int | None, now_ms: int, limits: Limits) -> list[Effect]:
    """What to load, to probe and to let go. Marks in `rungs` what it asks for."""
    return [
        *_loads(rungs, serving, now_ms, limits),
        *_probes(rungs, serving, now_ms, limits),
        *(_spares(rungs, serving, limits) if serving is not None else ()),
    ]


def _loads(rungs: list[Rung], serving: int | None, now_ms: int, limits: Limits) -> list[Effect]:
    """One load at a time, unless one takes long: whatever is better than what serves, and the next below it."""
    patience_ms = limits.patience_s * 1000
    if any(rung.state == "loading" and now_ms - rung.since_ms < patience_ms for rung in rungs):
        return []
    below = rungs[0 if serving is None else serving + 1 :]
    warm = sum(rung.state in ("ready", "loading") for rung in below)
    for at, rung in enumerate(rungs):
        better = serving is None or at < serving
        due = rung.state == "cold" or (rung.state in ("resting", "power_cycle") and now_ms >= rung.retry_at_ms)
        if due and (better or warm < limits.warm_count):
            rungs[at] = rung._replace(state="loading", since_ms=now_ms)
            return [Load(at)]
    return []


def _probes(rungs: list[Rung], serving: int | None, now_ms: int, limits: Limits) -> list[Effect]:
    """Ask again and again what is loaded: often what could come back, seldom what is kept warm or serves.

    An accelerator that begins to compute something else while it serves says so in no other way.
    """
    asked: list[Effect] = []
    for at, rung in enumerate(rungs):
        if serving is None or rung.state != "ready" or rung.probing or (at == serving and not rung.apart):
            continue
        every_s = limits.probe_every_s if at < serving else limits.warm_probe_every_s
        every_s = limits.check_serving_s if at == serving else every_s
        if now_ms - rung.probed_ms >= every_s * 1000:
            rungs[at] = rung._replace(probing=True)
            asked.append(Probe(at))
    return asked


def _spares(rungs: list[Rung], serving: int, limits: Limits) -> list[Effect]:
    """Rungs below the serving one that are loaded and more than are kept warm: their memory is needed elsewhere."""
    loaded = [at for at in range(serving + 1, len(rungs)) if rungs[at].state == "ready"]
    spare = loaded[limits.warm_count :]
    for at in spare:
        rungs[at] = rungs[at]._replace(state="cold", code="", detail="", probes=0)
    return [Unload(at) for at in spare]
