"""MQTT 5 packets: ours are read back by mqtt5, the broker's are understood or refused."""

from __future__ import annotations

import mqtt5
import pytest

from edged.errors import ProtocolViolation
from edged.mqtt.frames import ConnAck, ConnectRequest, Control, Farewell, Pong, Refusal, SubAck
from tests.unit.mqtt.packets import codec_for, feed_all, publish

REQUEST = ConnectRequest(
    "edged-1", keep_alive_s=15, session_expiry_s=604_800, receive_maximum=500, username="u", password=b"p"
)


def said(data: bytes) -> list[Control]:
    return feed_all(codec_for("5"), [data])[2]


def test_connect_keeps_the_session_and_announces_our_receive_maximum() -> None:
    request = ConnectRequest(
        "edged-1", 15, 604_800, 500, "u", b"p", will_topic="w", will_payload=b"off", will_delay_s=5
    )
    packet, _ = mqtt5.read(memoryview(codec_for("5").connect(request)))
    assert isinstance(packet, mqtt5.ConnectPacket)
    assert (packet.client_id, packet.username, packet.password) == ("edged-1", "u", b"p")
    assert (packet.clean_start, packet.session_expiry_interval, packet.keep_alive) == (False, 604_800, 15)
    assert (packet.receive_max, packet.topic_alias_max, packet.max_packet_size) == (500, 0, None)
    will = packet.will
    assert will is not None
    assert (will.topic, will.payload, int(will.qos), will.retain) == ("w", b"off", 1, True)
    assert will.will_delay_interval == 5


def test_the_largest_receive_maximum_is_really_sent() -> None:
    packet, _ = mqtt5.read(memoryview(codec_for("5").connect(ConnectRequest("c", 15, 60, 65_535))))
    assert isinstance(packet, mqtt5.ConnectPacket)
    assert packet.receive_max == 65_534


def test_without_session_expiry_the_start_is_clean_and_without_topic_there_is_no_will() -> None:
    packet, _ = mqtt5.read(memoryview(codec_for("5").connect(ConnectRequest("c", 15, 0, 500))))
    assert isinstance(packet, mqtt5.ConnectPacket)
    assert packet.clean_start
    assert packet.will is None


def test_subscriptions_ask_for_qos_1_and_for_old_retained_messages_only_once() -> None:
    packet, _ = mqtt5.read(memoryview(codec_for("5").subscribe(7, ["a/+", "b"], "canary")))
    assert isinstance(packet, mqtt5.SubscribePacket)
    assert packet.packet_id == 7
    assert [(f.pattern, int(f.max_qos), int(f.retain_handling), f.retain_as_published) for f in packet.topic_filters][
        :2
    ] == [("a/+", 1, 1, False), ("b", 1, 1, False)]
    assert (packet.topic_filters[2].pattern, int(packet.topic_filters[2].max_qos)) == ("canary", 0)


@pytest.mark.parametrize(("violation", "code"), [(False, 0), (True, 130)])
def test_disconnect_says_why(violation: bool, code: int) -> None:
    packet, _ = mqtt5.read(memoryview(codec_for("5").disconnect(violation=violation)))
    assert isinstance(packet, mqtt5.DisconnectPacket)
    assert int(packet.reason_code) == code


def test_connack_tells_what_the_broker_grants() -> None:
    data = mqtt5.ConnAckPacket(
        session_present=True,
        receive_max=20,
        max_packet_size=1_000_000,
        server_keep_alive=60,
        max_qos=mqtt5.QoS.AT_MOST_ONCE,
        retain_available=False,
    ).write()
    assert said(data) == [ConnAck("", True, 20, 1_000_000, 60, qos1_allowed=False, retain_allowed=False)]
    assert said(b"\x20\x03\0\0\0") == [ConnAck("", False, 65_535, 268_435_455, None, True, True)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x20\x03\x00\x87\x00", "not_authorized"),
        (b"\x20\x03\x00\x84\x00", "unsupported_protocol_version"),
        (b"\x20\x02\x00\x01", "unsupported_protocol_version"),  # the answer of a 3.1.1 broker
    ],
)
def test_a_refused_connect_names_its_reason(data: bytes, reason: str) -> None:
    (answer,) = said(data)
    assert isinstance(answer, ConnAck)
    assert answer.reason == reason


