"""Results → alarms that begin and end, per device and code. A table decides; the caller publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from edged.errors import ConfigError
from edged.pipeline.postprocess import CALIBRATING
from edged.pipeline.spec import AlarmRule

_FORMAT = 1


class State(IntEnum):
    INACTIVE = 0
    ACTIVE = 1


class Seen(IntEnum):
    """What one result means to one rule. NOTHING: no trustworthy answer, which neither raises nor clears."""

    HIT = 0
    MISS = 1
    LAST_MISS = 2  # as many in a row as it takes to clear
    NOTHING = 3


class Act(IntEnum):
    KEEP = 0
    RAISE = 1
    COUNT_MISS = 2
    FORGET_MISSES = 3
    CLEAR = 4


# An alarm is ACTIVE from RAISE to CLEAR; every other act leaves the state as it is.
TRANSITIONS: Final[dict[tuple[State, Seen], Act]] = {
    (State.INACTIVE, Seen.HIT): Act.RAISE,
    (State.INACTIVE, Seen.MISS): Act.KEEP,
    (State.INACTIVE, Seen.LAST_MISS): Act.KEEP,
    (State.INACTIVE, Seen.NOTHING): Act.KEEP,
    (State.ACTIVE, Seen.HIT): Act.FORGET_MISSES,
    (State.ACTIVE, Seen.MISS): Act.COUNT_MISS,
    (State.ACTIVE, Seen.LAST_MISS): Act.CLEAR,
    (State.ACTIVE, Seen.NOTHING): Act.KEEP,
}


class AlarmChange(NamedTuple):
    """An alarm that began or ended. `since_ts`: event time of the result that raised it; `ts`: of this one."""

    device: str
    code: str
    active: bool
    severity: str
    since_ts: int
    ts: int
    label: str | None
    score: float | None


class _Active(msgspec.Struct, array_like=True, gc=False):
    since_ts: int
    misses: int = 0


class _Snapshot(msgspec.Struct, array_like=True):
    format: int
    active: dict[str, dict[str, _Active]]


_decode_snapshot = msgspec.msgpack.Decoder(_Snapshot).decode


class AlarmBank:
    """The alarms of one pipeline. Only active ones are remembered: never more than devices times rules.

    Raises:
        ConfigError: two rules with one code.
    """

    def __init__(self, rules: Sequence[AlarmRule]) -> None:
        codes = [rule.code for rule in rules]
        if len(set(codes)) < len(codes):
            raise ConfigError(f"alarm codes {codes}: each may stand once", hint="give the rules different codes")
        self._rules = tuple(rules)
        self._active: dict[str, dict[str, _Active]] = {rule.code: {} for rule in rules}  # by code, then device

    def step(
        self,
        device: str,
        ts: int,
        label: str | None,
        score: float | None,
        values: Mapping[str, float | list[float]] | None = None,
    ) -> list[AlarmChange]:
        """Show one result to every rule; mostly nothing changes.

        A failed result (no label, no score, no values) and one that is still calibrating neither raise nor clear.

        Args:
            ts: event time, Unix ms.
            values: for `above_threshold` the first one stands in for a missing score, as in a regression.
        """
        trusted = label != CALIBRATING and not (label is None and score is None and values is None)
        value: object = score if score is not None else next(iter((values or {}).values()), None)
        changes = []
        for rule in self._rules:
            active = self._active[rule.code]
            entry = active.get(device)
            hit = trusted and _is_hit(rule, label, score, value)
            if entry is None and not hit:
                continue  # what almost every result is; the table says the same
            seen = _seen(rule, entry, hit=hit) if trusted else Seen.NOTHING
            act = TRANSITIONS[State.INACTIVE if entry is None else State.ACTIVE, seen]
            if entry is None:
                entry = active[device] = _Active(ts)
            if act is Act.CLEAR:
                del active[device]
            if act in {Act.RAISE, Act.CLEAR}:
                raised = act is Act.RAISE
                changes.append(AlarmChange(device, rule.code, raised, rule.severity, entry.since_ts, ts, label, score))
            elif act is not Act.KEEP:
                entry.misses = 0 if act is Act.FORGET_MISSES else entry.misses + 1
        return changes

    def active(self) -> list[AlarmChange]:
        """Every active alarm, as it was raised: what must stand on the broker after a restart."""
        return [
            AlarmChange(device, rule.code, True, rule.severity, entry.since_ts, entry.since_ts, rule.label, None)
            for rule in self._rules
            for device, entry in self._active[rule.code].items()
        ]

    def dump(self) -> bytes:
        """The state for a snapshot."""
        return msgspec.msgpack.encode(_Snapshot(_FORMAT, self._active))

    def load(self, blob: bytes) -> bool:
        """Take a dumped state; alarms of rules that are gone are left out. False, nothing changed, when damaged."""
        try:
            snapshot = _decode_snapshot(blob)
        except msgspec.DecodeError:
            return False
        if snapshot.format != _FORMAT:
            return False
        self._active = {code: snapshot.active.get(code, {}) for code in self._active}
        return True


def _is_hit(rule: AlarmRule, label: str | None, score: float | None, value: object) -> bool:
    if rule.above_threshold is not None:
        return isinstance(value, float) and value > rule.above_threshold
    return score is not None and score >= rule.min_score and (rule.label is None or rule.label == label)


def _seen(rule: AlarmRule, entry: _Active | None, *, hit: bool) -> Seen:
    if hit:
        return Seen.HIT
    return Seen.LAST_MISS if entry is not None and entry.misses + 1 >= rule.clear_after else Seen.MISS
