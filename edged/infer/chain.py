"""The ordered chain of runtimes of one pipeline: who serves, who is loaded, probed and brought back in the background.

What is decided stands in `edged.policy.chain`; here it is carried out. A bad model is an answer, never an exception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import InferenceError, ModelError
from edged.infer.chain_model import ChainModel
from edged.infer.loading import DEFAULT_MAX_BYTES
from edged.infer.proof import Calls, Live, Origin, Prover
from edged.infer.registry import find_runtime
from edged.infer.rules import RUNTIME as RULES
from edged.infer.rung import Find, Hosting, Loading, abilities_of, is_processor
from edged.infer.runtime import LoadOptions
from edged.infer.workshop import Asked, Fell, Item, Made, Spawn, Workshop, spawn_thread
from edged.messages import ModelInfo
from edged.policy.batching import Cost
from edged.policy.chain import (
    Effect,
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
from edged.policy.faults import fault_of

if TYPE_CHECKING:
    from edged.ports import Clock

START_WAIT_S = 20.0  # the daemon starts without a model after that, and begins to serve when one has been loaded
TICK_S = 0.25
IDLE_TICK_S = 5.0  # all is as configured: only an event can change that
SWITCHES_KEPT = 1000
INFOS_KEPT = 4  # loads of one rung whose answers may still be on their way


class ChainSpec(NamedTuple):
    """What the configuration says about a pipeline's model. chain: `runtime:device` from best to worst, or `rules`.

    require_accelerator: rungs on the processor never serve; they only say what is right.
    fits: raises `ModelError` for a model that the pipeline cannot use. calls: how the rungs are called.
    """

    pipeline: str
    location: Path
    chain: tuple[str, ...]
    version: str = ""
    allow_unsigned: bool = False
    max_bytes: int = DEFAULT_MAX_BYTES
    options: LoadOptions = LoadOptions()
    limits: Limits = Limits()
    require_accelerator: bool = False
    fits: Callable[[ModelInfo], None] = lambda _info: None
    calls: Calls = Calls()


class Switched(NamedTuple):
    """From now on `after` answers instead of `before`; "" is nobody."""

    before: str
    after: str
    code: str
    detail: str


class Chain:
    """The rungs of one pipeline. `pump` belongs to one thread at a time; `fell`, `order`, `state` may be used by any.

    spawn: runs what takes long, in threads; tests give their own.
    """

    def __init__(
        self,
        spec: ChainSpec,
        clock: Clock,
        *,
        find: Find = find_runtime,
        hosting: Hosting | None = None,
        spawn: Spawn = spawn_thread,
    ) -> None:
        self.spec = spec
        rungs = tuple(rung for rung in spec.chain if rung != RULES)
        serving = [at for at, rung in enumerate(rungs) if not (spec.require_accelerator and is_processor(rung))]
        # Rungs that may serve come first and keep their order: the table knows no others.
        self.names = tuple(rungs[at] for at in serving)
        judges = tuple(rung for at, rung in enumerate(rungs) if at not in serving)
        apart = frozenset(
            at
            for at, rung in enumerate(self.names)
            if (abilities := abilities_of(rung, find)) is not None and abilities.isolation == "process"
        )
        self.isolated = bool(apart)
        self.nobody = ModelInfo(spec.location.stem, spec.version, "", "none", (), ())
        self.order: tuple[Live, ...] = ()
        self.state = start(self.names, apart)
        self.last_error = ""
        """Of the newest failed call, for people."""
        self._clock = clock
        origin = Origin(spec.location, spec.allow_unsigned, spec.max_bytes, spec.version)
        loading = Loading(spec.options, find, hosting)
        self._prover = Prover(self.names + judges, origin, loading, clock, spec.fits, spec.calls)
        self._lives: list[Live | None] = [None] * len(self.names)
        self._retired: list[Live] = []
        self._callers: list[ChainModel] = []
        self._workshop = Workshop(self._prover, spawn)
        self._inbox = self._workshop.inbox
        self._switches: deque[Switched] = deque(maxlen=SWITCHES_KEPT)
        self._infos: tuple[deque[ModelInfo], ...] = tuple(deque(maxlen=INFOS_KEPT) for _ in self.names)
        self._closed = False
        self._keeper: Thread | None = None

    # --- for whoever infers ---

    def model(self) -> ChainModel:
        """Looks like one loaded model."""
        made = ChainModel(self)
        self._callers = [*self._callers, made]
        return made

    def renew(self) -> ChainModel:
        """For a lane that left a call behind: the rung that did not return counts as failed, the next one serves."""
        for caller in self._callers:
            if (stuck := caller.calling) is not None:
                self.fell(stuck, InferenceError("infer_timeout", f"{stuck.rung}: a call did not return"))
        self._callers = [caller for caller in self._callers if caller.calling is not None]
        return self.model()

    def fell(self, live: Live, error: InferenceError) -> None:
        live.fallen = True
        self.last_error = f"{live.rung}: {error.code}: {error.message}"
        self._inbox.put(Fell(live, error.code, error.message))

    def now_ns(self) -> int:
        return self._clock.mono_ns()

    def refusal(self) -> InferenceError:
        code = "accelerator_required" if self.spec.require_accelerator else "model_unusable"
        return InferenceError(code, f"{self.spec.pipeline}: no rung can answer: {self.troubles()}")

    # --- for whoever watches ---

    @property
    def serving(self) -> Live | None:
        """The rung that the next call asks."""
        return next((live for live in self.order if not live.fallen), None)

    def index(self, info: ModelInfo) -> int | None:
        """Which rung computed what carries this `info`; None: none of them."""
        return next((at for at, known in enumerate(self._infos) if any(one is info for one in tuple(known))), None)

    def troubles(self) -> str:
        """Every rung that does not work and why, in one line, for people."""
        rungs = self.state.rungs
        return "; ".join(f"{rung.name}: {rung.code}: {rung.detail}" for rung in rungs if rung.code)

    def take_switches(self) -> list[Switched]:
        """What has happened since the last question, oldest first."""
        return [self._switches.popleft() for _ in range(len(self._switches))]

    # --- the keeper ---

    def start(self) -> None:
        """From now on a thread of its own pumps."""
        if self._keeper is None and self.names:
            self._keeper = Thread(target=self._keep, name=f"{self.spec.pipeline}-keeper", daemon=True)
            self._keeper.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """Close every rung that nobody is calling. What is being loaded is closed when that ends."""
        self._closed = True
        self._inbox.put(None)
        if self._keeper is not None:
            self._keeper.join(timeout_s)
        self.order = ()
        for at, live in enumerate(self._lives):
            if live is not None:
                self._retired.append(live)
                self._lives[at] = None
        self._close_retired()
        self._workshop.close()

    def pump(self, wait_s: float) -> None:
        """Take what happened, or wait so long for it; decide; do."""
        try:
            item = self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
        except Empty:
            self._step(Tick())
        else:
            if item is not None:
                self._take(item)
        self._close_retired()

    def settle(self, wait_s: float) -> None:
        """Until a rung serves, or none can for now, or `wait_s` are over."""
        until_ns = self._clock.mono_ns() + int(wait_s * 1e9)
        self.pump(0)
        while self.state.serving is None and self._clock.mono_ns() < until_ns:
            if not any(rung.state in ("cold", "loading") for rung in self.state.rungs):
                return
            self.pump(0.05)

    def _keep(self) -> None:
        while not self._closed:
            at_ease = self.state.serving == 0 and not any(
                rung.state in ("loading", "resting", "power_cycle") for rung in self.state.rungs
            )
            self.pump(IDLE_TICK_S if at_ease and not self._retired else TICK_S)

    def _take(self, item: Item) -> None:
        match item:
            case Fell(live, code, detail):
                if self._lives[live.at] is live:
                    self._step(Failed(live.at, code, detail))
            case Made(at, ModelError() as error):
                self._step(Failed(at, error.code, error.message))
            case Made(at, Live() as live) if self._closed:
                self._retired.append(live)
            case Made(at, Live() as live):
                self._lives[at] = live
                self._infos[at].append(live.info)
                self._step(Loaded(at))
                self._overrule()
            case Asked(live, error):
                if self._lives[live.at] is live:
                    self._step(self._probed(live, error))

    def _probed(self, live: Live, error: ModelError | None) -> Event:
        """What a probe says. Of the rung that serves only whether it lies: how well it answers, its calls tell."""
        if error is None or (live.at == self.state.serving and fault_of(error.code).action != "disable"):
            return Probed(live.at)
        return Failed(live.at, error.code, error.message)

    def _overrule(self) -> None:
        """One further down was loaded: those above who answer otherwise go."""
        for at, live in enumerate(self._lives):
            if live is not None and (why := self._prover.overruled(live)):
                live.fallen = True
                self._step(Failed(at, "parity_failed", why))

    def _step(self, event: Event) -> None:
        now_ms = self._clock.mono_ns() // 1_000_000
        self.state, effects = step(self.state, event, now_ms, self.spec.limits)
        first = () if self.state.serving is None else (self.state.serving,)
        others = (at for at, rung in enumerate(self.state.rungs) if rung.state == "ready" and at not in first)
        self.order = tuple(live for at in (*first, *others) if (live := self._lives[at]) is not None)
        for effect in effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Load(at):
                self._workshop.load(at, self.names[at])
            case Probe(at):
                live = self._lives[at]
                assert live is not None, "the table probes what is loaded"
                self._workshop.probe(live)
            case Unload(at):
                live, self._lives[at] = self._lives[at], None
                if live is not None:
                    live.fallen = True
                    self._retired.append(live)
            case Serve(before, after, code, detail):
                names = ["" if at is None else self.names[at] for at in (before, after)]
                self._switches.append(Switched(names[0], names[1], code, detail))

    def _close_retired(self) -> None:
        calling = [caller.calling for caller in self._callers]
        waiting, self._retired = self._retired, []
        for live in waiting:
            if live in calling:
                self._retired.append(live)
            else:
                live.model.close()


class Skipped(NamedTuple):
    """A rung that does not serve. `code` is that of the `ModelError`."""

    rung: str
    code: str
    detail: str


class Serving(NamedTuple):
    """What came of a chain so far. `model` None: nothing can answer yet, results carry the reason `model_unusable`.

    reason: the mode reason (`fallback_runtime`, `model_unusable`, `accelerator_required`), None: as configured.
    chain: goes on by itself once it was started; None where `rules` stand alone.
    """

    model: ChainModel | None
    rung: str
    skipped: tuple[Skipped, ...]
    cost: Cost
    reason: str | None
    chain: Chain

    @property
    def detail(self) -> str:
        """The skipped rungs in one line, for people."""
        return "; ".join(f"{skipped.rung}: {skipped.code}: {skipped.detail}" for skipped in self.skipped)


def load_chain(
    spec: ChainSpec,
    clock: Clock,
    *,
    find: Find = find_runtime,
    hosting: Hosting | None = None,
    wait_s: float = START_WAIT_S,
) -> Serving:
    """Walk the chain of `spec` until one rung serves. Blocks; never raises for a bad model, bundle or runtime."""
    chain = Chain(spec, clock, find=find, hosting=hosting)
    chain.settle(wait_s)
    return serving_of(chain)


def serving_of(chain: Chain) -> Serving:
    """How a chain stands now."""
    live = chain.serving
    above = chain.state.rungs if live is None else chain.state.rungs[: live.at]
    skipped = tuple(Skipped(rung.name, rung.code, rung.detail) for rung in above if rung.code)
    if live is not None:
        return Serving(chain.model(), live.rung, skipped, live.cost, "fallback_runtime" if live.at else None, chain)
    reason = chain.refusal().code if chain.names or chain.spec.require_accelerator else None
    return Serving(None, "", skipped, Cost(0.0, 0.0), reason, chain)
