"""The retained topics: what a SCADA that starts later must find. Newest value per topic, sent again at every connect.

A board needs no store: everything on it follows from the configuration, the folded state and the present.
Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from edged.messages import Outbound

TOPIC_LIMIT = 65_536  # retained topics kept; devices × pipelines is bounded before, this is the last wall


class Board:
    """Newest payload per retained topic, and which of them the broker has not acknowledged yet."""

    def __init__(self) -> None:
        self._topics: dict[str, Outbound] = {}
        self._pending: dict[str, None] = {}
        self._flight: dict[int, tuple[str, bytes]] = {}
        self._token = 0
        self.dropped = 0
        self.refused = 0

    def put(self, topic: str, payload: bytes, *, expiry_s: int = 0) -> None:
        """Set the value of `topic`; an unchanged value is not sent again."""
        known = self._topics.get(topic)
        if known is not None and known.payload == payload:
            return
        if known is None and len(self._topics) >= TOPIC_LIMIT:
            self.dropped += 1
            return
        self._topics[topic] = Outbound(topic.encode(), payload, 0, retain=True, expiry_s=expiry_s)
        self._pending[topic] = None

    def clear(self, topic: str) -> None:
        """Publish an empty retained message once, which removes the topic at the broker."""
        if topic in self._topics:
            self._topics[topic] = Outbound(topic.encode(), b"", 0, retain=True)
            self._pending[topic] = None

    def value(self, topic: str) -> bytes | None:
        known = self._topics.get(topic)
        return known.payload if known is not None else None

    @property
    def pending(self) -> int:
        return len(self._pending)

    def connected(self) -> None:
        """A new connection: the broker may have restarted empty, so everything goes again."""
        self._flight.clear()
        self._pending = dict.fromkeys(self._topics)

    def peek(self, slots: int) -> list[Outbound]:
        """Up to `slots` publishes with fresh negative tokens; call `sent` with those that were consumed."""
        out: list[Outbound] = []
        for topic in self._pending:
            if len(out) >= slots:
                break
            self._token -= 1
            out.append(self._topics[topic]._replace(token=self._token))
        return out

    def sent(self, items: Iterable[Outbound]) -> None:
        for item in items:
            topic = item.topic.decode()
            self._pending.pop(topic, None)
            self._flight[item.token] = (topic, item.payload)

    def settle(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            landed = self._flight.pop(token, None)
            if landed is None:
                continue
            topic, payload = landed
            current = self._topics.get(topic)
            if current is not None and not current.payload and not payload and topic not in self._pending:
                del self._topics[topic]  # cleared, and the broker knows

    def refuse(self, tokens: Iterable[int]) -> None:
        """The broker refuses these topics; they stay on the board and are tried again at the next connect."""
        for token in tokens:
            if self._flight.pop(token, None) is not None:
                self.refused += 1
