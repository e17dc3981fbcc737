"""What a chain's keeper lets others do because it takes long: loading, proving and probing, each in its own thread.

Whatever comes of it lies in the inbox, and the keeper decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import ModelError

if TYPE_CHECKING:
    from edged.infer.proof import Live, Prover


class Fell(NamedTuple):
    """A call has shown that a rung does not work."""

    live: Live
    code: str
    detail: str


class Made(NamedTuple):
    """A load has ended."""

    at: int
    outcome: Live | ModelError


class Asked(NamedTuple):
    """A probe has ended. error None: it answered rightly."""

    live: Live
    error: ModelError | None


Item = Fell | Made | Asked
Spawn = Callable[[str, Callable[[], None]], object]


def spawn_thread(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a thread that does not keep the process from ending."""
    Thread(target=work, name=name, daemon=True).start()


class Workshop:
    """inbox: what has happened; None wakes whoever waits. spawn: runs what takes long; tests give their own."""

    def __init__(self, prover: Prover, spawn: Spawn) -> None:
        self.inbox: SimpleQueue[Item | None] = SimpleQueue()
        self._prover = prover
        self._spawn = spawn
        self._closed = False

    def load(self, at: int, name: str) -> None:
        self._spawn(f"{name}-load", partial(self._load, at))

    def probe(self, live: Live) -> None:
        self._spawn(f"{live.rung}-probe", partial(self._probe, live))

    def close(self) -> None:
        """What is being loaded is closed when that ends, and what lies in the inbox now."""
        self._closed = True
        self._prover.close()
        while not self.inbox.empty():
            item = self.inbox.get_nowait()
            if isinstance(item, Made) and not isinstance(item.outcome, ModelError):
                item.outcome.model.close()

    def _load(self, at: int) -> None:
        try:
            live = self._prover.make(at)
        except ModelError as error:
            self.inbox.put(Made(at, error))
            return
        if self._closed:
            live.model.close()
        self.inbox.put(Made(at, live))

    def _probe(self, live: Live) -> None:
        error: ModelError | None = None
        try:
            self._prover.check(live)
        except ModelError as failed:
            error = failed
        # A plug-in may raise what its contract forbids; the probe must end with an answer.
        except Exception as unexpected:  # noqa: BLE001
            error = ModelError("warmup_failed", f"unexpected {type(unexpected).__name__}: {unexpected}")
        self.inbox.put(Asked(live, error))
