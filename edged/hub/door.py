"""How much a worker holds at once: counted here, before anything is queued. Used from paho's thread and the loop."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

from edged.hub.decisions import Sender


class Room(NamedTuple):
    """The bounds: batches, their bytes as they travelled, batches of one gateway."""

    batches: int
    size_bytes: int
    per_gateway: int


class Door:
    """Lets in what there is room for. Whoever was let in must `leave`, whatever happened to it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._lock = threading.Lock()  # held for a few additions only
        self._by_gateway: Counter[Sender] = Counter()
        self.batches = 0
        self.size_bytes = 0
        self.highest_batches = 0
        self.highest_bytes = 0

    def enter(self, sender: Sender, size_bytes: int) -> bool:
        """False: answer `busy`. Something larger than the whole room gets in when nothing else is there."""
        with self._lock:
            full = self.batches >= self._room.batches or self._by_gateway[sender] >= self._room.per_gateway
            if full or (self.batches and self.size_bytes + size_bytes > self._room.size_bytes):
                return False
            self.batches += 1
            self.size_bytes += size_bytes
            self._by_gateway[sender] += 1
            self.highest_batches = max(self.highest_batches, self.batches)
            self.highest_bytes = max(self.highest_bytes, self.size_bytes)
            return True

    def leave(self, sender: Sender, size_bytes: int) -> None:
        with self._lock:
            self.batches -= 1
            self.size_bytes -= size_bytes
            self._by_gateway[sender] -= 1
            if not self._by_gateway[sender]:
                del self._by_gateway[sender]
