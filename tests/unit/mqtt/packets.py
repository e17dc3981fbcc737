"""Packets as a broker sends them, made by independent means where there are any, and shortcuts to read them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import mqtt5

from edged.mqtt.codec5 import Codec5
from edged.mqtt.codec311 import Codec311
from edged.mqtt.frames import Codec, Control, Message

LIMIT = 100_000


def codec_for(version: str, limit: int = LIMIT) -> Codec:
    return Codec5(limit) if version == "5" else Codec311(limit)


def publish(
    version: str, topic: str, payload: bytes, *, packet_id: int = 0, retain: bool = False, expiry_s: int | None = None
) -> bytes:
    if version == "5":
        return mqtt5.PublishPacket(
            topic,
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE,
            retain=retain,
            packet_id=packet_id or None,
            message_expiry_interval=expiry_s,
        ).write()
    raw = topic.encode()
    body = len(raw).to_bytes(2, "big") + raw + (packet_id.to_bytes(2, "big") if packet_id else b"") + payload
    return bytes((0x30 | (2 if packet_id else 0) | retain,)) + length_of(len(body)) + body


def length_of(value: int) -> bytes:
    out = b""
    while True:
        value, low = divmod(value, 128)
        out += bytes((low | (128 if value else 0),))
        if not value:
            return out


def puback(packet_id: int) -> bytes:
    return mqtt5.PubAckPacket(packet_id).write()


def feed_all(codec: Codec, pieces: Iterable[bytes]) -> tuple[list[Message], list[int], list[Control]]:
    messages: list[Message] = []
    acked: list[int] = []
    controls: list[Control] = []
    for piece in pieces:
        controls += codec.feed(piece, messages, acked)
    return messages, acked, controls


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` in pieces that end at the given places."""
    places = [0, *sorted({place % (len(data) + 1) for place in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(places)]
