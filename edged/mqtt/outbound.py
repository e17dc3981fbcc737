"""The way out: which publishes may go now, and their bytes. Pure.

The window (free slots, packet ids, id → token) and the packing sit together because every publish needs both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import pack
from typing import Generic, TypeVar

from edged.messages import Outbound
from edged.mqtt.frames import MAX_RECEIVE
from edged.mqtt.topics import CACHE_LIMIT, topic_problem
from edged.mqtt.wire import MAX_REMAINING_BYTES, blob, encode_length

TOO_LARGE = "packet_too_large"
TOPIC_INVALID = "topic_name_invalid"
RETAIN_UNSUPPORTED = "retain_not_supported"
_UNSENDABLE = b""  # stands in the prefix cache for a topic that nobody may publish to

Key = TypeVar("Key")


class OutboundWindow:
    """Publishes of one connection that the broker has not acknowledged, and the packer for new ones.

    Args:
        limit: how many QoS 1 publishes may be unacknowledged (the broker's receive maximum and our own bound).
        max_packet_bytes: the largest packet the broker takes, fixed header included.
        with_properties: MQTT 5: carry the message expiry.
        retain_allowed: False when the broker refuses retained messages.
    """

    def __init__(self, *, limit: int, max_packet_bytes: int, with_properties: bool, retain_allowed: bool) -> None:
        self.limit = limit
        self.inflight: dict[int, int] = {}  # packet id → token, oldest first
        self._last_id = 0
        self._retain_allowed = retain_allowed
        # The fixed header takes at most five bytes; whether it took fewer is not worth a branch per packet.
        self._max_remaining = min(max_packet_bytes - 5, MAX_REMAINING_BYTES)
        self._prefixes: _Ready[bytes] = _Ready(_topic_prefix)
        self._heads: _Ready[int] = _Ready(_fixed_header)
        self._expiries: _Ready[int] = _Ready(_expiry_property if with_properties else _no_property)

    @property
    def free(self) -> int:
        return self.limit - len(self.inflight)

    def next_id(self) -> int:
        """A packet id that is not in flight; never 0."""
        packet_id = self._last_id % MAX_RECEIVE + 1
        while packet_id in self.inflight:
            packet_id = packet_id % MAX_RECEIVE + 1
        self._last_id = packet_id
        return packet_id

    def pack(self, publishes: Sequence[Outbound], parts: list[bytes], refused: list[tuple[int, str]]) -> int:
        """Append the bytes of as many publishes as fit to `parts`; return how many leading ones were consumed.

        Consumed are sent ones and those that can never be sent; the latter go to `refused` as (token, reason).
        """
        inflight, prefixes, heads, expiries = self.inflight, self._prefixes, self._heads, self._expiries
        limit, largest, packet_id = self.limit, self._max_remaining, self._last_id
        consumed = 0
        for topic, payload, token, retain, expiry_s, qos0 in publishes:
            prefix = prefixes[topic]
            expiry = expiries[expiry_s]
            remaining = len(prefix) + len(payload) + len(expiry) + (0 if qos0 else 2)
            if remaining > largest or not prefix or (retain and not self._retain_allowed):
                refused.append((token, _refusal(prefix, too_large=remaining > largest)))
            elif qos0:
                parts += (heads[remaining << 4 | (1 if retain else 0)], prefix, expiry, payload)
            elif len(inflight) < limit:
                packet_id = packet_id % MAX_RECEIVE + 1
                while packet_id in inflight:
                    packet_id = packet_id % MAX_RECEIVE + 1
                inflight[packet_id] = token
                parts += (
                    heads[remaining << 4 | (3 if retain else 2)],
                    prefix,
                    packet_id.to_bytes(2, "big"),
                    expiry,
                    payload,
                )
            else:
                break
            consumed += 1
        self._last_id = packet_id
        return consumed

    def settle(self, packet_ids: Sequence[int]) -> list[int]:
        """Forget acknowledged publishes; return their tokens, without those that asked for no report (0)."""
        pop = self.inflight.pop
        return [token for packet_id in packet_ids if (token := pop(packet_id, 0))]


def pack_acks(packet_ids: Sequence[int]) -> bytes:
    """PUBACKs without reason code, in the given order, in one piece."""
    words = [0x4002] * (2 * len(packet_ids))
    words[1::2] = packet_ids
    return pack(f">{len(words)}H", *words)


class _Ready(dict[Key, bytes], Generic[Key]):
    """Pieces of packets made once. Emptied when full: keys come from outside and must not grow the daemon."""

    def __init__(self, make: Callable[[Key], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> bytes:
        if len(self) >= CACHE_LIMIT:
            self.clear()
        piece = self[key] = self._make(key)
        return piece


def _topic_prefix(topic: bytes) -> bytes:
    try:
        problem = topic_problem(topic.decode())
    except UnicodeDecodeError:
        return _UNSENDABLE
    return _UNSENDABLE if problem else blob(topic)


def _fixed_header(key: int) -> bytes:
    """`key`: remaining length << 4 | flags."""
    return bytes((0x30 | key & 15,)) + encode_length(key >> 4)


def _expiry_property(expiry_s: int) -> bytes:
    """The property block of a PUBLISH (MQTT 5, 3.3.2.3); 0 means that the message never expires."""
    return b"\x05\x02" + expiry_s.to_bytes(4, "big") if expiry_s else b"\0"


def _no_property(_: int) -> bytes:
    return b""


def _refusal(prefix: bytes, *, too_large: bool) -> str:
    if not prefix:
        return TOPIC_INVALID
    return TOO_LARGE if too_large else RETAIN_UNSUPPORTED
