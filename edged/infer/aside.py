"""A model called in a thread of its own, so that whoever asks can stop waiting. One call at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import InferenceError

if TYPE_CHECKING:
    import numpy as np

    from edged.messages import ModelInfo
    from edged.ports import Model

    Batch = Mapping[str, np.ndarray]

THREADS_LEFT_BEHIND = 2  # with calls that never returned; beyond it nothing is asked any more
STUCK_WAITS = 20  # a call this many times over its wait is not slow but stuck


class Answered(NamedTuple):
    """info: of what computed this call."""

    outputs: Batch
    info: ModelInfo


class _Call:
    def __init__(self, batch: Batch, wait_s: float) -> None:
        self.batch = batch
        self.wait_s = wait_s
        self.done = Event()
        self.outcome: Answered | InferenceError | None = None


class Aside:
    """make: the model, asked for in the thread; once more when a call has to be left behind."""

    def __init__(self, name: str, make: Callable[[], Model]) -> None:
        self._name = name
        self._make = make
        self._lock = Lock()
        self._inbox: SimpleQueue[_Call | None] | None = None
        self._running: _Call | None = None
        self._late_count = 0
        self._left_behind = 0
        self._closed = False

    def ask(self, batch: Batch, wait_s: float) -> Answered:
        """Wait so long for the answer.

        Raises:
            InferenceError: `infer_timeout`, none in time, or an earlier call still runs; `closed`; those of the model.
        """
        call = _Call(batch, wait_s)
        with self._lock:
            self._start(call).put(call)
        if not call.done.wait(wait_s):
            raise InferenceError("infer_timeout", f"{self._name}: no answer in {wait_s} s")
        if not isinstance(call.outcome, Answered):
            raise call.outcome or InferenceError("closed", f"{self._name}: closed")
        return call.outcome

    def close(self) -> None:
        """The thread ends after the call it is in, and closes its model."""
        with self._lock:
            self._closed = True
            if self._inbox is not None:
                self._inbox.put(None)

    def _start(self, call: _Call) -> SimpleQueue[_Call | None]:
        """The way to a thread that is free to take `call`."""
        if self._closed:
            raise InferenceError("closed", f"{self._name}: closed")
        if self._running is not None and not self._running.done.is_set():
            self._late_count += 1
            if self._late_count < STUCK_WAITS or self._left_behind >= THREADS_LEFT_BEHIND:
                raise InferenceError("infer_timeout", f"{self._name}: an earlier call is still running")
            assert self._inbox is not None, "a call runs in a thread"
            self._inbox.put(None)
            self._inbox = None
            self._left_behind += 1
        self._late_count = 0
        self._running = call
        if self._inbox is None:
            self._inbox = SimpleQueue()
            Thread(target=self._work, args=(self._inbox,), name=self._name, daemon=True).start()
        return self._inbox

    def _work(self, inbox: SimpleQueue[_Call | None]) -> None:
        model: Model | None = None
        while (call := inbox.get()) is not None:
            try:
                model = self._make() if model is None else model
                call.outcome = Answered(model.infer(call.batch, deadline_s=call.wait_s), model.info)
            except InferenceError as error:
                call.outcome = error
            # A plug-in may raise what its contract forbids; the thread must live on and the call must get its answer.
            except Exception as error:  # noqa: BLE001
                call.outcome = InferenceError("infer_failed", f"unexpected {type(error).__name__}: {error}")
            call.done.set()
        if model is not None:
            model.close()
