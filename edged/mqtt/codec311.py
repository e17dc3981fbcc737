"""MQTT 3.1.1 on the wire, complete but small. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edged.errors import BugError, ProtocolViolation
from edged.mqtt.frames import (
    MAX_RECEIVE,
    UNSUPPORTED_VERSION,
    Codec,
    ConnAck,
    ConnectRequest,
    Control,
    Pong,
    SubAck,
)
from edged.mqtt.wire import MAX_REMAINING_BYTES, blob, encode_length, text

_REFUSALS = (
    "",
    UNSUPPORTED_VERSION,
    "client_id_not_valid",
    "server_unavailable",
    "bad_user_name_or_password",
    "not_authorized",
)
_CONNACK, _SUBACK, _PINGRESP = 0x20, 0x90, 0xD0
_FAILURE = 0x80


class Codec311(Codec):
    """MQTT 3.1.1. There are no reason codes for publishes here: a canary finds out whether they are allowed."""

    version = "3.1.1"
    has_properties = False

    def connect(self, request: ConnectRequest) -> bytes:
        flags = 0 if request.session_expiry_s else 0x02
        fields = [text(request.client_id)]
        if request.will_topic:
            flags |= 0x04 | 0x08 | 0x20  # will, at QoS 1, retained
            fields += text(request.will_topic), blob(request.will_payload)
        if request.username is not None:
            flags |= 0x80
            fields.append(text(request.username))
        if request.password is not None:
            flags |= 0x40
            fields.append(blob(request.password))
        variable = b"\x00\x04MQTT\x04" + bytes((flags,)) + request.keep_alive_s.to_bytes(2, "big")
        return _packet(0x10, variable + b"".join(fields))

    def subscribe(self, packet_id: int, filters: Sequence[str], canary: str = "") -> bytes:
        wanted = [text(pattern) + b"\x01" for pattern in filters]
        if canary:
            wanted.append(text(canary) + b"\x00")
        return _packet(0x82, packet_id.to_bytes(2, "big") + b"".join(wanted))

    def disconnect(self, *, violation: bool = False) -> bytes:
        # With DISCONNECT the broker would forget the Will, so after a violation the connection is just closed.
        return b"" if violation else b"\xe0\x00"

    def _puback_reason(self, packet: bytes, body_at: int) -> str:
        raise ProtocolViolation(f"reading PUBACK: {len(packet) - body_at} bytes, MQTT 3.1.1 has two")

    def _publish_with_properties(self, packet: bytes, properties_at: int) -> bytes:
        raise BugError("MQTT 3.1.1 has no properties")

    def _control(self, packet: bytes, body_at: int) -> Control:
        head, body = packet[0], packet[body_at:]
        if head == _CONNACK and len(body) == 2:
            flags, code = body
            if flags <= 1 and code < len(_REFUSALS) and not (flags and code):
                return ConnAck(_REFUSALS[code], flags == 1, MAX_RECEIVE, MAX_REMAINING_BYTES, None, True, True)
        elif head == _SUBACK and len(body) > 2:
            if all(code in (0, 1, 2, _FAILURE) for code in body[2:]):
                reasons = tuple("failure" if code == _FAILURE else "" for code in body[2:])
                return SubAck(body[0] << 8 | body[1], reasons)
        elif head == _PINGRESP and not body:
            return Pong()
        raise ProtocolViolation(f"reading packet type {head >> 4}: not what MQTT 3.1.1 allows: {packet[:40].hex(' ')}")


def _packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + encode_length(len(body)) + body
