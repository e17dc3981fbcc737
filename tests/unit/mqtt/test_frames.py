"""The shared way in, for both versions: boundaries, PUBLISH, PUBACK, packets over the limit."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ProtocolViolation
from edged.messages import Oversize
from edged.mqtt.frames import Pong
from edged.mqtt.topics import CACHE_LIMIT
from tests.unit.mqtt.packets import codec_for, cut, feed_all, length_of, puback, publish

both = pytest.mark.parametrize("version", ["5", "3.1.1"])
PINGRESP = b"\xd0\0"

message = st.tuples(
    st.integers(0, 65_535), st.text("ab/ü", min_size=1, max_size=20), st.binary(max_size=300), st.booleans()
)


@both
@given(
    items=st.lists(st.one_of(message, st.integers(1, 65_535), st.just(PINGRESP)), max_size=12),
    cuts=st.lists(st.integers(0, 5_000), max_size=8),
)
def test_however_the_stream_is_cut_the_same_comes_out(
    version: str, items: list[tuple[int, str, bytes, bool] | int | bytes], cuts: list[int]
) -> None:
    stream = b""
    for item in items:
        if isinstance(item, tuple):
            packet_id, topic, payload, retain = item
            stream += publish(version, topic, payload, packet_id=packet_id, retain=retain)
        else:
            stream += puback(item) if isinstance(item, int) else item
    messages, acked, controls = feed_all(codec_for(version), cut(stream, cuts))
    assert messages == [item for item in items if isinstance(item, tuple)]
    assert acked == [item for item in items if isinstance(item, int)]
    assert controls == [Pong() for item in items if isinstance(item, bytes)]


@both
def test_byte_by_byte_works_too(version: str) -> None:
    stream = publish(version, "a/b", b"x" * 20_000, packet_id=300) + puback(5) + PINGRESP
    messages, acked, controls = feed_all(codec_for(version), [stream[i : i + 1] for i in range(len(stream))])
    assert messages == [(300, "a/b", b"x" * 20_000, False)]
    assert (acked, controls) == ([5], [Pong()])


@both
def test_a_too_large_publish_may_come_byte_by_byte_too(version: str) -> None:
    stream = publish(version, "a/b", b"x" * 2_000, packet_id=300) + PINGRESP
    codec = codec_for(version, limit=1_000)
    messages, _, controls = feed_all(codec, [stream[i : i + 1] for i in range(len(stream))])
    assert messages == [(300, "a/b", b"x" * 1_024, False)]
    assert controls == [Pong()]


@both
@given(
    size=st.integers(200, 5_000),
    packet_id=st.integers(0, 65_535),
    cuts=st.lists(st.integers(0, 6_000), max_size=8),
    retain=st.booleans(),
)
def test_a_publish_over_the_limit_is_measured_but_not_kept(
    version: str, size: int, packet_id: int, cuts: list[int], retain: bool
) -> None:
    payload = bytes(i % 251 for i in range(size))
    stream = (
        publish(version, "small", b"before", packet_id=1)
        + publish(version, "large", payload, packet_id=packet_id, retain=retain)
        + publish(version, "small", b"after", packet_id=2)
        + puback(9)
    )
    codec = codec_for(version, limit=200)
    messages, acked, _ = feed_all(codec, cut(stream, cuts))
    assert [m[2] for m in (messages[0], messages[2])] == [b"before", b"after"]
    assert acked == [9]
    large = messages[1]
    assert large == (packet_id, "large", payload[:1024], retain)
    assert isinstance(large[2], Oversize)
    assert large[2].size_bytes == size
    assert large[2].sha256 == hashlib.sha256(payload).hexdigest()
    assert codec.take_oversize_count() == 1
    assert codec.take_oversize_count() == 0


def test_the_properties_of_a_too_large_publish_are_not_part_of_its_payload() -> None:
    codec = codec_for("5", limit=100)
    messages, _, _ = feed_all(codec, [publish("5", "t", b"x" * 500, packet_id=3, expiry_s=60)])
    assert messages == [(3, "t", b"x" * 500, False)]


@both
def test_a_packet_that_never_ends_needs_no_more_memory_than_its_head(version: str) -> None:
    codec = codec_for(version, limit=1_000)
    head = b"\x32" + length_of(200_000_000) + b"\x00\x01t\x00\x07" + (b"\0" if version == "5" else b"")
    messages: list[tuple[int, str, bytes, bool]] = []
    codec.feed(head, messages, [])
    for _ in range(100):
        codec.feed(b"z" * 65_536, messages, [])
    assert messages == []
    assert not codec._partial


@both
@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"\x34\x05\x00\x01t\x00\x01", "QoS 2"),
        (b"\x36\x05\x00\x01t\x00\x01", "QoS 3"),
        (b"\x30\x02\x00\x00", "too few"),
        (b"\x30\x00", "too few"),
        (b"\x30\x05\x00\x00abc", "is empty"),
        (b"\x30\x05\x00\x09abc", "after the packet"),
        (b"\x32\x04\x00\x01t\x00", "after the packet"),
        (b"\x32\x07\x00\x01t\x00\x00\x00x", "packet id 0"),
        (b"\x30\x06\x00\x03a\x00b\x00", "U+0000"),
        (b"\x30\x06\x00\x03a/+\x00", "wildcard"),
        (b"\x30\x06\x00\x03\xed\xa0\x80\x00", "not UTF-8"),
        (b"\x30\xff\xff\xff\xff\x7f", "length"),
        (b"\x30\x83\x00\x00\x01t", "length"),
        # over the limit of 100,000 bytes
        (b"\x34" + length_of(200_000) + b"\x00\x01t\x00\x01\x00\x00", "200000 bytes"),
        (b"\x20" + length_of(200_000), "200000 bytes"),
        (b"\x32" + length_of(200_000) + b"\x00\x01t" + b"\0" * 9, "packet id 0"),
        (b"\x30" + length_of(200_000) + b"\x00\x01+\x00\x00\x00\x00", "wildcard"),
    ],
)
def test_what_mqtt_does_not_allow_is_a_violation_and_what_came_before_is_kept(
    version: str, packet: bytes, why: str
) -> None:
    messages: list[tuple[int, str, bytes, bool]] = []
    acked: list[int] = []
    with pytest.raises(ProtocolViolation, match=why.replace("+", r"\+")):
        codec_for(version).feed(puback(3) + publish(version, "t", b"x", packet_id=1) + packet, messages, acked)
    assert messages == [(1, "t", b"x", False)]
    assert acked == [3]


@pytest.mark.parametrize("properties", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xc0\x9a\x0c"])
def test_properties_that_leave_a_too_large_publish_are_a_violation(properties: bytes) -> None:
    packet = b"\x30" + length_of(200_000) + b"\x00\x01t" + properties + b"\0" * 10
    with pytest.raises(ProtocolViolation):
        codec_for("5").feed(packet, [], [])


def test_a_too_large_publish_without_room_for_its_packet_id_is_a_violation() -> None:
    codec = codec_for("3.1.1", limit=4)
    with pytest.raises(ProtocolViolation):
        codec.feed(b"\x32\x05\x00\x03abc\x00\x00", [], [])


@both
def test_invented_topics_do_not_grow_the_codec(version: str) -> None:
    codec = codec_for(version)
    stream = b"".join(publish(version, f"t/{i}", b"") for i in range(CACHE_LIMIT + 1))
    messages, _, _ = feed_all(codec, [stream])
    assert len(messages) == CACHE_LIMIT + 1
    assert len(codec._topics) == 1
