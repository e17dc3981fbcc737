"""Feeds pipelines from the store: after a restart, and when a slow model has fallen behind the arriving events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.engine.engine import Engine
    from edged.engine.runner import Runner
    from edged.ports import Journal, StoredEvents

CHUNK_EVENTS = 500


class CatchUp:
    """`run` serves lagging pipelines for ever, one chunk each in turn, as their lanes have room."""

    def __init__(self, engine: Engine, journal: Journal, stir: asyncio.Event) -> None:
        self._engine = engine
        self._journal = journal
        self._stir = stir
        self.on_lost: Callable[[str, int, int], None] = lambda _pipeline, _first, _last: None
        """Events (inclusive, by seq) were given up before it was this pipeline's turn."""
        self.unreadable = 0
        """Stored events that today's configuration cannot read: their pipeline has changed since."""

    async def run(self) -> None:
        while True:
            lagging = [runner for runner in self._engine.parts.runners if runner.lagging]
            moved = [await self.step(runner) for runner in lagging if runner.has_room()]
            if not any(moved):
                self._stir.clear()
                if any(runner.lagging and runner.has_room() for runner in self._engine.parts.runners):
                    await self._engine.turned()  # at the end of what is committed: wait for the unit in flight
                    continue
                await self._stir.wait()

    async def inline_ready(self) -> None:
        """Bring every pipeline without a lane up to date; before that no message may be taken."""
        for runner in self._engine.parts.runners:
            while runner.lagging and runner.parts.lane is None:
                await self.step(runner)

    async def step(self, runner: Runner) -> bool:
        """One chunk. True when the pipeline moved on."""
        engine = self._engine
        if runner.cursor < engine.committed_event:
            chunk = min(CHUNK_EVENTS, max(1, runner.parts.ready_limit // 4))
            groups = await self._journal.read_events(runner.cursor + 1, chunk)
            for group in groups:
                self._pass_over(runner, group.first_seq - 1)
                self._feed(runner, group)
            if not groups:
                self._pass_over(runner, engine.committed_event)
        if runner.cursor >= engine.next_event - 1:
            # No await between this check and the next turn: from here on the turn feeds the pipeline.
            runner.lagging = False
            engine.caught_up(runner)
        elif runner.cursor >= engine.committed_event:
            return False
        runner.run()
        if engine.parts.present.draft:
            engine.wake()
            await engine.turned()  # not longer: the lane would stand idle while messages never pause
        return True

    def _pass_over(self, runner: Runner, upto: int) -> None:
        """Events up to `upto` are not in the store any more."""
        first = max(runner.cursor, runner.answered_up_to) + 1
        if first <= upto:
            self.on_lost(runner.name, first, upto)
        runner.cursor = max(runner.cursor, upto)

    def _feed(self, runner: Runner, group: StoredEvents) -> None:
        rows = group.columns
        engine = self._engine
        same_boot = group.boot == engine.parts.present.boot
        engine.parts.present.arrived_ns = group.arrival_mono_ns if same_boot else engine.parts.clock.mono_ns()
        sources = engine.parts.intake.sources
        answered = runner.answered_up_to
        for offset, (name, device, topic, ts, in_seq, flags, payload) in enumerate(
            zip(rows.source, rows.device, rows.topic, rows.ts, rows.in_seq, rows.flags, rows.payload, strict=True)
        ):
            seq = group.first_seq + offset
            if seq <= runner.cursor:
                continue
            source = sources.get(name)
            if source is not None and runner in source.runners:
                row = source.reread(topic, payload)
                if row is not None:
                    runner.feed(device, ts, row, seq, topic, in_seq, flags)
                elif not runner.parts.frames:
                    self.unreadable += 1
                elif seq > answered:
                    runner.skips.add(seq, "restart")
            runner.cursor = seq
            if seq <= answered:
                runner.discard_ready()
