"""What a worker remembers for a while: whose turn it is, what came damaged, who came back. All of it bounded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.hub.decisions import Sender
    from edged.sync.protocol import BatchHeader

SUSPECTS_MAX = 1024
RETURNED_WITHIN_NS = 60_000_000_000
RETURNED_MAX = 10_000

Key = tuple[str, ...]


class StreamTurns:
    """One at a time per key, in the order of asking. Keys that nobody uses are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[Key, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1


class Suspects:
    """Batches whose checksum did not fit. A worker asks for each of them once more, and then gives it up."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def first_time(self, header: BatchHeader) -> bool:
        key = (header.site, header.gateway, header.epoch, header.stream, header.first, header.last)
        if key in self._seen:
            del self._seen[key]
            return False
        self._seen[key] = None
        if len(self._seen) > SUSPECTS_MAX:
            self._seen.popitem(last=False)
        return True


class Returned:
    """Which gateways said hello within the last minute."""

    def __init__(self) -> None:
        self._at_ns: OrderedDict[Sender, int] = OrderedDict()

    def count(self, sender: Sender, now_ns: int) -> int:
        """How many, this one included."""
        self._at_ns[sender] = now_ns
        self._at_ns.move_to_end(sender)
        oldest = next(iter(self._at_ns))
        while now_ns - self._at_ns[oldest] > RETURNED_WITHIN_NS or len(self._at_ns) > RETURNED_MAX:
            del self._at_ns[oldest]
            oldest = next(iter(self._at_ns))
        return len(self._at_ns)
