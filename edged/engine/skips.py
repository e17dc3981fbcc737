"""Events that get no result by the declared policy `latest`: counted once each, also when the process dies between."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from edged.policy.ledger import add

if TYPE_CHECKING:
    from edged.engine.runner_parts import Ready

SUPERSEDED = "superseded"
MEMORY = "memory"


class Skips:
    """Skipped events that are not in the books yet, in order of seq."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, seq: int, reason: str) -> None:
        self._waiting.append((seq, reason))

    def enter(self, books: dict[str, int], done: int) -> None:
        """Count up to `done` what is skipped; the rest is fed again after a restart, and counted then."""
        if not self._waiting:
            return
        beyond = []
        for seq, reason in self._waiting:
            if seq <= done:
                add(books, reason)
            else:
                beyond.append((seq, reason))
        self._waiting = beyond

    def newest(self, ready: list[Ready]) -> list[Ready]:
        """Only the newest window of each device, in order; the others are skipped."""
        newest = {window[0]: window for window in ready}
        if len(newest) == len(ready):
            return ready
        for window in ready:
            if newest[window[0]] is not window:
                self.add(window[-1], SUPERSEDED)
        return sorted(newest.values(), key=itemgetter(-1))  # `Runner.done` looks at the first one

    def within(self, ready: list[Ready], limit_bytes: int) -> list[Ready]:
        """As many of the last frames as fit into `limit_bytes`; the others are skipped."""
        size_bytes, first = sum(len(window[2]) for window in ready), 0
        while size_bytes > limit_bytes:
            size_bytes -= len(ready[first][2])
            self.add(ready[first][-1], MEMORY)
            first += 1
        return ready[first:] if first else ready
