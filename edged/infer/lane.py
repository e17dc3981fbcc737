"""A thread of its own for one slow model, so that it never delays another pipeline or an acknowledgement.

All methods but `close` belong to the loop's thread; the worker gets one job at a time and answers through `post`
(`loop.call_soon_threadsafe`). A call that runs too long cannot be cancelled: its thread is left behind, a fresh session
starts in a fresh thread. Only so many threads may be left behind; then every job is told that a restart is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Literal, NamedTuple

from edged.errors import InferenceError, ModelError

if TYPE_CHECKING:
    import numpy as np

    from edged.messages import ModelInfo
    from edged.ports import Clock, Model

Batch = Mapping[str, "np.ndarray"]
Done = Callable[["Batch | InferenceError", int, "ModelInfo | None"], None]
"""(outputs or the error, µs of the call, what computed: None when nothing was asked).

Called on the loop, once per accepted job unless the lane closes before.
"""

LaneState = Literal["serving", "stuck", "unusable", "closed"]


class LaneLimits(NamedTuple):
    """Bounds of one lane. `stuck_after_s` counts from the start of a call, `load_after_s` of a reload."""

    jobs_count: int = 8
    deadline_s: float = 1.0
    stuck_after_s: float = 10.0
    load_after_s: float = 60.0
    abandoned_count: int = 2


class LaneStats(NamedTuple):
    state: LaneState
    waiting: int
    running: bool
    done: int
    failed: int
    timeouts: int
    abandoned: int


class _Job(NamedTuple):
    batch: Batch
    done: Done


class _Worker:
    """One thread and its model; `abandoned` is written by the loop and read by the thread."""

    def __init__(self, name: str, lane: Lane, model: Model | None) -> None:
        self.model = model
        self.inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self.abandoned = False
        self.thread = Thread(target=self._work, args=(lane,), name=name, daemon=True)
        self.thread.start()

    def _work(self, lane: Lane) -> None:
        if self.model is None:
            try:
                self.model = lane.reload()
            except ModelError as error:
                _report(lane.post, lane._loaded, self, error)
                return
            _report(lane.post, lane._loaded, self, None)
        while not self.abandoned and (job := self.inbox.get()) is not None:
            started_ns = lane.clock.mono_ns()
            outcome = _call(self.model, job.batch, lane.limits.deadline_s)
            infer_us = (lane.clock.mono_ns() - started_ns) // 1000
            # A chain's `info` changes with the rung that computes: it is read here, before the next call.
            _report(lane.post, lane._finished, self, job, outcome, infer_us, self.model.info)
        self.model.close()
        _report(lane.post, lane._ended, self)


class Lane:
    """The host of one slow model. `reload` makes a fresh model and runs in the lane's thread."""

    def __init__(
        self,
        name: str,
        model: Model,
        *,
        reload: Callable[[], Model],
        clock: Clock,
        post: Callable[..., object],
        limits: LaneLimits | None = None,
    ) -> None:
        self.name = name
        self.reload = reload
        self.clock = clock
        self.post = post
        self.limits = limits or LaneLimits()
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._busy_since_ns: int | None = None
        self._busy_limit_s = self.limits.stuck_after_s
        self._state: LaneState = "serving"
        self._refusal: InferenceError | None = None
        self._generation = 0
        self._done = self._failed = self._timeouts = 0
        self._left_behind: set[_Worker] = set()
        self._worker = _Worker(name, self, model)

    def stats(self) -> LaneStats:
        return LaneStats(
            self._state,
            len(self._waiting),
            self._busy_since_ns is not None,
            self._done,
            self._failed,
            self._timeouts,
            len(self._left_behind),
        )

    def submit(self, batch: Batch, done: Done) -> bool:
        """Take a batch, or say False when there is no room. A lane that cannot serve answers an error."""
        job = _Job(batch, done)
        if self._state == "closed" or len(self._waiting) >= self.limits.jobs_count:
            return False
        if self._refusal is not None:
            self._failed += 1
            self.post(done, self._refusal, 0, None)
            return True
        self._waiting.append(job)
        self._next()
        return True

    def check(self, now_ns: int) -> bool:
        """Call regularly: leaves a stuck call behind. True when that happened now."""
        if self._busy_since_ns is None:
            return False
        # A chain gives a slow rung one piece of a batch after the other: as long as pieces begin, nothing is stuck.
        since_ns = max(self._busy_since_ns, getattr(self._worker.model, "began_ns", 0))
        if now_ns - since_ns <= self._busy_limit_s * 1e9:
            return False
        job, self._running = self._running, None
        if job is not None:  # None: it is a reload that hangs
            self._timeouts += 1
            self._settle(job, InferenceError("infer_timeout", f"{self.name}: no answer in {self._busy_limit_s} s"))
        self._leave_behind()
        return True

    def close(self, timeout_s: float) -> bool:
        """Stop after the running call. False if that is still running; may block, so call it from a thread.

        Jobs that wait get no answer: their events are in the store and are inferred after the next start, while an
        answer "closed" would be their result for ever.
        """
        self._state = "closed"
        self._waiting.clear()
        self._worker.inbox.put(None)
        self._worker.thread.join(timeout_s)
        return not self._worker.thread.is_alive()

    def _next(self) -> None:
        if self._busy_since_ns is None and self._waiting and self._state == "serving":
            self._running = self._waiting.popleft()
            self._busy_since_ns = self.clock.mono_ns()
            self._busy_limit_s = self.limits.stuck_after_s
            self._worker.inbox.put(self._running)

    def _settle(
        self, job: _Job, outcome: Batch | InferenceError, infer_us: int = 0, info: ModelInfo | None = None
    ) -> None:
        if isinstance(outcome, InferenceError):
            self._failed += 1
        else:
            self._done += 1
        job.done(outcome, infer_us, info)

    def _leave_behind(self) -> None:
        self._worker.abandoned = True
        self._left_behind.add(self._worker)
        if len(self._left_behind) > self.limits.abandoned_count:
            self._busy_since_ns = None
            self._refuse(
                "stuck",
                InferenceError(
                    "runtime_stuck",
                    f"{self.name}: {len(self._left_behind)} calls never returned",
                    hint="restart the service; the accelerator may need a power cycle",
                ),
            )
            return
        self._renew()

    def _renew(self) -> None:
        """A fresh thread, which begins by loading a fresh session."""
        self._generation += 1
        self._busy_since_ns = self.clock.mono_ns()
        self._busy_limit_s = self.limits.load_after_s
        self._worker = _Worker(f"{self.name}-{self._generation}", self, None)

    def _refuse(self, state: LaneState, error: InferenceError) -> None:
        """Answer everything that waits, and everything that will come, with `error`."""
        self._state = state
        self._refusal = error
        while self._waiting:
            self._settle(self._waiting.popleft(), error)

    def _loaded(self, worker: _Worker, error: ModelError | None) -> None:
        if worker.abandoned:
            if error is not None:  # else the thread goes on to close its model
                self._ended(worker)
            return
        self._busy_since_ns = None
        if error is not None:
            self._refuse("unusable", InferenceError("model_unusable", f"{self.name}: {error}"))
        self._next()

    def _finished(
        self, worker: _Worker, job: _Job, outcome: Batch | InferenceError, infer_us: int, info: ModelInfo
    ) -> None:
        if worker.abandoned:  # the job was answered with `infer_timeout`; a late answer must not become a second result
            return
        self._running = self._busy_since_ns = None
        self._settle(job, outcome, infer_us, info)
        self._next()

    def _ended(self, worker: _Worker) -> None:
        """A thread has finished; a stuck lane serves again once few enough are left behind."""
        self._left_behind.discard(worker)
        if self._state == "stuck" and len(self._left_behind) <= self.limits.abandoned_count:
            self._state, self._refusal = "serving", None
            self._renew()


def _report(post: Callable[..., object], callback: Callable[..., None], *args: object) -> None:
    """Hand over to the loop; when a call left behind returns after the loop has gone, nobody waits for it."""
    with suppress(RuntimeError):
        post(callback, *args)


def _call(model: Model, batch: Batch, deadline_s: float) -> Batch | InferenceError:
    try:
        return model.infer(batch, deadline_s=deadline_s)
    except InferenceError as error:
        return error
    # A plug-in may raise what its contract forbids; the thread must live on and the job must get its answer.
    except Exception as error:  # noqa: BLE001
        return InferenceError("infer_failed", f"unexpected {type(error).__name__}: {error}")
