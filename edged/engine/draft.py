"""What the next unit will contain, gathered while the last one is being committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from edged.messages import EventColumns, Notice, ResultColumns, ResultContext
from edged.policy.mode import ModeState

if TYPE_CHECKING:
    from edged.engine.runner import Runner
    from edged.infer.lane import LaneStats
    from edged.messages import ModelInfo
    from edged.pipeline.alarm import AlarmChange


def empty_events() -> EventColumns:
    return EventColumns([], [], [], [], [], [], [], [])


def empty_results() -> ResultColumns:
    return ResultColumns([], [], [], [], [], [], [], [], [], [], [], [], [], [], [], [])


class Draft:
    """Grows by whole batches; becomes one `Unit`."""

    def __init__(self) -> None:
        self.events = empty_events()
        self.results = empty_results()
        self.notices: list[Notice] = []

    def context_index(self, context: ResultContext) -> int:
        """Index of `context` in this unit, added when new. Few contexts a unit: a list search is the fastest."""
        contexts = self.results.contexts
        if context in contexts:
            return contexts.index(context)
        contexts.append(context)
        return len(contexts) - 1

    def __bool__(self) -> bool:
        return bool(self.events.source or self.results.context or self.notices)


class Present:
    """What every part of the engine needs to know of this moment: the draft being written, the mode, the clock.

    arrived_ns: monotonic time at which the first message of the current turn arrived.
    wake: asks the engine for a turn, because the draft has grown outside one (a lane answered).
    computed: another rung than before has computed, its results are not written yet. attend: a runner's turn to look at
    its chain.
    fell_behind: a pipeline's lane is full; its events wait in the store. stir: the catch-up has something to do.
    letter: a dead letter for an input found unreadable when its turn came: reason, detail, topic and payload.
    """

    def __init__(self, boot: str) -> None:
        self.draft = Draft()
        self.boot = boot
        self.mode = ModeState()
        self.clock = "unsynced"
        self.arrived_ns = 0
        self.wake: Callable[[], None] = lambda: None
        self.fell_behind: Callable[[str], None] = lambda _pipeline: None
        self.lane_stats: Callable[[str, LaneStats], None] = lambda _pipeline, _stats: None
        self.computed: Callable[[Runner, ModelInfo], None] = lambda _runner, _info: None
        self.attend: Callable[[Runner], None] = lambda _runner: None
        self.on_alarm: Callable[[str, AlarmChange], None] = lambda _pipeline, _change: None
        self.letter: Callable[[str, str, str, bytes], None] = lambda _reason, _detail, _topic, _payload: None
        self.stir = asyncio.Event()

    def fresh_draft(self) -> Draft:
        """Hand out the draft for commit and begin the next one."""
        full, self.draft = self.draft, Draft()
        return full
