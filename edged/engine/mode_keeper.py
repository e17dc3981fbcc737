"""Holds the state of the mode machine, tells the rest of the engine, and puts it on the board."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edged.policy.mode import (
    Cleared,
    Effect,
    Event,
    ModeChanged,
    ModeState,
    Raised,
    ReasonEntered,
    ReasonLeft,
    Tick,
    step,
)
from edged.timestamps import rfc3339_ms

if TYPE_CHECKING:
    from edged.ops.logs import Log
    from edged.ports import Clock


class ModeKeeper:
    """`changed` is called after every visible change, with the new state."""

    def __init__(self, clock: Clock, log: Log, changed: Callable[[ModeState], None]) -> None:
        self._clock = clock
        self._log = log
        self._changed = changed
        self.state = ModeState(since_ms=clock.wall_ms())
        self.entered: dict[str, int] = {}
        """How often each reason appeared; for metrics."""

    @property
    def mode(self) -> str:
        return self.state.mode

    def set(self, code: str, active: bool, *, subject: str = "", detail: str = "") -> None:
        """A cause appeared or went away."""
        self._step(Raised(code, subject, detail) if active else Cleared(code, subject))

    def tick(self) -> None:
        self._step(Tick())

    def payload(self) -> bytes:
        """The retained `R/mode` document."""
        body = {
            "v": "edged.mode/1",
            "mode": self.state.mode,
            "since": rfc3339_ms(self.state.since_ms),
            "reasons": [
                {"code": r.code, "subject": r.subject, "since": rfc3339_ms(r.since_ms), "detail": r.detail}
                for r in self.state.reasons
            ],
        }
        return msgspec.json.encode(body)

    def _step(self, event: Event) -> None:
        now_ms = self._clock.mono_ns() // 1_000_000
        self.state, effects = step(self.state, event, mono_ms=now_ms, wall_ms=self._clock.wall_ms())
        for effect in effects:
            self._tell(effect)
        if effects:
            self._changed(self.state)

    def _tell(self, effect: Effect) -> None:
        match effect:
            case ReasonEntered(reason):
                self.entered[reason.code] = self.entered.get(reason.code, 0) + 1
                self._log.warning("reason_entered", code=reason.code, subject=reason.subject, detail=reason.detail)
            case ReasonLeft(reason):
                self._log.info("reason_left", code=reason.code, subject=reason.subject)
            case ModeChanged(before, after):
                self._log.warning("mode_changed", before=before, after=after)
