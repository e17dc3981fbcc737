"""Waiting on the demo's main thread: for conditions, bounded, by the injected clock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edged.ports import Clock

_POLL_S = 0.02


class Waiter:
    """Waits for conditions. `interrupted` is set by the first SIGINT or SIGTERM; whoever waits long asks for it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.interrupted = threading.Event()
        self._never = threading.Event()

    def pause(self, seconds: float) -> None:
        self._never.wait(seconds)

    def until(self, condition: Callable[[], bool], within_s: float, *, each: Callable[[], None] | None = None) -> bool:
        """Wait until `condition` holds, doing `each` in between; False when time ran out."""
        deadline_ns = self.clock.mono_ns() + int(within_s * 1e9)
        while not condition():
            if self.clock.mono_ns() >= deadline_ns:
                return False
            if each is not None:
                each()
            self.pause(_POLL_S)
        return True
