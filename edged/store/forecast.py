"""How long the room lasts at the present rate. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NS_PER_DAY = 86_400_000_000_000
SAMPLES_MAX = 64
SPACING_FIRST_NS = 1_000_000_000
WINDOW_NS = NS_PER_DAY  # today's rate
SHORTEST_NS = 10_000_000_000  # a rate of less is a guess


class Sample(NamedTuple):
    """At this monotonic time so many bytes had been stored since the process started."""

    mono_ns: int
    stored_bytes: int


class Forecast(NamedTuple):
    """days_of_room: until what is not home yet fills the budget, None when nothing is known or nothing comes."""

    bytes_per_day: float
    days_of_room: float | None


def forecast(samples: Sequence[Sample], room_bytes: int) -> Forecast:
    """The rate between the first and the last sample, and how long `room_bytes` last at it."""
    if len(samples) < 2:
        return Forecast(0.0, None)
    took_ns = samples[-1].mono_ns - samples[0].mono_ns
    if took_ns < SHORTEST_NS:
        return Forecast(0.0, None)
    per_day = (samples[-1].stored_bytes - samples[0].stored_bytes) * NS_PER_DAY / took_ns
    return Forecast(per_day, max(0, room_bytes) / per_day if per_day > 0 else None)


class Samples:
    """A bounded ring over the last day: when it is full, every other sample goes and the spacing doubles."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._spacing_ns = SPACING_FIRST_NS

    def add(self, mono_ns: int, stored_bytes: int) -> None:
        """Note where we are, if the last note is old enough."""
        samples = self._samples
        if samples and mono_ns - samples[-1].mono_ns < self._spacing_ns:
            return
        while samples and mono_ns - samples[0].mono_ns > WINDOW_NS:
            samples.pop(0)
        if len(samples) >= SAMPLES_MAX:
            del samples[1::2]
            self._spacing_ns *= 2
        samples.append(Sample(mono_ns, stored_bytes))

    def until(self, mono_ns: int, stored_bytes: int) -> list[Sample]:
        """The samples, and the present as the last."""
        return [*self._samples, Sample(mono_ns, stored_bytes)]
