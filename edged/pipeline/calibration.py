"""Thresholds that each device sets for itself with its first scores."""

from __future__ import annotations

import math

import msgspec

from edged.errors import ConfigError
from edged.pipeline.spec import CalibratedThreshold

_FORMAT = 1


class _State(msgspec.Struct, array_like=True):
    format: int
    events: int
    scores: dict[str, list[float]]
    thresholds: dict[str, float]


_decode_state = msgspec.msgpack.Decoder(_State).decode


class Calibration:
    """Learns one threshold per device. `max_devices` bounds it: the longest known device starts anew.

    Raises:
        ConfigError: nothing to learn from, or no such quantile.
    """

    def __init__(self, spec: CalibratedThreshold, max_devices: int = 10_000) -> None:
        if spec.calibrate_events < 1 or not 0 <= spec.quantile <= 1 or not spec.factor > 0:
            raise ConfigError(
                f"threshold: calibrate_events = {spec.calibrate_events}, quantile = {spec.quantile}, "
                f"factor = {spec.factor}",
                hint="at least one event, a quantile from 0 to 1, a factor above 0",
            )
        self._spec = spec
        self._max_devices = max_devices
        self._scores: dict[str, list[float]] = {}
        self._thresholds: dict[str, float] = {}

    def threshold(self, device: str, score: float) -> float | None:
        """The threshold that `score` is to be held against; None while it is still being learnt, also from this one.

        `score` must be finite.
        """
        known = self._thresholds.get(device)
        if known is None:
            self._learn(device, score)
        return known

    def _learn(self, device: str, score: float) -> None:
        scores = self._scores.setdefault(device, [])
        scores.append(score)
        if len(scores) >= self._spec.calibrate_events:
            del self._scores[device]
            self._thresholds[device] = _scaled(quantile(scores, self._spec.quantile), self._spec.factor)
        for entries in (self._scores, self._thresholds):
            if len(entries) > self._max_devices:
                del entries[next(iter(entries))]

    def dump(self) -> bytes:
        """The state for a snapshot."""
        return msgspec.msgpack.encode(_State(_FORMAT, self._spec.calibrate_events, self._scores, self._thresholds))

    def load(self, blob: bytes) -> bool:
        """Take a dumped state. False, and nothing changed, when it is damaged or of another `calibrate_events`."""
        try:
            state = _decode_state(blob)
        except msgspec.DecodeError:
            return False
        if (state.format, state.events) != (_FORMAT, self._spec.calibrate_events):
            return False
        self._scores = state.scores
        self._thresholds = state.thresholds
        return True


def quantile(values: list[float], part: float) -> float:
    """The value below which `part` of the sorted values lie, on the line between neighbours (as numpy's default)."""
    ordered = sorted(values)
    position = part * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _scaled(value: float, factor: float) -> float:
    """A factor above 1 makes a threshold harder to reach on either side of zero."""
    return value + abs(value) * (factor - 1)
