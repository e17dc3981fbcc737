"""The window and the packing of publishes, with mqtt5 as the reader that must understand them."""

from __future__ import annotations

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.messages import Outbound
from edged.mqtt.outbound import OutboundWindow, pack_acks


def window(
    *, limit: int = 10, max_packet_bytes: int = 1_000_000, version: int = 5, retain_allowed: bool = True
) -> OutboundWindow:
    return OutboundWindow(
        limit=limit, max_packet_bytes=max_packet_bytes, with_properties=version == 5, retain_allowed=retain_allowed
    )


def packed(target: OutboundWindow, *publishes: Outbound) -> tuple[int, bytes, list[tuple[int, str]]]:
    parts: list[bytes] = []
    refused: list[tuple[int, str]] = []
    consumed = target.pack(publishes, parts, refused)
    return consumed, b"".join(parts), refused


def read_all(data: bytes) -> list[mqtt5.Packet]:
    packets = []
    while data:
        packet, used = mqtt5.read(memoryview(data))
        packets.append(packet)
        data = data[used:]
    return packets


@given(
    st.lists(
        st.tuples(
            st.text("abcäöü/", min_size=1, max_size=200),
            st.binary(max_size=300),
            st.booleans(),
            st.integers(0, 0xFFFF_FFFF),
            st.booleans(),
        ),
        max_size=10,
    )
)
def test_mqtt5_reads_what_was_packed(messages: list[tuple[str, bytes, bool, int, bool]]) -> None:
    target = window()
    publishes = [
        Outbound(topic.encode(), payload, token, retain, expiry_s, qos0)
        for token, (topic, payload, retain, expiry_s, qos0) in enumerate(messages, 1)
    ]
    consumed, data, refused = packed(target, *publishes)
    assert (consumed, refused) == (len(messages), [])
    read = read_all(data)
    assert len(read) == len(messages)
    for packet, (topic, payload, retain, expiry_s, qos0) in zip(read, messages, strict=True):
        assert isinstance(packet, mqtt5.PublishPacket)
        assert (packet.topic, packet.payload, packet.retain, packet.duplicate) == (topic, payload, retain, False)
        assert packet.message_expiry_interval == (expiry_s or None)
        assert (packet.packet_id is None) is qos0
        assert qos0 or packet.packet_id in target.inflight


def test_a_3_1_1_publish_is_the_same_without_properties() -> None:
    _, data, _ = packed(window(version=4), Outbound(b"a/b", b"hi", 1, True, 60))
    assert data == b"\x33\x09\x00\x03a/b\x00\x01hi"


def test_the_window_stops_at_its_limit_and_opens_with_each_acknowledgement() -> None:
    target = window(limit=2)
    publishes = [Outbound(b"t", b"", token) for token in (11, 12, 13)]
    assert packed(target, *publishes)[0] == 2
    assert target.free == 0
    assert target.settle([1]) == [11]
    assert target.free == 1
    assert packed(target, publishes[2])[0] == 1
    assert target.inflight == {2: 12, 3: 13}


def test_qos_0_needs_no_slot_but_keeps_its_place_in_the_line() -> None:
    target = window(limit=1)
    line = [
        Outbound(b"t", b"", 1),
        Outbound(b"t", b"", 0, qos0=True),
        Outbound(b"t", b"", 2),
        Outbound(b"t", b"", 0, qos0=True),
    ]
    assert packed(target, *line)[0] == 2


def test_packet_ids_wrap_around_and_never_meet_one_in_flight() -> None:
    target = window(limit=3)
    packed(target, Outbound(b"t", b"", 1))
    for _ in range(65_534):
        assert packed(target, Outbound(b"t", b"", 2))[0] == 1
        target.settle([key for key, token in target.inflight.items() if token == 2])
    assert packed(target, Outbound(b"t", b"", 3), Outbound(b"t", b"", 4))[0] == 2
    assert target.inflight == {1: 1, 2: 3, 3: 4}
    assert target.next_id() == 4


def test_every_packet_id_can_be_in_flight_at_once() -> None:
    target = window(limit=65_535)
    line = [Outbound(b"t", b"", 1)] * 65_536
    assert packed(target, *line)[0] == 65_535
    assert len(target.inflight) == 65_535
    target.settle([77])
    assert packed(target, line[0])[0] == 1
    assert target.inflight[77] == 1


def test_a_fresh_id_skips_those_in_flight() -> None:
    target = window(limit=65_535)
    target.inflight.update({1: 1, 2: 2})
    assert target.next_id() == 3


def test_unknown_acknowledgements_and_unreported_tokens_settle_to_nothing() -> None:
    target = window()
    packed(target, Outbound(b"t", b"", 0), Outbound(b"t", b"", 7))
    assert target.settle([99, 1, 2, 2]) == [7]
    assert target.free == 10


@pytest.mark.parametrize(
    ("publish", "reason"),
    [
        (Outbound(b"t", b"x" * 100, 5), "packet_too_large"),
        (Outbound(b"t", b"x" * 100, 5, qos0=True), "packet_too_large"),
        (Outbound(b"a/+", b"", 5), "topic_name_invalid"),
        (Outbound(b"", b"", 5), "topic_name_invalid"),
        (Outbound(b"\xff", b"", 5), "topic_name_invalid"),
        (Outbound(b"t" * 65_536, b"", 5), "topic_name_invalid"),
        (Outbound(b"t", b"", 5, True), "retain_not_supported"),
    ],
)
def test_what_can_never_be_sent_is_consumed_and_refused_with_its_reason(publish: Outbound, reason: str) -> None:
    target = window(max_packet_bytes=100, retain_allowed=False)
    consumed, data, refused = packed(target, publish, Outbound(b"t", b"ok", 6))
    assert consumed == 2
    assert refused == [(5, reason)]
    assert data.endswith(b"ok")
    assert target.inflight == {1: 6}


def test_a_packet_of_exactly_the_largest_size_is_sent() -> None:
    for version in (4, 5):
        overhead = len(packed(window(version=version), Outbound(b"t", b"", 1))[1])
        target = window(version=version, max_packet_bytes=100)
        fits = 100 - overhead - 3  # the fixed header is taken as five bytes, it has two here
        assert packed(target, Outbound(b"t", b"x" * fits, 1))[2] == []
        assert packed(target, Outbound(b"t", b"x" * (fits + 1), 1))[2] == [(1, "packet_too_large")]


def test_pieces_made_ready_do_not_grow_without_bound() -> None:
    target = window(limit=65_535)
    for number in range(10_001):
        packed(target, Outbound(b"t/%d" % number, b"", 0, qos0=True))
    assert len(target._prefixes) < 10_000


@given(st.lists(st.integers(1, 65_535), min_size=1, max_size=300))
def test_acknowledgements_keep_their_order(packet_ids: list[int]) -> None:
    read = read_all(pack_acks(packet_ids))
    assert [packet.packet_id for packet in read if isinstance(packet, mqtt5.PubAckPacket)] == packet_ids
