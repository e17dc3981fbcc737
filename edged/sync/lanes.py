"""Which part of which stream goes next: the order of the lanes, and the backlog's minimum share. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from edged.sync.protocol import Stream

Part = Literal["live", "past"]
"""Live is what was made since the hub last said what it has; the past is everything before, the oldest first."""

PAST_SHARE = 0.3  # of the bytes that live rows and backlog share, while both wait


class Lane(NamedTuple):
    """One row of the table.

    paced: waits for the token bucket and for a hub that asks to. spreads: waits for the random pause after a connect.
    gathers: small batches wait for more rows. urgent: may use the slot that is kept free for it.
    """

    stream: Stream
    part: Part
    paced: bool
    spreads: bool
    gathers: bool
    urgent: bool


_ALARMS = (
    Lane("alarm", "live", paced=False, spreads=False, gathers=False, urgent=True),
    Lane("alarm", "past", paced=True, spreads=False, gathers=False, urgent=False),
)
_LIVE = (
    Lane("health", "live", paced=True, spreads=False, gathers=True, urgent=False),
    Lane("result", "live", paced=True, spreads=False, gathers=True, urgent=False),
)
_PAST = (
    Lane("health", "past", paced=True, spreads=True, gathers=False, urgent=False),
    Lane("result", "past", paced=True, spreads=True, gathers=False, urgent=False),
    Lane("telemetry", "past", paced=True, spreads=True, gathers=True, urgent=False),
)
LANES = (*_ALARMS, *_LIVE, *_PAST)
PAST_FIRST = (*_ALARMS, *_PAST, *_LIVE)
LIVE_STREAMS = frozenset(lane.stream for lane in LANES if lane.part == "live")


class Share:
    """Sees to it that live rows leave the backlog its part: what they take more is owed."""

    def __init__(self) -> None:
        self._owed_bytes = 0.0

    def order(self, batch_bytes: int) -> tuple[Lane, ...]:
        """The lanes, first come first; the backlog goes before live rows once it is owed a batch."""
        return PAST_FIRST if self._owed_bytes >= batch_bytes else LANES

    def sent(self, lane: Lane, size_bytes: int, *, past_waits: bool) -> None:
        """Book a batch. past_waits: backlog could have gone instead."""
        if lane in _PAST:
            self._owed_bytes = max(0.0, self._owed_bytes - size_bytes * (1 - PAST_SHARE))
        elif lane in _LIVE:
            self._owed_bytes = self._owed_bytes + size_bytes * PAST_SHARE if past_waits else 0.0
