"""Whatever a broker sends, a codec answers with messages or with ProtocolViolation; mqtt5 is the oracle for MQTT 5."""

from __future__ import annotations

import contextlib

import mqtt5
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.errors import ProtocolViolation
from edged.mqtt.frames import ConnAck, Farewell, Pong, Refusal, SubAck
from tests.unit.mqtt.packets import codec_for, feed_all, length_of, publish

TYPES = st.sampled_from(
    [0x20, 0x30, 0x31, 0x32, 0x33, 0x38, 0x3A, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xE0, 0xF0]
)

NAMES = {ConnAck: "ConnAckPacket", SubAck: "SubAckPacket", Pong: "PingRespPacket", Farewell: "DisconnectPacket"}


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A packet with a right length and a body that looks like one often enough to get past the first check."""
    head = draw(st.one_of(TYPES, st.integers(0, 255)))
    topic = draw(st.one_of(st.binary(max_size=4), st.just(b"t"), st.text(max_size=3).map(str.encode)))
    body = draw(
        st.one_of(
            st.binary(max_size=40),
            st.binary(max_size=30).map(lambda tail: len(topic).to_bytes(2, "big") + topic + tail),
            st.lists(st.sampled_from([0, 1, 2, 5, 0x10, 0x1F, 0x21, 0x26, 0x80, 0x87]), max_size=8).map(bytes),
        )
    )
    return bytes((head,)) + length_of(len(body)) + body


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@given(
    stream=st.one_of(st.binary(max_size=200), st.lists(packets(), max_size=4).map(b"".join)), limit=st.integers(4, 60)
)
def test_no_bytes_raise_anything_but_a_violation(version: str, stream: bytes, limit: int) -> None:
    with contextlib.suppress(ProtocolViolation):
        feed_all(codec_for(version, limit), [stream[:7], stream[7:]])


@given(packet=packets())
@example(packet=b"\x32\x06\x00\x01t\x00\x01\x00")
@example(packet=b"\x40\x03\x00\x01\x10")
@example(packet=b"\x20\x02\x00\x00")
def test_what_we_accept_means_to_us_what_it_means_to_mqtt5(packet: bytes) -> None:
    try:
        messages, acked, controls = feed_all(codec_for("5"), [packet])
    except ProtocolViolation:
        return  # mqtt5 may be more tolerant, and panics on text that is not UTF-8: it is not asked
    assert len(messages) + len(acked) + len(controls) == 1
    if controls and isinstance(controls[0], Refusal):
        return  # we understand more reasons than mqtt5
    oracle, used = mqtt5.read(memoryview(packet))
    assert used == len(packet)
    if isinstance(oracle, mqtt5.PublishPacket):
        assert messages == [(oracle.packet_id or 0, oracle.topic, oracle.payload, oracle.retain)]
    elif acked:
        assert isinstance(oracle, mqtt5.PubAckPacket)
        assert acked == [oracle.packet_id]
    else:
        assert type(oracle).__name__ == NAMES[type(controls[0])]


@given(
    topic=st.text(min_size=1, max_size=20),
    payload=st.binary(max_size=500),
    packet_id=st.integers(0, 65_535),
    retain=st.booleans(),
)
def test_both_versions_hand_over_the_same_message(topic: str, payload: bytes, packet_id: int, retain: bool) -> None:
    seen = []
    for version in ("5", "3.1.1"):
        try:
            data = publish(version, topic, payload, packet_id=packet_id, retain=retain)
            seen.append(feed_all(codec_for(version), [data])[0])
        except (ProtocolViolation, ValueError, UnicodeEncodeError):
            seen.append([])
    assert seen[0] == seen[1]
