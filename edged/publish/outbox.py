"""How far the broker has our results: which go next, which are in flight, which must come from the store again.

The store is the outbox. This class only keeps a cursor and a bounded tail of ready payloads, so that in normal
operation nothing is read back; after a reconnect or a burst it asks for a refill. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from edged.messages import Outbound

TAIL_LIMIT = 4096  # ready payloads kept beyond the window, about 4 MB; more come from the store when it is their turn

# The broker says "not now": the same message may pass later. Everything else refused is refused for good.
RETRY_LATER = frozenset({"quota_exceeded"})


class Outbox:
    """Orders the results of one epoch by seq.

    Args:
        delivered: highest seq known to be acknowledged, from the store's last meta.
        committed: highest seq in the store.
    """

    def __init__(self, delivered: int, committed: int) -> None:
        self.committed = committed
        self._delivered = delivered
        self._next = delivered + 1
        self._tail: deque[Outbound] = deque()
        self._order: deque[int] = deque()
        self._flight: dict[int, Outbound] = {}
        self.resent = 0
        self._holes: deque[tuple[int, int]] = deque()

    @property
    def delivered(self) -> int:
        """Every result up to this seq is acknowledged (or refused for good)."""
        return self._order[0] - 1 if self._order else self._next - 1

    @property
    def next_seq(self) -> int:
        return self._next

    @property
    def in_flight(self) -> int:
        return len(self._flight)

    @property
    def waiting(self) -> int:
        """Committed results that the broker has not acknowledged."""
        return self.committed - self.delivered

    def refill_from(self) -> int | None:
        """The seq to read from the store, or None while the tail has what comes next."""
        if self._tail or self._next > self.committed:
            return None
        return self._next

    def offer(self, ready: Sequence[Outbound]) -> None:
        """Take freshly committed results; those that do not fit wait in the store."""
        if not ready:
            return
        self.committed = ready[-1].token
        expected = self._tail[-1].token + 1 if self._tail else self._next
        if ready[0].token == expected:
            self._tail.extend(ready[: TAIL_LIMIT - len(self._tail)])

    def refill(self, read: Iterable[Outbound]) -> None:
        """Take results read back from the store. What is missing between them is gone: the cursor moves over it."""
        for item in read:
            if not self._tail and not self._flight:
                self.skip_to(item.token)
            expected = self._tail[-1].token + 1 if self._tail else self._next
            if item.token > expected:
                self._holes.append((expected, item.token - 1))
            if item.token >= expected:
                self._tail.append(item)

    def skip_to(self, seq: int) -> None:
        """Nothing is stored before `seq` any more, and nothing before it is in memory: go on from there."""
        if seq > self._next and not self._tail:
            self._holes.append((self._next, seq - 1))
            self._next = seq

    def give_up_to(self, seq: int) -> None:
        """Results up to `seq` are gone from the store. Those in memory leave all the same."""
        if not self._tail and not self._flight:
            self.skip_to(seq + 1)

    def take_holes(self) -> list[tuple[int, int]]:
        """Ranges (inclusive) that the cursor has passed although nobody got them; each is handed out once."""
        passed = []
        while self._holes and self._holes[0][1] <= self.delivered:
            passed.append(self._holes.popleft())
        return passed

    def peek(self, slots: int) -> list[Outbound]:
        """Up to `slots` results that may be sent now, in order; `sent` confirms them."""
        tail = self._tail
        if slots >= len(tail):
            return list(tail)
        return [tail[i] for i in range(slots)]

    def sent(self, count: int) -> None:
        """The first `count` peeked results are on the wire."""
        tail, order, flight = self._tail, self._order, self._flight
        for _ in range(count):
            item = tail.popleft()
            order.append(item.token)
            flight[item.token] = item
        if count:
            self._next = order[-1] + 1

    def settle(self, tokens: Iterable[int]) -> int:
        """The broker acknowledged these. Returns how many were in flight."""
        flight, order = self._flight, self._order
        pop = flight.pop
        settled = 0
        for token in tokens:
            if pop(token, None) is not None:
                settled += 1
        while order and order[0] not in flight:
            order.popleft()
        return settled

    def in_flight_item(self, token: int) -> Outbound | None:
        return self._flight.get(token)

    def rewind(self) -> None:
        """The connection is gone, or the broker asked for patience: all that is not acknowledged goes again."""
        self._next = self.delivered + 1
        while self._holes and self._holes[-1][0] >= self._next:
            self._holes.pop()  # not passed yet: they are found again
        self.resent += len(self._flight)
        self._order.clear()
        self._flight.clear()
        self._tail.clear()
