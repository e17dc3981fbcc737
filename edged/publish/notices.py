"""Durable messages that are not results (gaps, letters): sent in batch order, remembered by batch number. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from edged.messages import Notice, Outbound

_TAIL_LIMIT = 1024  # ready notices kept in memory, about 2 MB with letters; the rest is read back from the store

# Notice tokens live below the board's, so that both can share the link's token space.
TOKEN_BASE = -(1 << 40)


class NoticeBox:
    """Like `Outbox`, but the cursor counts batches because a batch carries any number of notices.

    Args:
        root: topic root put before each notice's topic.
        delivered: highest batch whose notices are all acknowledged.
    """

    def __init__(self, root: str, delivered: int, committed: int) -> None:
        self._root = root
        self._delivered = delivered
        self._committed = committed  # newest batch that carries notices
        self._loaded = delivered  # batches up to here are in the tail or beyond
        self._tail: deque[tuple[int, Notice]] = deque()
        self._flight: dict[int, int] = {}
        self._token = TOKEN_BASE
        self.refused = 0

    @property
    def delivered(self) -> int:
        unsettled = [*self._flight.values(), *(batch for batch, _ in islice(self._tail, 1))]
        return min(unsettled) - 1 if unsettled else self._loaded

    def refill_from(self) -> int | None:
        """Read notices of batches after this one, or None."""
        if self._tail or self._loaded >= self._committed:
            return None
        return self._loaded

    def offer(self, batch: int, notices: Sequence[Notice]) -> None:
        """Take the notices of a committed batch."""
        if not notices:
            return
        caught_up = self._loaded >= self._committed
        self._committed = batch
        ours = [(batch, notice) for notice in notices if notice.plant]
        if caught_up and len(self._tail) + len(ours) <= _TAIL_LIMIT:
            self._tail.extend(ours)
            self._loaded = batch

    def refill(self, read: Sequence[tuple[int, list[Notice]]], *, complete: bool) -> None:
        """Take notices read back; `complete`: nothing more is stored after them."""
        for batch, notices in read:
            if batch > self._loaded:
                self._tail.extend((batch, notice) for notice in notices if notice.plant)
                self._loaded = batch
        if complete:
            self._loaded = max(self._loaded, self._committed)

    def peek(self, slots: int) -> list[Outbound]:
        out: list[Outbound] = []
        for batch, notice in self._tail:
            if len(out) >= slots:
                break
            self._token -= 1
            self._flight[self._token] = batch
            topic = f"{self._root}/{notice.topic}".encode()
            out.append(Outbound(topic, notice.payload, self._token, notice.retain, notice.expiry_s))
        return out

    def sent(self, peeked: Sequence[Outbound], count: int) -> None:
        """The first `count` of `peeked` are on the wire; the others stay."""
        for item in peeked[count:]:
            self._flight.pop(item.token, None)
        for _ in range(count):
            self._tail.popleft()

    def settle(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._flight.pop(token, None)

    def refuse(self, tokens: Sequence[int]) -> None:
        """The broker refuses a notice for good: counted and passed over, or it would block the ones behind it."""
        for token in tokens:
            if self._flight.pop(token, None) is not None:
                self.refused += 1

    def rewind(self) -> None:
        """The connection is gone: everything not acknowledged is read from the store again."""
        self._loaded = self.delivered
        self._flight.clear()
        self._tail.clear()
