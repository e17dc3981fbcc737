"""A PUBLISH larger than the link keeps is read to its end, measured and hashed, but never held in memory. Pure."""

from __future__ import annotations

import hashlib

from edged.messages import Oversize

HEAD_BYTES = 1024  # what a dead letter shows of it


class OversizeSkip:
    """Consumes one packet in pieces. `header_bytes`: everything before the payload, fixed header included."""

    def __init__(self, *, packet_id: int, topic: str, retain: bool, header_bytes: int, payload_bytes: int) -> None:
        self._packet_id = packet_id
        self._topic = topic
        self._retain = retain
        self._header_left = header_bytes
        self._payload_left = payload_bytes
        self._size_bytes = payload_bytes
        self._head = b""
        self._hash = hashlib.sha256()

    @property
    def done(self) -> bool:
        return not self._payload_left and not self._header_left

    def feed(self, data: bytes) -> bytes:
        """Consume what belongs to the packet; return what follows it."""
        at = min(self._header_left, len(data))
        self._header_left -= at
        piece = data[at : at + self._payload_left]
        self._payload_left -= len(piece)
        self._hash.update(piece)
        self._head += piece[: HEAD_BYTES - len(self._head)]
        return data[at + len(piece) :]

    def message(self) -> tuple[int, str, bytes, bool]:
        """The message that stands for the packet; its payload is an `Oversize`."""
        payload = Oversize(self._head)
        payload.size_bytes = self._size_bytes
        payload.sha256 = self._hash.hexdigest()
        return self._packet_id, self._topic, payload, self._retain
