"""What both MQTT versions share on the way in: packet boundaries, PUBLISH, PUBACK, too large packets. Pure, sans-io.

The loop in `feed` handles whole reads, because a call per message is what makes Python clients slow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from struct import iter_unpack
from typing import Literal, NamedTuple

from edged.errors import ProtocolViolation
from edged.mqtt.oversize import OversizeSkip
from edged.mqtt.topics import CACHE_LIMIT, topic_problem
from edged.mqtt.wire import decode_length, decode_text

MAX_RECEIVE = 65_535
LARGE_BYTES = 65_536

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
_PUBACK_WORD = 0x4002  # a PUBACK without reason code: 40 02 id id

Message = tuple[int, str, bytes, bool]
"""Shape of `edged.messages.Inbound`: (packet_id, topic, payload, retain); a plain tuple is faster to make."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What CONNECT says. `keep_alive_s` 0 turns keep-alive off; `session_expiry_s` 0 asks for a clean session."""

    client_id: str
    keep_alive_s: int
    session_expiry_s: int
    receive_maximum: int
    username: str | None = None
    password: bytes | None = None
    will_topic: str = ""
    will_payload: bytes = b""
    will_delay_s: int = 0


UNSUPPORTED_VERSION = "unsupported_protocol_version"


class ConnAck(NamedTuple):
    """The broker's answer to CONNECT. `reason` is empty when it accepts. `keep_alive_s` None: ours stands."""

    reason: str
    session_present: bool
    receive_maximum: int
    max_packet_bytes: int
    keep_alive_s: int | None
    qos1_allowed: bool
    retain_allowed: bool


class SubAck(NamedTuple):
    """One reason per filter, in order; empty where the filter was granted."""

    packet_id: int
    reasons: tuple[str, ...]


class Refusal(NamedTuple):
    """A PUBACK with a failure code: the broker did not take the message."""

    packet_id: int
    reason: str


class Pong(NamedTuple):
    """PINGRESP."""


class Farewell(NamedTuple):
    """DISCONNECT by the broker."""

    reason: str


Control = ConnAck | SubAck | Refusal | Pong | Farewell


