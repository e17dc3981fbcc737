"""While heat or memory press hard: new results that have not left within a minute go home as summaries by minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from edged.store.summary import MINUTE_S
from edged.sync import ranges

if TYPE_CHECKING:
    from edged.engine.engine import Engine

REASON = "pressure"
"""Of the tombstones that take the place of the results."""

LOOK_EVERY_S = 5.0
AT_ONCE = 2000  # results of one summary: it has at most as many rows, far below what one batch may carry


class Summaries:
    """`run` looks until cancelled. Alarms are a stream of their own, and go home whole as ever.

    In a task of its own: a full disk may keep the store from writing for as long as it likes.
    """

    def __init__(self, engine: Engine, wanted: Callable[[], bool]) -> None:
        self._engine = engine
        self._wanted = wanted
        self._mark: tuple[int, int] | None = None
        self._done = 0
        self.count = 0
        """Results that were turned into summaries since the start."""

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Turn into summaries what was made since this is wanted, was there a minute ago, and is not home."""
        engine = self._engine
        if not self._wanted() or "result" not in engine.parts.home.streams:
            self._mark = None
            return
        now_ns = engine.parts.clock.mono_ns()
        if self._mark is None:
            self._done = engine.next_result - 1  # what was made before goes home whole
            self._mark = now_ns, self._done
            return
        since_ns, upto = self._mark
        if now_ns - since_ns < MINUTE_S * 1_000_000_000:
            return
        self._mark = now_ns, engine.next_result - 1
        home = engine.parts.meta.synced.get("result", ())
        for first, last in ranges.missing(home, self._done + 1, upto) if upto > self._done else ():
            for begin in range(first, last + 1, AT_ONCE):
                end = min(last, begin + AT_ONCE - 1)
                await engine.parts.journal.summarize(begin, end, REASON)
                self.count += end - begin + 1
        self._done = max(self._done, upto)
        engine.on_durable(False)
