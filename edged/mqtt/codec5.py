"""MQTT 5 on the wire: the `mqtt5` package builds and reads the rare packets, `frames` handles the hot ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import mqtt5

from edged.errors import ProtocolViolation
from edged.mqtt.frames import (
    MAX_RECEIVE,
    UNSUPPORTED_VERSION,
    Codec,
    ConnAck,
    ConnectRequest,
    Control,
    Farewell,
    Pong,
    SubAck,
)
from edged.mqtt.wire import MAX_REMAINING_BYTES, decode_length, decode_text

# A 3.1.1 broker answers an MQTT 5 CONNECT with a CONNACK of its own version: 20 02 00 01 (MQTT 3.1.1, 3.1.2.2).
_CONNACK_OF_311 = b"\x20\x02\x00\x01"
_FAILURE = 0x80  # reason codes from here on
_TAKEN = (0x00, 0x10)  # with and without a subscriber for the topic
_PUBACK_REASONS = {
    0x80: "unspecified_error",
    0x83: "implementation_specific_error",
    0x87: "not_authorized",
    0x90: "topic_name_invalid",
    0x91: "packet_id_in_use",
    0x95: "packet_too_large",
    0x97: "quota_exceeded",
    0x99: "payload_format_invalid",
}
# Where the property block starts within the body of the packets a broker sends (MQTT 5, chapter 3).
_PROPERTIES_AFTER = {0x20: 2, 0x90: 2, 0xD0: 0, 0xE0: 1}
# Properties by identifier (MQTT 5, 2.2.2.2): bytes of the fixed ones, fields with a length in the others.
_FIXED_BYTES = dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1)
_FIXED_BYTES |= dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2) | dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4)
_FIELDS = dict.fromkeys((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), 1) | {0x26: 2}
_BINARY = (0x09, 0x16)
_SUBSCRIPTION_ID = 0x0B


class Codec5(Codec):
    """MQTT 5.0."""

    version = "5"
    has_properties = True

    def connect(self, request: ConnectRequest) -> bytes:
        will = None
        if request.will_topic:
            will = mqtt5.Will(
                request.will_topic,
                payload=request.will_payload,
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain=True,
                will_delay_interval=request.will_delay_s,
            )
        # No Maximum Packet Size is announced: the broker would drop larger messages and tell nobody (3.1.2.11.4).
        # They are skipped here instead, so that each leaves a letter.
        return mqtt5.ConnectPacket(
            request.client_id,
            username=request.username,
            password=request.password,
            clean_start=not request.session_expiry_s,
            will=will,
            keep_alive=request.keep_alive_s,
            session_expiry_interval=request.session_expiry_s,
            # 65535 is MQTT's default, so mqtt5 leaves it out, and mosquitto then keeps to its own 20.
            receive_max=min(request.receive_maximum, MAX_RECEIVE - 1),
        ).write()

    def subscribe(self, packet_id: int, filters: Sequence[str], canary: str = "") -> bytes:
        wanted = [
            mqtt5.TopicFilter(
                pattern,
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain_as_published=False,  # the flag then means "old: replayed because you subscribed", as on 3.1.1
                retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
            )
            for pattern in filters
        ]
        if canary:
            wanted.append(mqtt5.TopicFilter(canary, max_qos=mqtt5.QoS.AT_MOST_ONCE))
        return mqtt5.SubscribePacket(packet_id, wanted).write()

    def disconnect(self, *, violation: bool = False) -> bytes:
        code = mqtt5.DisconnectReasonCode
        return mqtt5.DisconnectPacket(
            reason_code=code.PROTOCOL_ERROR if violation else code.NORMAL_DISCONNECTION
        ).write()

    def _puback_reason(self, packet: bytes, body_at: int) -> str:
        # Not left to mqtt5: it refuses codes that the specification does not list for PUBACK, but mosquitto 2.0 sends
        # 0x95 for a message over its size limit, and without the name that message would be sent again for ever.
        if len(packet) < body_at + 3:
            raise ProtocolViolation(f"reading PUBACK: {len(packet) - body_at} bytes, too few for a packet id")
        _check_properties(packet, body_at + 3)
        code = packet[body_at + 2]
        if code in _TAKEN:
            return ""
        if code < _FAILURE:
            raise ProtocolViolation(f"reading PUBACK: reason code {code:#04x} means nothing")
        return _PUBACK_REASONS.get(code, f"reason_{code:#04x}")

    def _publish_with_properties(self, packet: bytes, properties_at: int) -> bytes:
        publish = _read(packet, properties_at)
        assert isinstance(publish, mqtt5.PublishPacket)
        if publish.topic_alias is not None:
            raise ProtocolViolation("reading PUBLISH: a topic alias came, allowed are none (we announced 0)")
        return publish.payload

    def _control(self, packet: bytes, body_at: int) -> Control:
        if packet == _CONNACK_OF_311:
            return _refused_connect(UNSUPPORTED_VERSION)
        properties = _PROPERTIES_AFTER.get(packet[0] & 0xF0)
        if properties is None:
            raise ProtocolViolation(f"reading packet type {packet[0] >> 4}: it never comes from a broker to us")
        match _read(packet, body_at + properties):
            case mqtt5.ConnAckPacket() as answer:
                return _connack(answer)
            case mqtt5.SubAckPacket() as answer:
                return SubAck(answer.packet_id, tuple(map(_failure, answer.reason_codes)))
            case mqtt5.DisconnectPacket() as answer:
                return Farewell(answer.reason_code.name.lower())
            case _:
                return Pong()


def _connack(answer: mqtt5.ConnAckPacket) -> ConnAck:
    reason = _failure(answer.reason_code)
    if reason:
        return _refused_connect(reason)
    return ConnAck(
        reason="",
        session_present=answer.session_present,
        receive_maximum=answer.receive_max,
        max_packet_bytes=answer.max_packet_size or MAX_REMAINING_BYTES,
        keep_alive_s=answer.server_keep_alive,
        qos1_allowed=int(answer.max_qos) >= 1,
        retain_allowed=answer.retain_available,
    )


def _failure(code: IntEnum) -> str:
    """Name of a reason code, empty when it means success. The stubs say IntEnum, but only int() makes it comparable."""
    return "" if int(code) < _FAILURE else code.name.lower()


def _refused_connect(reason: str) -> ConnAck:
    return ConnAck(reason, False, MAX_RECEIVE, MAX_REMAINING_BYTES, None, True, True)


def _read(packet: bytes, properties_at: int) -> mqtt5.Packet:
    """Read one complete packet whose property block, if it has one, starts at `properties_at`."""
    _check_properties(packet, properties_at)
    try:
        parsed, _ = mqtt5.read(memoryview(packet))
    except (ValueError, IndexError) as error:
        raise ProtocolViolation(f"reading packet type {packet[0] >> 4}: {error}; got {packet[:40].hex(' ')}") from None
    return parsed


def _check_properties(packet: bytes, at: int) -> None:
    """Check what mqtt5 0.8.0 does not: text is UTF-8 (else it panics), and the last property ends where all do.

    Everything else that may be wrong with them is left to mqtt5.
    """
    length, at = decode_length(packet, at, len(packet))
    end = at + length
    while at < end <= len(packet):
        kind = packet[at]
        at += 1
        if kind == _SUBSCRIPTION_ID:
            _, at = decode_length(packet, at, len(packet))
        at += _FIXED_BYTES.get(kind, 0)
        for _ in range(_FIELDS.get(kind, 0)):
            start = at + 2
            at = start + int.from_bytes(packet[at:start], "big")
            if kind not in _BINARY:
                decode_text(packet[start:at], "a property")
    if length >= 0 and at != end:
        raise ProtocolViolation(f"reading packet type {packet[0] >> 4}: a property leaves the property block")
