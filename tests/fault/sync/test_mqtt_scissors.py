"""The cut falls where the other tests believe it does, however the bytes come in."""

from __future__ import annotations

import pytest

from tests.doubles.mqtt_scissors import Moment, MqttScissors, Point

LINE = b'{"v":"edged-sync/1"}\n'
BODY = bytes(range(256)) * 2


def packet(kind: int, rest: bytes) -> bytes:
    length = len(rest)
    assert 128 <= length < 16_384 or length < 128
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([kind]) + size + rest


def publish(topic: bytes, payload: bytes) -> bytes:
    return packet(0x32, len(topic).to_bytes(2, "big") + topic + b"\x00\x01" + payload)


CONNECT = packet(0x10, bytes(20))
HELLO = publish(b"r/sync/hello", b"{}")
BATCH = publish(b"r/sync/result/batch", LINE + BODY)
ACK = packet(0x40, b"\x00\x01")
STREAM = CONNECT + HELLO + ACK + BATCH + ACK + BATCH + ACK


def passed(scissors: MqttScissors, size: int) -> int | None:
    """Bytes that pass before the cut when STREAM comes in pieces of this size."""
    for at in range(0, len(STREAM), size):
        whole = scissors.snip(1, "up", STREAM[at : at + size])
        if whole is not None:
            return at + whole
    return None


FIRST = len(CONNECT + HELLO + ACK)
WHERE: dict[Point, int] = {
    "before": FIRST,
    "type": FIRST + 1,
    "length": FIRST + 3,
    "last": FIRST + len(BATCH) - 1,
    "after": FIRST + len(BATCH),
}


@pytest.mark.parametrize("point", WHERE)
def test_the_cut_falls_on_the_exact_byte_when_packets_come_whole(point: Point) -> None:
    scissors = MqttScissors(Moment("up", "PUBLISH", point, "/batch"))
    assert passed(scissors, len(STREAM)) == WHERE[point]


@pytest.mark.parametrize("size", [64, 100, 1000])
def test_a_cut_late_in_a_packet_is_exact_however_the_bytes_come(size: int) -> None:
    for point in ("last", "after"):
        assert passed(MqttScissors(Moment("up", "PUBLISH", point, "/batch")), size) == WHERE[point]
    second = MqttScissors(Moment("up", "PUBLISH", "after", "/batch", nth=2))
    assert passed(second, size) == len(STREAM) - len(ACK)
    third_ack = MqttScissors(Moment("up", "PUBACK", "after", nth=3))
    assert passed(third_ack, size) == len(STREAM)


def test_the_cut_falls_into_the_topic_the_line_and_the_body() -> None:
    def at(point: Point) -> bytes:
        size = passed(MqttScissors(Moment("up", "PUBLISH", point, "/batch")), len(STREAM))
        assert size is not None
        return STREAM[FIRST:size]

    assert at("topic")[5:].startswith(b"r/sync")
    assert LINE[:5] in at("line")
    assert b"\n" not in at("line")[20:]
    assert at("body").endswith(LINE + BODY[: len(at("body")) - len(BATCH) + len(BODY)])


def test_what_is_not_asked_for_is_not_cut() -> None:
    assert passed(MqttScissors(Moment("up", "PUBLISH", "before", "/other")), 100) is None
    assert passed(MqttScissors(Moment("down", "PUBLISH", "before", "/batch")), 100) is None
    assert passed(MqttScissors(Moment("up", "SUBSCRIBE", "before")), 100) is None