class Codec(ABC):
    """One connection's codec: bytes in, messages out, and the packets a client sends.

    A codec is used for one connection and thrown away with it. `feed` raises `ProtocolViolation` and nothing else.
    """

    version: Literal["5", "3.1.1"]
    has_properties: bool

    def __init__(self, max_packet_bytes: int) -> None:
        self._limit = max_packet_bytes
        self._topics: dict[bytes, str] = {}
        self._partial = bytearray()
        self._need = 0  # bytes `_partial` must have before looking at it again is worth while
        self._skip: OversizeSkip | None = None
        self._oversize_count = 0

    # --- what the versions differ in ---

    @abstractmethod
    def connect(self, request: ConnectRequest) -> bytes:
        """The CONNECT packet."""

    @abstractmethod
    def subscribe(self, packet_id: int, filters: Sequence[str], canary: str = "") -> bytes:
        """One SUBSCRIBE for all filters at QoS 1; `canary` is added at QoS 0, as the last one, when it is not empty."""

    @abstractmethod
    def disconnect(self, *, violation: bool = False) -> bytes:
        """DISCONNECT; `violation` tells the broker that it broke the protocol, where the version can say so."""

    @abstractmethod
    def _control(self, packet: bytes, body_at: int) -> Control:
        """Parse one complete packet that is neither PUBLISH nor PUBACK; its body starts at `body_at`."""

    @abstractmethod
    def _puback_reason(self, packet: bytes, body_at: int) -> str:
        """Why the broker did not take the message, by a PUBACK that is not the plain one; empty when it did."""

    @abstractmethod
    def _publish_with_properties(self, packet: bytes, properties_at: int) -> bytes:
        """Check a complete PUBLISH that carries properties, and return its payload."""

    # --- what they share ---

    # One function, because a call per packet would cost more than the packet.
    def feed(  # noqa: PLR0912, PLR0915
        self, data: bytes, messages: list[Message], acked: list[int]
    ) -> list[Control]:
        """Take one read: append messages and acknowledged packet ids, return the rest of what the broker said.

        Raises ProtocolViolation; what stood before the offending packet has been appended by then.
        """
        if self._skip is not None:
            data = self._continue_skip(data, messages)
        if self._partial:
            if len(self._partial) + len(data) < self._need:
                self._partial += data
                return []
            data = b"".join((self._partial, data))
            self._partial.clear()
        controls: list[Control] = []
        # Locals: each is read for every packet.
        topics, append, limit = self._topics, messages.append, self._limit
        with_properties = 1 if self.has_properties else 0
        position, end, need = 0, len(data), 2
        while end - position >= 2:
            head = data[position]
            length = data[position + 1]
            body = position + 2
            if length > 127:
                if body < end and 0 < data[body] < 128:  # two bytes: nearly every sensor event
                    length += (data[body] << 7) - 128
                    body += 1
                else:
                    length, body = decode_length(data, position + 1, end)
                    if length < 0:
                        need = end - position + 1
                        break
            stop = body + length
            if length > limit:
                need = self._begin_skip(data, position, body, stop) - position
                if self._skip is None:
                    break
                data = self._continue_skip(data[position:], messages)
                position, end = 0, len(data)
                continue
            if stop > end:
                need = stop - position
                break
            if head & 0xF0 == PUBLISH:
                qos = head & 6
                if qos > 2 or length < 3:
                    raise _publish_violation(head, length)
                at = body + 2 + (data[body] << 8 | data[body + 1])
                if at + qos + with_properties > stop:
                    raise ProtocolViolation(f"reading PUBLISH: the topic ends {at - stop + qos} bytes after the packet")
                raw = data[body + 2 : at]
                topic = topics.get(raw) or self._learn(raw)
                packet_id = 0
                if qos:
                    packet_id = data[at] << 8 | data[at + 1]
                    if not packet_id:
                        raise ProtocolViolation("reading PUBLISH: packet id 0 at QoS 1; ids start at 1")
                    at += 2
                if not with_properties:
                    payload = data[at:stop]
                elif data[at]:
                    payload = self._publish_with_properties(data[position:stop], at - position)
                else:
                    payload = data[at + 1 : stop]
                append((packet_id, topic, payload, head & 1 == 1))
                position = stop
            elif head == PUBACK and length != 2:
                reason = self._puback_reason(data[position:stop], body - position)
                packet_id = data[body] << 8 | data[body + 1]
                if reason:
                    controls.append(Refusal(packet_id, reason))
                else:
                    acked.append(packet_id)
                position = stop
            elif head == PUBACK:
                view = memoryview(data)[position : end - (end - position) % 4]
                for word, packet_id in iter_unpack(">HH", view):
                    if word != _PUBACK_WORD:
                        break
                    acked.append(packet_id)
                    position += 4
            else:
                controls.append(self._control(data[position:stop], body - position))
                position = stop
        if position < end:
            self._partial += data[position:]
            self._need = need
        return controls

    @property
    def in_large_packet(self) -> bool:
        """Whether the last read ended within a packet that may take a slow line a while."""
        return self._skip is not None or (self._need > LARGE_BYTES and bool(self._partial))

    def take_oversize_count(self) -> int:
        """Packets over the limit since the last call."""
        count, self._oversize_count = self._oversize_count, 0
        return count

    def _learn(self, raw: bytes) -> str:
        topic = decode_text(raw, "topic")
        problem = topic_problem(topic)
        if problem:
            raise ProtocolViolation(f"reading PUBLISH: the topic {topic[:80]!r} {problem}")
        if len(self._topics) >= CACHE_LIMIT:
            self._topics.clear()
        self._topics[raw] = topic
        return topic

    def _begin_skip(self, data: bytes, position: int, body: int, stop: int) -> int:
        """Start to skip a packet over the limit, once its topic has arrived: until then returns where that ends."""
        head = data[position]
        qos = head & 6
        if head & 0xF0 != PUBLISH or qos > 2:
            raise ProtocolViolation(
                f"reading packet type {head >> 4}: {stop - body} bytes, allowed are {self._limit}",
                hint="only a PUBLISH at QoS 0 or 1 may be large",
            )
        at = body + 2
        if len(data) < at:
            return at
        at += data[body] << 8 | data[body + 1]
        known = min(stop, at + qos + 4)  # packet id, and the length of the properties in at most four bytes
        if len(data) < known:
            return known
        topic = self._learn(data[body + 2 : at])
        packet_id = int.from_bytes(data[at : at + qos], "big")
        if qos and not packet_id:
            raise ProtocolViolation("reading PUBLISH: packet id 0 at QoS 1; ids start at 1")
        at += qos
        if self.has_properties:
            properties, at = decode_length(data, at, min(at + 4, stop))
            at = at + properties if properties >= 0 else stop + 1
        if at > stop:
            raise ProtocolViolation("reading PUBLISH: topic and properties end after the packet")
        self._oversize_count += 1
        self._skip = OversizeSkip(
            packet_id=packet_id,
            topic=topic,
            retain=head & 1 == 1,
            header_bytes=at - position,
            payload_bytes=stop - at,
        )
        return position

    def _continue_skip(self, data: bytes, messages: list[Message]) -> bytes:
        """Feed the packet that is being skipped; return what follows it."""
        skip = self._skip
        assert skip is not None
        rest = skip.feed(data)
        if skip.done:
            messages.append(skip.message())
            self._skip = None
        return rest


def _publish_violation(head: int, length: int) -> ProtocolViolation:
    if head & 6 > 2:
        return ProtocolViolation(
            f"reading PUBLISH: QoS {head >> 1 & 3}, subscribed was at most QoS 1",
            hint="another program may have subscribed at QoS 2 with this client id: choose another client id",
        )
    return ProtocolViolation(f"reading PUBLISH: {length} bytes, too few for a topic")
