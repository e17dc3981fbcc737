"""The governor at work: samples become facts, facts a level, a level measures, reasons and numbers that people see."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edged.ops.sensors.facts import facts as device_facts
from edged.ops.sensors.report import DeviceReport, readings
from edged.policy.causes import CAUSES, MACHINES
from edged.policy.governor import (
    EASING,
    LINGERING,
    RUNGS,
    SAMPLE_INTERVAL_S,
    AcceleratorState,
    Facts,
    GovernorState,
    LevelChanged,
    ReasonEntered,
    ReasonLeft,
    declares,
    step,
)
from edged.policy.mode import derive
from edged.sync import ranges

if TYPE_CHECKING:
    from edged.engine.engine import Engine
    from edged.ops.logs import Log

BACKLOG_AFTER_S = 600.0
"""What has waited for less is traffic. The room in the store is no matter of concern before, however small it is."""


class Watch(Protocol):
    """Where reports come from (`edged.ops.sensors.watch.DeviceWatch`). trouble: why the last one is missing, or ""."""

    @property
    def trouble(self) -> str: ...

    async def look(self) -> DeviceReport | None: ...


class Surroundings(NamedTuple):
    """What only the composition root knows. Each None: unknown.

    room_days: how long the store's room lasts. accelerator: how the worst of the declared accelerators is.
    """

    room_days: float | None = None
    accelerator: AcceleratorState | None = None


class Backlog:
    """How long the oldest row that has not left has waited: remembers, coarsely, which number was made when.

    Rows from before the start count from the start: the answer is "at least so long".
    """

    MARKS = 64

    def __init__(self) -> None:
        self._marks: list[tuple[int, int]] = []

    def age_s(self, made: int, gone: int, mono_ms: int) -> float:
        """made: newest number. gone: every number up to this one has left."""
        self._marks = [mark for mark in self._marks if mark[0] > gone]
        if made > gone and (not self._marks or made > self._marks[-1][0]):
            if len(self._marks) >= self.MARKS:
                del self._marks[1::2]
            self._marks.append((made, mono_ms))
        return (mono_ms - self._marks[0][1]) / 1000 if self._marks else 0.0


class Governing:
    """`run` samples until cancelled; `take` is synchronous and also called by tests with reports of their own.

    slowest_ms: a model whose warm call takes longer is told (`limits.p99_ms` of the hardware class).
    """

    def __init__(
        self,
        engine: Engine,
        log: Log,
        watch: Watch,
        surroundings: Callable[[], Surroundings],
        slowest_ms: float = math.inf,
    ) -> None:
        self._engine = engine
        self._slowest_ms = slowest_ms
        self._slow: set[str] = set()
        self._log = log
        self._watch = watch
        self._surroundings = surroundings
        self._state = GovernorState()
        self._facts = Facts()
        self._before: DeviceReport | None = None
        self._backlog = Backlog()
        self._readings: Mapping[str, float] = {}
        self._trouble = ""

    async def run(self) -> None:
        """Sample for ever."""
        while True:
            self.take(await self._watch.look())
            if self._watch.trouble != self._trouble:
                self._trouble = self._watch.trouble
                if self._trouble:
                    self._log.warning("devices_not_read", detail=self._trouble)
            await asyncio.sleep(SAMPLE_INTERVAL_S)

    def take(self, report: DeviceReport | None) -> None:
        """One sample. None: the box has not answered, so everything that it would say is unknown."""
        engine = self._engine
        mono_ms = engine.parts.clock.mono_ns() // 1_000_000
        known = Facts() if report is None else device_facts(report, self._before)
        self._readings = {} if report is None else readings(report)
        self._before = report
        self._facts = self._own(known, mono_ms)
        self._state, effects = step(self._state, self._facts, mono_ms=mono_ms)
        modes = engine.parts.modes
        for effect in effects:
            match effect:
                case ReasonEntered(code, detail):
                    modes.set(code, True, detail=detail)
                case ReasonLeft(code):
                    modes.set(code, False)
                case LevelChanged(before, after):
                    self._log.warning("pressure_level_changed", before=before, after=after)
                    self._relieve()
        self._say_lingering()
        self._say_slow()

    def _own(self, known: Facts, mono_ms: int) -> Facts:
        """What the daemon knows besides what the box says."""
        around = self._surroundings()
        backlog_age_s = self._backlog.age_s(*self._unsent(), mono_ms)
        return known._replace(
            store_room_days=around.room_days if backlog_age_s >= BACKLOG_AFTER_S else math.inf,
            backlog_age_s=backlog_age_s,
            queue_deadline_ratio=self._lateness(),
            accelerator=around.accelerator,
        )

    def _unsent(self) -> tuple[int, int]:
        """Newest result, and the number up to which every one has left: for the centre, where there is one."""
        engine = self._engine
        made = engine.next_result - 1
        home = engine.parts.home
        if "result" not in home.streams:
            return made, engine.parts.delivery.outbox.delivered
        missing = ranges.missing(engine.parts.meta.synced.get("result", ()), 1, made) if made else []
        return made, missing[0][0] - 1 if missing else made

    def _lateness(self) -> float:
        """Age of the oldest input that waits for a model over the deadline of its pipeline; 0: none waits."""
        now_ns = self._engine.parts.clock.mono_ns()
        worst = 0.0
        for runner in self._engine.parts.runners:
            oldest_ns = runner.oldest_ns()
            if oldest_ns is not None:
                worst = max(worst, (now_ns - oldest_ns) / 1_000_000 / runner.parts.deadline_ms)
        return worst

    def _relieve(self) -> None:
        measures = declares(self._state.level)
        for runner in self._engine.parts.runners:
            runner.relieve(measures)
        if self._engine.parts.present.draft:  # what waited was answered by the other model, or at once
            self._engine.wake()

    def _say_lingering(self) -> None:
        """The level may still make losses that no present reason asks for."""
        modes, state = self._engine.parts.modes, self._state
        asked = derive(code for code in state.codes if code != EASING)
        lingers = RUNGS[state.level].mode == "shedding" != asked
        if lingers != (LINGERING in modes.state.codes):
            modes.set(LINGERING, lingers, detail=f"level {state.level}" if lingers else "")

    def _say_slow(self) -> None:
        """Models that take longer than their class of hardware promises, by the cost measured when they were loaded."""
        for runner in self._engine.parts.runners:
            live = runner.parts.chain.serving if runner.parts.chain is not None else None
            call_ms = live.cost.batch_us(1) / 1000 if live is not None else 0.0
            if call_ms > self._slowest_ms:
                self._slow.add(runner.name)
                detail = f"a call takes {call_ms:.0f} ms, limits.p99_ms is {self._slowest_ms:g}"
                self._engine.parts.modes.set("model_slow", True, subject=runner.name, detail=detail)
            elif runner.name in self._slow:
                self._slow.remove(runner.name)
                self._engine.parts.modes.set("model_slow", False, subject=runner.name)

    # --- what people see ---

    def summaries_wanted(self) -> bool:
        """Whether results are to go home as summaries now.

        Not where only room presses: there the store gives up by class, the oldest first, and keeps the newest whole.
        """
        codes = [code for code in self._state.codes if CAUSES[code].mode == "shedding"]
        return declares(self._state.level).summaries_only and any(MACHINES[code] != "storage" for code in codes)

    def pressure(self) -> dict[str, object]:
        """Level, reasons, the facts that are known, which are not, and why the box could not be read, if so."""
        facts = self._facts._asdict()
        return {
            "level": self._state.level,
            "codes": list(self._state.codes),
            "facts": {name: value for name, value in facts.items() if value is not None and _told(value)},
            "unknown": [name for name, value in facts.items() if value is None],  # everything, before the first sample
            **({"trouble": self._trouble} if self._trouble else {}),
        }

    def device(self) -> Mapping[str, float]:
        """Every number that the box says; what it does not say is absent."""
        return self._readings


def _told(value: object) -> bool:
    """JSON has no infinity, and nobody needs to read it."""
    return not isinstance(value, float) or math.isfinite(value)
