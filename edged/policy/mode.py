"""The mode of the gateway, derived from the reasons that are active. Pure; the causes stand in `edged.policy.causes`.

A reason is entered at once. Once its cause has gone it stays for `hold_s` (hysteresis), so that a flapping cause does
not flap the mode. The mode is the worst one that any present reason asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edged.policy.causes import CAUSES, MODES, OF_ONE_PIPELINE, OF_THE_GOVERNOR, OF_THE_WAY_HOME, Mode


class Reason(NamedTuple):
    """A present reason. `subject`: whose (a pipeline, a filter), or "". `since_ms`: Unix ms, for people."""

    code: str
    subject: str
    since_ms: int
    detail: str
    cleared_mono_ms: int | None = None


class ModeState(NamedTuple):
    """The reasons in order of appearance, and the mode they make."""

    mode: Mode = "normal"
    since_ms: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reason.code for reason in self.reasons))


def degrades(reasons: Iterable[Reason], pipeline: str) -> bool:
    """Whether the results of `pipeline` carry less than was configured. Waiting for a link takes nothing from them."""
    return any(
        CAUSES[reason.code].mode not in {"normal", "offline"}
        and reason.code not in OF_THE_WAY_HOME
        and reason.code not in OF_THE_GOVERNOR
        and (reason.code not in OF_ONE_PIPELINE or reason.subject == pipeline)
        for reason in reasons
    )


class Raised(NamedTuple):
    """A cause is there (again)."""

    code: str
    subject: str = ""
    detail: str = ""


class Cleared(NamedTuple):
    """A cause has gone; the reason leaves after its holding time."""

    code: str
    subject: str = ""


class Tick(NamedTuple):
    """Time passed."""


Event = Raised | Cleared | Tick


class ReasonEntered(NamedTuple):
    reason: Reason


class ReasonLeft(NamedTuple):
    reason: Reason


class ModeChanged(NamedTuple):
    before: Mode
    after: Mode


Effect = ReasonEntered | ReasonLeft | ModeChanged


def step(state: ModeState, event: Event, *, mono_ms: int, wall_ms: int) -> tuple[ModeState, tuple[Effect, ...]]:
    """One event in, the next state and what to tell the world out. No effects: nothing visible changed.

    Holding times count on `mono_ms`; `wall_ms` only labels what people read. Unknown codes are a `KeyError`: our bug.
    """
    effects: list[Effect] = []
    reasons: list[Reason] = []
    raised = False
    for reason in state.reasons:
        if isinstance(event, Raised) and (reason.code, reason.subject) == (event.code, event.subject):
            raised = True
            reasons.append(reason._replace(detail=event.detail, cleared_mono_ms=None))
        elif isinstance(event, Cleared) and (reason.code, reason.subject) == (event.code, event.subject):
            cleared_ms = mono_ms if reason.cleared_mono_ms is None else reason.cleared_mono_ms
            reasons.append(reason._replace(cleared_mono_ms=cleared_ms))
        elif _held(reason, mono_ms):
            reasons.append(reason)
        else:
            effects.append(ReasonLeft(reason))
    if isinstance(event, Raised) and not raised:
        _ = CAUSES[event.code]
        entered = Reason(event.code, event.subject, wall_ms, event.detail)
        reasons.append(entered)
        effects.append(ReasonEntered(entered))
    mode = derive(reason.code for reason in reasons)
    since_ms = state.since_ms
    if mode != state.mode:
        since_ms = wall_ms
        effects.append(ModeChanged(state.mode, mode))
    return ModeState(mode, since_ms, tuple(reasons)), tuple(effects)


def derive(codes: Iterable[str]) -> Mode:
    """The worst mode that any of these reason codes asks for."""
    return max((CAUSES[code].mode for code in codes), key=MODES.index, default="normal")


def _held(reason: Reason, mono_ms: int) -> bool:
    """Whether the reason is still present: its cause is there, or went less than `hold_s` ago."""
    if reason.cleared_mono_ms is None:
        return True
    return mono_ms - reason.cleared_mono_ms < CAUSES[reason.code].hold_s * 1000
