"""MQTT 3.1.1 packets, compared with the bytes that the specification describes and with paho's."""

from __future__ import annotations

import pytest

from edged.errors import BugError, ProtocolViolation
from edged.mqtt.frames import ConnAck, ConnectRequest, Control, Pong, SubAck
from tests.unit.mqtt.packets import codec_for, feed_all


def said(data: bytes) -> list[Control]:
    return feed_all(codec_for("3.1.1"), [data])[2]


@pytest.mark.parametrize(
    ("request_", "packet"),
    [
        (ConnectRequest("c", 15, 60, 1), b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x0f\x00\x01c"),
        (ConnectRequest("c", 15, 0, 1), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0f\x00\x01c"),
        (
            ConnectRequest("c", 15, 60, 1, username="u", password=b"\0p"),
            b"\x10\x14\x00\x04MQTT\x04\xc0\x00\x0f\x00\x01c\x00\x01u\x00\x02\0p",
        ),
        (
            ConnectRequest("c", 15, 60, 1, will_topic="w", will_payload=b"off"),
            b"\x10\x15\x00\x04MQTT\x04\x2c\x00\x0f\x00\x01c\x00\x01w\x00\x03off",
        ),
    ],
)
def test_connect_has_the_bytes_of_the_specification(request_: ConnectRequest, packet: bytes) -> None:
    assert codec_for("3.1.1").connect(request_) == packet


def test_subscribe_asks_for_qos_1_and_for_the_canary_at_0() -> None:
    assert (
        codec_for("3.1.1").subscribe(7, ["a/+", "b"], "c")
        == b"\x82\x10\x00\x07\x00\x03a/+\x01\x00\x01b\x01\x00\x01c\x00"
    )


def test_without_a_canary_only_the_filters_are_asked_for() -> None:
    assert codec_for("3.1.1").subscribe(7, ["a"]) == b"\x82\x06\x00\x07\x00\x01a\x01"


def test_disconnect_is_left_out_after_a_violation_so_that_the_will_is_sent() -> None:
    assert codec_for("3.1.1").disconnect() == b"\xe0\x00"
    assert codec_for("3.1.1").disconnect(violation=True) == b""


@pytest.mark.parametrize(
    ("data", "reason", "present"),
    [
        (b"\x20\x02\x00\x00", "", False),
        (b"\x20\x02\x01\x00", "", True),
        (b"\x20\x02\x00\x01", "unsupported_protocol_version", False),
        (b"\x20\x02\x00\x02", "client_id_not_valid", False),
        (b"\x20\x02\x00\x03", "server_unavailable", False),
        (b"\x20\x02\x00\x04", "bad_user_name_or_password", False),
        (b"\x20\x02\x00\x05", "not_authorized", False),
    ],
)
def test_connack_is_understood(data: bytes, reason: str, present: bool) -> None:
    assert said(data) == [ConnAck(reason, present, 65_535, 268_435_455, None, True, True)]


def test_suback_and_pingresp_are_understood() -> None:
    assert said(b"\x90\x05\x00\x07\x01\x80\x02") == [SubAck(7, ("", "failure", ""))]
    assert said(b"\xd0\x00") == [Pong()]


def test_a_suback_for_many_filters_has_a_longer_length() -> None:
    assert said(b"\x90\xca\x01\x00\x07" + b"\x01" * 200) == [SubAck(7, ("",) * 200)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x20\x02\x02\x00",
        b"\x20\x02\x00\x06",
        b"\x20\x02\x01\x05",
        b"\x20\x03\x00\x00\x00",
        b"\x20\x00",
        b"\x21\x02\x00\x00",
        b"\x90\x02\x00\x07",
        b"\x90\x03\x00\x07\x03",
        b"\x41\x02\x00\x07",
        b"\x62\x02\x00\x07",
        b"\xd0\x01\x00",
        b"\xe0\x00",
        b"\x00\x00",
        b"\xf0\x00",
        b"\x10\x00",
    ],
)
def test_what_no_broker_may_send_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="not what MQTT"):
        said(data)


def test_an_acknowledgement_has_two_bytes() -> None:
    for data in (b"\x40\x03\x00\x07\x00", b"\x40\x01\x00", b"\x40\x00"):
        with pytest.raises(ProtocolViolation, match="has two"):
            said(data)


def test_properties_are_nobodys_business_here() -> None:
    with pytest.raises(BugError):
        codec_for("3.1.1")._publish_with_properties(b"", 0)
