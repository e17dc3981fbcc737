"""The newest result per device and pipeline, put on the retained board at most once per interval. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from edged.messages import Outbound, ResultColumns
from edged.publish.board import Board

_EXPIRY_PERIODS = 3  # a `last` value without a successor for three periods must not look alive
_SHORTEST_EXPIRY_S = 3


class _Pace:
    """How often results of one topic come: a smoothed interval, for the expiry of the retained value."""

    __slots__ = ("interval_ms", "last_ms")

    def __init__(self, now_ms: int) -> None:
        self.last_ms = now_ms
        self.interval_ms = 0.0

    def step(self, now_ms: int) -> int:
        """Seconds after which the value counts as too old; 0 (none) until a period is known."""
        interval = now_ms - self.last_ms
        self.last_ms = now_ms
        if interval <= 0:
            return 0
        self.interval_ms = interval if not self.interval_ms else self.interval_ms + 0.2 * (interval - self.interval_ms)
        return max(_SHORTEST_EXPIRY_S, round(_EXPIRY_PERIODS * self.interval_ms / 1000))


class LastValues:
    """Collects by batch, flushes by time.

    Args:
        interval_ms: shortest time between two publishes of one topic; 0 flushes at every tick.
    """

    def __init__(self, root: str, board: Board, interval_ms: int) -> None:
        self._prefix_bytes = len(f"{root}/result/")
        self._root = root
        self._board = board
        self._interval_ms = interval_ms
        self._newest: dict[bytes, bytes] = {}
        self._paces: dict[bytes, _Pace] = {}
        self._flushed_ms: int | None = None

    def update(self, rows: ResultColumns, ready: Sequence[Outbound]) -> None:
        """Remember the newest payload per topic; of one batch the last one of a topic wins."""
        self._newest.update([(item.topic, item.payload) for item in ready])

    def tick(self, now_ms: int) -> None:
        """Put what is new on the board, when the interval has passed."""
        if not self._newest or (self._flushed_ms is not None and now_ms - self._flushed_ms < self._interval_ms):
            return
        self._flushed_ms = now_ms
        newest, self._newest = self._newest, {}
        for topic, payload in newest.items():
            pace = self._paces.get(topic)
            if pace is None:
                pace = self._paces[topic] = _Pace(now_ms)
            name = topic[self._prefix_bytes :].decode()
            self._board.put(f"{self._root}/last/{name}", payload, expiry_s=pace.step(now_ms))
