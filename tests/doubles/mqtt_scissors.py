"""Cuts an MQTT connection at a chosen byte of a chosen packet: for `ChaosLink.arm`."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tests.doubles.chaos_link import Direction

Point = Literal["before", "type", "length", "topic", "line", "body", "last", "after"]
"""Where in the packet: before its first byte, after that byte, after its length, in the topic, in the first line of the
payload, in the middle of what follows it, before the last byte, after it."""

KINDS = {"CONNECT": 1, "CONNACK": 2, "PUBLISH": 3, "PUBACK": 4, "SUBSCRIBE": 8, "SUBACK": 9, "PINGREQ": 12}
_PUBLISH = 3
_LENGTH_BYTES_MAX = 4
_LINE_MAX_BYTES = 5000


class Moment(NamedTuple):
    """Which packet, and where in it. topic_end: only a PUBLISH whose topic ends so. nth: the first one is 1."""

    direction: Direction
    kind: str
    point: Point
    topic_end: str = ""
    nth: int = 1


class _Packet(NamedTuple):
    """What is known of a packet from its first bytes, as offsets from its beginning."""

    kind: int
    topic: str
    head: int  # fixed header
    payload: int  # nearly: properties of MQTT 5 count as payload
    line_end: int
    end: int


class _Stream:
    """The bytes of one direction of one connection, as far as the packet under way needs them."""

    def __init__(self) -> None:
        self.held = b""
        self.begins_at = 0  # of `held`, counted from the beginning of the stream
        self.passed = 0

    def take(self, data: bytes) -> list[tuple[int, _Packet]]:
        """Packets that begin in what is here, each once it is known: (offset in the stream, packet)."""
        self.held += data
        self.passed += len(data)
        found = []
        while (packet := _parse(self.held)) is not None:
            found.append((self.begins_at, packet))
            if len(self.held) < packet.end:
                self.held, self.begins_at = b"", self.begins_at + packet.end  # the rest is skipped as it comes
                break
            self.held, self.begins_at = self.held[packet.end :], self.begins_at + packet.end
        return found


class MqttScissors:
    """Implements `Scissors` for one moment."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment
        self._streams: dict[int, _Stream] = {}
        self._left = moment.nth
        self._cut_at: tuple[int, int] | None = None  # connection, offset

    def snip(self, connection: int, direction: Direction, data: bytes) -> int | None:
        if direction != self._moment.direction:
            return None
        stream = self._streams.setdefault(connection, _Stream())
        begins_at = stream.passed
        self._look(connection, stream, data)
        if self._cut_at is None or self._cut_at[0] != connection or self._cut_at[1] > stream.passed:
            return None
        return max(0, self._cut_at[1] - begins_at)

    def _look(self, connection: int, stream: _Stream, data: bytes) -> None:
        skipped = max(0, stream.begins_at - stream.passed)
        stream.passed += min(skipped, len(data))
        for offset, packet in stream.take(data[skipped:]):
            wanted = KINDS[self._moment.kind] == packet.kind and packet.topic.endswith(self._moment.topic_end)
            self._left -= wanted
            if wanted and self._left == 0:
                self._cut_at = connection, offset + _offset(self._moment.point, packet)


def _offset(point: Point, packet: _Packet) -> int:
    return {
        "before": 0,
        "type": 1,
        "length": packet.head,
        "topic": (packet.head + packet.payload) // 2,
        "line": (packet.payload + packet.line_end) // 2,
        "body": (packet.line_end + packet.end) // 2,
        "last": packet.end - 1,
        "after": packet.end,
    }[point]


def _parse(data: bytes) -> _Packet | None:
    """The packet that begins here; None until enough of it has come."""
    length, head = 0, 1
    while True:
        if len(data) <= head or head > _LENGTH_BYTES_MAX:
            return None
        length |= (data[head] & 127) << 7 * (head - 1)
        head += 1
        if not data[head - 1] & 128:
            break
    kind, end = data[0] >> 4, head + length
    if kind != _PUBLISH:
        return _Packet(kind, "", head, head, head, end)
    if len(data) < min(end, head + _LINE_MAX_BYTES) and b"\n" not in data:
        return None
    size = int.from_bytes(data[head : head + 2])
    payload = head + 2 + size
    newline = data.find(b"\n", payload, end)
    topic = data[head + 2 : payload].decode(errors="replace")
    return _Packet(kind, topic, head, payload, payload if newline < 0 else newline, end)
