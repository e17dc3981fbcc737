"""The folded state: what follows from the events and must not be recomputed from the first one at a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edged.engine.runner_parts import RunnerState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edged.engine.devices import Devices
    from edged.engine.engine import Engine
    from edged.engine.intake import Source
    from edged.engine.runner import Runner
    from edged.ops.logs import Log
    from edged.ports import Clock, Journal

_FORMAT = 2
EVERY_EVENTS = 50_000  # a restart replays at most about this many events per snapshot interval: half a second


class State(msgspec.Struct, array_like=True):
    """event_seq: newest event known to the trackers. result_seq, batch: newest folded result and unit."""

    format: int
    event_seq: int
    result_seq: int
    batch: int
    trackers: dict[str, bytes]
    runners: dict[str, RunnerState]
    devices: dict[str, int]


_decode = msgspec.msgpack.Decoder(State).decode


def fold(engine: Engine, batch: int, sources: Iterable[Source], runners: Iterable[Runner], devices: Devices) -> State:
    """The state of everything as of now; valid only between two units."""
    return State(
        _FORMAT,
        engine.next_event - 1,
        engine.next_result - 1,
        batch,
        {source.name: source.tracker.dump() for source in sources},
        {runner.name: runner.dump() for runner in runners},
        devices.first_seen,
    )


def unfold(blob: bytes) -> State | None:
    """A stored state, or None when it is damaged or of another format."""
    try:
        state = _decode(blob)
    except msgspec.DecodeError:
        return None
    return state if state.format == _FORMAT else None


class Snapshots:
    """Saves the state now and then, and the cursors that moved while nothing arrived."""

    def __init__(
        self, engine: Engine, devices: Devices, journal: Journal, clock: Clock, log: Log, interval_s: int
    ) -> None:
        self._engine = engine
        self._devices = devices
        self._journal = journal
        self._clock = clock
        self._log = log
        self._interval_ns = interval_s * 1_000_000_000
        self._saved_ns = clock.mono_ns()
        self._saved_event = engine.next_event - 1
        self._saved_sent = (-1, -1, False, 0)

    async def save_if_due(self) -> None:
        """Call between units. A snapshot when enough happened; else the cursors, if they moved."""
        engine = self._engine
        now_ns = self._clock.mono_ns()
        grown = engine.next_event - 1 - self._saved_event
        if grown >= EVERY_EVENTS or (grown and now_ns - self._saved_ns >= self._interval_ns):
            await self.save()
        elif (cursors := self._cursors()) != self._saved_sent and engine.newest_batch:
            self._saved_sent = cursors
            await self._journal.save_meta(engine.meta())

    async def save(self) -> None:
        """Save now. The state is taken at once, so what happens during the write does not matter."""
        engine = self._engine
        parts = engine.parts
        state = fold(engine, engine.newest_batch, parts.intake.sources.values(), parts.runners, self._devices)
        self._saved_ns = self._clock.mono_ns()
        self._saved_event = state.event_seq
        self._saved_sent = self._cursors()
        await self._journal.save_snapshot(state.event_seq, msgspec.msgpack.encode(state))

    def _cursors(self) -> tuple[int, int, bool, int]:
        """What changes while nothing arrives, and must be known after a crash."""
        parts = self._engine.parts
        return parts.delivery.outbox.delivered, parts.delivery.notices.delivered, parts.meta.session, parts.home.changes