def test_the_rest_of_what_a_broker_says_is_understood() -> None:
    assert said(b"\x90\x06\x00\x07\x00\x01\x87\x02") == [SubAck(7, ("", "not_authorized", ""))]
    assert said(b"\x40\x03\x00\x05\x87") == [Refusal(5, "not_authorized")]
    assert said(b"\x40\x03\x00\x05\x95") == [Refusal(5, "packet_too_large")]  # mosquitto 2.0, beyond the specification
    assert said(b"\x40\x04\x00\x05\xaa\x00") == [Refusal(5, "reason_0xaa")]
    assert said(b"\xd0\x00") == [Pong()]
    assert said(b"\xe0\x01\x8e") == [Farewell("session_taken_over")]
    assert said(b"\xe0\x00") == [Farewell("normal_disconnection")]


@pytest.mark.parametrize("tail", [b"\x10", b"\x10\x00", b"\x00", b"\x00\x00"])
def test_an_acknowledgement_without_subscribers_is_an_acknowledgement(tail: bytes) -> None:
    packet = bytes((0x40, 2 + len(tail))) + b"\x00\x05" + tail
    messages, acked, controls = feed_all(codec_for("5"), [packet + b"\x40\x02\x00\x06"])
    assert (messages, acked, controls) == ([], [5, 6], [])


def test_an_acknowledgement_with_words_is_an_acknowledgement_too() -> None:
    data = mqtt5.PubAckPacket(5, reason_str="thank you").write()
    assert feed_all(codec_for("5"), [data]) == ([], [5], [])


def test_a_publish_with_properties_arrives_like_any_other() -> None:
    data = mqtt5.PublishPacket(
        "a/b",
        b"x",
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=9,
        content_type="application/json",
        user_properties=[("k", "v")],
        correlation_data=b"\xff",
        subscription_ids=[3, 300],
        message_expiry_interval=5,
    ).write()
    assert feed_all(codec_for("5"), [data])[0] == [(9, "a/b", b"x", False)]


@pytest.mark.parametrize(
    "data",
    [
        mqtt5.PublishPacket("t", b"x", topic_alias=1).write(),  # we announced that there are none
        mqtt5.ConnectPacket("c").write(),
        mqtt5.PubRelPacket(1).write(),
        mqtt5.AuthPacket().write(),
        b"\x30\x08\x00\x01t\x04\x03\x00\x01\xff",  # a property that is not UTF-8: mqtt5 panics
        b"\x20\x09\x00\x87\x06\x1f\x00\x03no\xff",
        b"\x40\x0a\x00\x01\x87\x06\x26\x00\x01k\x00\x01\xff",
        b"\x90\x07\x00\x01\x04\x1f\x00\x01\xff",
        b"\xe0\x06\x00\x04\x1c\x00\x01\xff",
        b"\x30\x05\x00\x01t\x07\x01",
        b"\x20\x02\x00\x02",
        b"\x40\x04\x00\x01\x00\x05",
        b"\x40\x03\x00\x01\x42",
        b"\x40\x01\x00",
        b"\x41\x02\x00\x01",
        b"\xd0\x01\x00",
        b"\x00\x00",
        b"\xf0\x00",
    ],
)
def test_what_no_broker_may_send_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="reading"):
        said(data)


def test_a_mistake_of_the_caller_is_not_the_brokers_fault() -> None:
    with pytest.raises(TypeError):
        codec_for("5").feed("text", [], [])  # type: ignore[arg-type]


def test_the_topic_of_a_publish_with_properties_is_checked_too() -> None:
    with pytest.raises(ProtocolViolation, match="wildcard"):
        feed_all(codec_for("5"), [publish("5", "a/b", b"", expiry_s=3).replace(b"a/b", b"a/#")])
