"""Reads pieces of the store and seals them: a portion at a time, or the WAL could not be brought home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.sync.effects import Read, Sealed
from edged.sync.envelope import Refusal, encode_message, seal
from edged.sync.protocol import VERSION, Hello, StreamExtent

if TYPE_CHECKING:
    from edged.ports import Outward
    from edged.uplink.lines import Start

PROBES_MAX = 64  # starts of the daemon that the hub compares
LOST_MAX = 10_000_000  # numbers that one tombstone may stand for


class Batches:
    """Makes what is sent. Blocking; used by one thread."""

    def __init__(self, start: Start, instance: str, outward: Outward) -> None:
        self._start = start
        self._instance = instance
        self._outward = outward

    def extents(self) -> tuple[StreamExtent, ...]:
        """Of the streams that are sent."""
        return tuple(extent for extent in self._outward.extents() if extent.stream in self._start.upstream.streams)

    def hello(self, extents: tuple[StreamExtent, ...]) -> bytes:
        hello = Hello(
            v=VERSION,
            site=self._start.site,
            gateway=self._start.gateway,
            instance=self._instance,
            version=self._start.version,
            epoch=extents[-1].epoch if extents else "none",
            extents=extents,
            probes=self._outward.probes(0, PROBES_MAX),
        )
        return encode_message(hello)

    def batch(self, order: Read) -> Sealed | None:
        """The batch that was asked for, with fewer rows where so many do not fit; an empty payload where none does."""
        limit = order.limit
        while True:
            piece = self._outward.piece(order.lane.stream, order.first, limit)
            if piece is None:
                return None
            if piece.lost is not None and piece.last - piece.first + 1 == limit < LOST_MAX:
                limit = LOST_MAX  # it may go on, and weighs nothing
                continue
            try:
                _, payload = seal(piece, site=self._start.site, gateway=self._start.gateway)
            except Refusal:
                if piece.lost is None and piece.last > piece.first:
                    limit = (piece.last - piece.first + 1) // 2
                    continue
                payload = b""
            return Sealed(piece.epoch, piece.first, piece.last, piece.lost is not None, payload)

    def close(self) -> None:
        self._outward.close()
