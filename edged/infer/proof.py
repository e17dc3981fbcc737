"""Before a rung serves it proves itself: warm-up, golden vectors, and agreement with the rest of its chain."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import ModelError
from edged.infer.loading import DEFAULT_MAX_BYTES, ModelFile, open_model
from edged.infer.parity import PROBE_S, check_parity, probe_answers
from edged.infer.renamed import like
from edged.infer.rung import Loading, load_rung
from edged.infer.warmup import check_golden, warm_up
from edged.policy.batching import best_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from edged.messages import ModelInfo
    from edged.policy.batching import Cost
    from edged.ports import Clock, Model


class Origin(NamedTuple):
    """Where the model of a chain is, and what may be taken."""

    location: Path
    allow_unsigned: bool = False
    max_bytes: int = DEFAULT_MAX_BYTES
    version: str = ""


class Calls(NamedTuple):
    """How a chain is called: a call that takes longer than `deadline_s` counts as hung; `max_batch` items at most."""

    deadline_s: float = 60.0
    max_batch: int = 65_536


class Live:
    """One load of one rung. `fallen`: a call has failed for good, nobody asks it any more. Never serves again.

    answers: to the parity inputs. probing: held during a call of the keeper. most: items of one call that it computes
    well before the deadline; a batch that was made for a faster rung is given to it in pieces. slow: that may happen.
    """

    __slots__ = ("answers", "at", "cost", "fallen", "info", "model", "most", "probing", "rung", "slow")

    def __init__(
        self,
        at: int,
        rung: str,
        model: Model,
        cost: Cost,
        answers: Mapping[str, np.ndarray],
        calls: Calls,
    ) -> None:
        self.at = at
        self.rung = rung
        self.model = model
        self.info = model.info
        self.cost = cost
        self.answers = answers
        self.most = best_batch(cost, calls.max_batch, 1000 * calls.deadline_s / 2, largest=calls.max_batch)
        self.slow = self.most < calls.max_batch
        self.fallen = False
        self.probing = Lock()


class _BetweenCalls:
    """A loaded rung as the keeper calls it: whoever falls on it meanwhile waits for one call at most."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.info = live.info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        with self._live.probing:
            return self._live.model.infer(batch, deadline_s=deadline_s)

    def close(self) -> None:
        """It stays loaded."""


class Prover:
    """Loads and proves the rungs of one chain. Methods block; they run in threads of the chain's keeper.

    rungs: all model rungs, best first; the last one that loads is whom the others have to agree with.
    fits: raises `ModelError` for a model that the pipeline cannot use.
    """

    def __init__(
        self,
        rungs: tuple[str, ...],
        origin: Origin,
        loading: Loading,
        clock: Clock,
        fits: Callable[[ModelInfo], None],
        calls: Calls,
    ) -> None:
        self._rungs = rungs
        self._origin = origin
        self._loading = loading
        self._clock = clock
        self._fits = fits
        self._calls = calls
        self._file: ModelFile | None = None
        self._declared: ModelInfo | None = None
        self._judge: Live | None = None
        self._spare: Live | None = None
        self._lock = Lock()

    def make(self, at: int) -> Live:
        """A proved rung, ready to serve. Raises `ModelError`."""
        with self._lock:
            file = self._opened()
            judge = self._judge_of(file, at)
            if self._spare is not None and self._spare.at == at:
                spare, self._spare = self._spare, None
                return spare
        live = self._load(at, file)
        try:
            self._agree(live, file, judge)
        except ModelError:
            live.model.close()
            raise
        return live

    def check(self, live: Live) -> None:
        """Does a loaded rung still answer rightly? Raises `ModelError`."""
        file = self._file
        model = _BetweenCalls(live)
        answers = probe_answers(model, PROBE_S)
        if file is not None and file.golden is not None:
            check_golden(model, file.golden)
            return
        check_parity(answers, live.answers, live.rung, "it did when it was loaded")
        if self._judge is not None and self._judge.at > live.at:
            check_parity(answers, self._judge.answers, live.rung, self._judge.rung)

    def overruled(self, live: Live) -> str:
        """Why a loaded rung has to go, now that one further down the chain was loaded; "" when it may stay."""
        judge = self._judge
        if judge is None or judge.at <= live.at or self._has_golden():
            return ""
        try:
            check_parity(live.answers, judge.answers, live.rung, judge.rung)
        except ModelError as error:
            return str(error)
        return ""

    def close(self) -> None:
        with self._lock:
            if self._spare is not None:
                self._spare.model.close()
                self._spare = None

    def _has_golden(self) -> bool:
        return self._file is not None and self._file.golden is not None

    def _opened(self) -> ModelFile:
        """The checked model; a file that was missing is looked for again at every attempt."""
        if self._file is None:
            origin = self._origin
            self._file = open_model(
                origin.location,
                allow_unsigned=origin.allow_unsigned,
                max_bytes=origin.max_bytes,
                version=origin.version,
            )
        return self._file

    def _judge_of(self, file: ModelFile, at: int) -> Live | None:
        """Whom rung `at` has to agree with: the last that loads. Kept loaded when it is the next in the chain."""
        if file.golden is not None:
            return None
        if self._judge is not None and self._judge.at >= at:
            return self._judge
        for below in range(len(self._rungs) - 1, at, -1):
            try:
                judge = self._load(below, file)
            except ModelError:
                continue  # it tells its reason itself, when its turn comes
            self._judge = judge
            if below == at + 1:
                self._spare = judge
            else:
                judge.model.close()
            return judge
        return self._judge

    def _load(self, at: int, file: ModelFile) -> Live:
        rung = self._rungs[at]
        options, find, hosting = self._loading
        model = load_rung(rung, file, options, find, hosting)
        try:
            if self._declared is not None:
                model = like(model, self._declared)
            self._fits(model.info)
            cost = warm_up(model, self._clock, file.golden)
            answers = probe_answers(model)
        except ModelError:
            model.close()
            raise
        # A plug-in may raise what its contract forbids; the load must end with an answer.
        except Exception as error:
            model.close()
            raise ModelError("load_failed", f"{rung}: unexpected {type(error).__name__}: {error}") from error
        self._declared = self._declared or model.info
        return Live(at, rung, model, cost, answers, self._calls)

    def _agree(self, live: Live, file: ModelFile, judge: Live | None) -> None:
        if file.golden is not None:
            return  # they have spoken in the warm-up
        if judge is not None and judge.at >= live.at:
            check_parity(live.answers, judge.answers, live.rung, judge.rung)
            return
        with self._lock:
            if self._judge is None or self._judge.at <= live.at:
                self._judge = live
