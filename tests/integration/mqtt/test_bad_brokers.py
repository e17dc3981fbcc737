"""Brokers that break the rules, byte by byte: the link never crashes, never spins, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import mqtt5
import pytest

from edged.messages import Outbound
from edged.mqtt.settings import TlsSettings
from tests.doubles.broker import ScriptedBroker, Visitor
from tests.integration.mqtt.conftest import FAST, MakeLink, outbound

Script = Callable[[Visitor], Awaitable[None]]
CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_311 = b"\x20\x02\x00\x00"


async def good(visitor: Visitor) -> None:
    """Accepts, grants, answers pings and publishes."""
    await visitor.accept()
    while True:
        packet = await visitor.packet()
        if packet[0] == 0xC0:
            await visitor.send(b"\xd0\0")
        elif packet[0] & 0xF2 == 0x32:
            publish, _ = mqtt5.read(memoryview(packet))
            assert isinstance(publish, mqtt5.PublishPacket)
            await visitor.send(mqtt5.PubAckPacket(publish.packet_id or 0).write())


def after_connect(data: bytes) -> Script:
    async def script(visitor: Visitor) -> None:
        await visitor.packet()
        await visitor.send(data)
        await visitor.packet()  # until the link leaves

    return script


def after_up(data: bytes) -> Script:
    async def script(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.send(data)
        while True:
            await visitor.packet()

    return script


def publish(packet_id: int, payload: bytes = b"x") -> bytes:
    return mqtt5.PublishPacket("in/1", payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id).write()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(after_connect(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol_violation", id="a web server"),
        pytest.param(after_connect(b"\x00" * 100), "protocol_violation", id="zeroes"),
        pytest.param(after_connect(publish(1)), "protocol_violation", id="a message before CONNACK"),
        pytest.param(after_connect(publish(1) + CONNACK_5), "protocol_violation", id="a message, then CONNACK"),
        pytest.param(after_connect(b"\x90\x04\x00\x01\x00\x01"), "protocol_violation", id="SUBACK first"),
        pytest.param(after_connect(b"\x20\x03\x00\x87\x00"), "refused", id="not authorized"),
        pytest.param(after_connect(b"\x20\x03\x00\x87\x00" + publish(1)), "refused", id="refused, and more"),
        pytest.param(after_connect(mqtt5.ConnAckPacket(max_qos=mqtt5.QoS.AT_MOST_ONCE).write()), "refused", id="QoS 0"),
        pytest.param(after_connect(CONNACK_5 + b"\x90\x04\x00\x07\x00\x01"), "protocol_violation", id="foreign SUBACK"),
        pytest.param(
            after_connect(CONNACK_5 + b"\x90\x05\x00\x01\x00\x01\x01"), "protocol_violation", id="long SUBACK"
        ),
        pytest.param(after_up(CONNACK_5), "protocol_violation", id="a second CONNACK"),
        pytest.param(after_up(b"\x90\x04\x00\x01\x00\x01"), "protocol_violation", id="a second SUBACK"),
        pytest.param(after_up(b"\x34\x06\x00\x01t\x00\x01\x00"), "protocol_violation", id="QoS 2"),
        pytest.param(after_up(b"\x30\xff\xff\xff\xff\xff"), "protocol_violation", id="an endless length"),
        pytest.param(after_up(b"\xe0\x01\x8b"), "closed", id="shutting down"),
        pytest.param(after_up(b"\xe0\x01\x8e"), "taken_over", id="taken over"),
    ],
)
async def test_a_broker_that_misbehaves_once_is_left_and_tried_again(
    make_link: MakeLink, script: Script, code: str
) -> None:
    async with ScriptedBroker(script, good) as broker:
        subject = await make_link(broker.port, protocol="5").up()
        assert [down for down, _ in subject.heard.downs] == [code]
        assert subject.link.waiting() == 0
        subject.link.send(outbound(3))
        await subject.heard.until(lambda: subject.heard.acknowledged == [1, 2, 3], "the link to work")
        assert broker.connections == 2


async def test_what_came_before_a_violation_is_handed_over(make_link: MakeLink) -> None:
    async with ScriptedBroker(after_up(publish(1, b"good") + b"\x00\x00"), good) as broker:
        subject = await make_link(broker.port, protocol="5").up(2)
        assert subject.link.take(10) == (1, [(1, "in/1", b"good", False)])
        assert subject.link.statistics().violations == 1


async def test_a_connection_closed_in_the_middle_of_a_packet_leaves_nothing_behind(make_link: MakeLink) -> None:
    async def cut(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.send(publish(1, b"whole") + publish(2, b"torn")[:-2])
        visitor.hang_up()

    async def next_one(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.send(publish(2, b"torn"))
        await visitor.packet_of(0x40)

    async with ScriptedBroker(cut, next_one) as broker:
        subject = await make_link(broker.port, protocol="5").up(2)
        await subject.heard.until(lambda: subject.link.waiting() == 2, "both messages")
        subject.take_and_acknowledge()
        subject.take_and_acknowledge()
        assert [(generation, m.payload) for generation, m in subject.taken] == [(1, b"whole"), (2, b"torn")]
        assert subject.heard.downs[0][0] == "closed"
        assert subject.link.statistics().acks_stale == 1


async def test_a_reset_connection_is_closed_and_tried_again(make_link: MakeLink) -> None:
    async def reset(visitor: Visitor) -> None:
        await visitor.accept()
        visitor.reset()

    async with ScriptedBroker(reset, good) as broker:
        subject = await make_link(broker.port, protocol="5").up(2)
        assert subject.heard.downs[0][0] == "closed"


async def test_packet_ids_that_a_broker_reuses_are_acknowledged_as_often_as_they_came(make_link: MakeLink) -> None:
    acknowledged: list[bytes] = []

    async def reusing(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.send(publish(1, b"a") + publish(1, b"b") + publish(1, b"c"))
        acknowledged.extend([await visitor.packet_of(0x40) for _ in range(3)])

    async with ScriptedBroker(reusing, good) as broker:
        subject = await make_link(broker.port, protocol="5").up()
        await subject.heard.until(lambda: subject.link.waiting() == 3, "three messages")
        subject.take_and_acknowledge()
        await subject.heard.until(lambda: len(acknowledged) == 3, "three acknowledgements")
        assert subject.payloads == [b"a", b"b", b"c"]
        assert acknowledged == [b"\x40\x02\x00\x01"] * 3


async def test_acknowledgements_nobody_waits_for_are_counted_and_harmless(make_link: MakeLink) -> None:
    unknown = b"\x40\x02\x12\x34" + b"\x40\x03\x12\x35\x87"
    async with ScriptedBroker(after_up(unknown)) as broker:
        subject = await make_link(broker.port, protocol="5").up()
        await subject.heard.until(lambda: subject.link.statistics().confirms_unknown == 2, "both to be counted")
        assert (subject.heard.acknowledged, subject.heard.refused, subject.heard.downs) == ([], [], [])


@pytest.mark.parametrize("silent_after", ["nothing", "CONNACK"])
async def test_a_broker_that_does_not_answer_is_given_up_in_time(make_link: MakeLink, silent_after: str) -> None:
    async def mute(visitor: Visitor) -> None:
        await visitor.packet()
        if silent_after == "CONNACK":
            await visitor.send(CONNACK_5)
        await visitor.packet_of(0xE0)

    async with ScriptedBroker(mute, good) as broker:
        subject = await make_link(broker.port, protocol="5", connect_timeout_s=0.2, keep_alive_s=1).up()
        assert [code for code, _ in subject.heard.downs] == ["timeout"]
        assert "within 0.2 s" in subject.heard.downs[0][1]


async def test_a_line_too_slow_for_our_patience_is_given_more_of_it_and_no_more_than_allowed(
    make_link: MakeLink,
) -> None:
    keep_alives: list[int] = []

    async def far(visitor: Visitor) -> None:
        """Answers after half a second, whatever we had hoped for."""
        connect = await visitor.packet()
        keep_alives.append(int.from_bytes(connect[10:12], "big"))
        await asyncio.sleep(0.5)
        await visitor.send(CONNACK_5)
        subscribe = await visitor.packet()
        await visitor.send(b"\x90\x04" + subscribe[2:4] + b"\x00\x01")
        await visitor.packet_of(0xE0)

    async with ScriptedBroker(far) as broker:
        link = make_link(broker.port, protocol="5", connect_timeout_s=0.1, keep_alive_s=1, patience_most=8.0)
        subject = await link.up()
        assert {code for code, _ in subject.heard.downs} == {"timeout"}
        assert keep_alives == [1, 2, 4, 8]


async def test_a_broker_that_always_refuses_is_not_hammered(make_link: MakeLink) -> None:
    backoff = FAST.__class__(first_s=0.1, cap_s=0.4)
    async with ScriptedBroker(after_connect(b"\x20\x03\x00\x87\x00")) as broker:
        subject = make_link(broker.port, protocol="5", backoff=backoff)
        await asyncio.sleep(1.0)  # waits of 0.05, 0.1, 0.2, 0.2, ... s
        assert 3 <= broker.connections <= 7
        assert {code for code, _ in subject.heard.downs} == {"refused"}


async def test_an_old_broker_is_spoken_to_in_its_version_at_once_and_ever_after(make_link: MakeLink) -> None:
    versions: list[int] = []

    async def old(visitor: Visitor) -> None:
        connect = await visitor.packet()
        versions.append(connect[8])
        if connect[8] != 4:
            await visitor.send(b"\x20\x02\x00\x01")
            return
        await visitor.send(CONNACK_311)
        subscribe = await visitor.packet()
        await visitor.send(b"\x90\x03" + subscribe[2:4] + b"\x01")
        if len(versions) < 4:
            return
        await visitor.packet()

    backoff = FAST.__class__(first_s=0.2, cap_s=0.2)
    async with ScriptedBroker(old) as broker:
        subject = await make_link(broker.port, backoff=backoff).up(3)
        assert versions == [5, 4, 4, 4]
        assert {session.protocol for session in subject.heard.sessions} == {"3.1.1"}
        assert subject.heard.downs[0][0] == "refused"


async def test_a_broker_that_only_closes_gets_the_other_version_after_two_attempts(make_link: MakeLink) -> None:
    versions: list[int] = []

    async def picky(visitor: Visitor) -> None:
        connect = await visitor.packet()
        versions.append(connect[8])
        if connect[8] == 4:
            await visitor.send(CONNACK_311)
            subscribe = await visitor.packet()
            await visitor.send(b"\x90\x03" + subscribe[2:4] + b"\x01")
            await visitor.packet()

    async with ScriptedBroker(picky) as broker:
        await make_link(broker.port).up()
        assert versions == [5, 5, 4]


async def test_a_broker_that_speaks_no_version_is_not_hammered(make_link: MakeLink) -> None:
    async with ScriptedBroker(after_connect(b"\x20\x02\x00\x01")) as broker:
        make_link(broker.port, backoff=FAST.__class__(first_s=0.2, cap_s=0.2))
        await asyncio.sleep(0.55)  # two connections at a time, 0.1 s between
        assert broker.connections <= 14


async def test_refused_filters_are_named_and_the_rest_is_up(make_link: MakeLink) -> None:
    async def grants_half(visitor: Visitor) -> None:
        await visitor.packet()
        await visitor.send(CONNACK_5)
        subscribe = await visitor.packet()
        await visitor.send(b"\x90\x05" + subscribe[2:4] + b"\x00\x01\x87")
        await visitor.send(publish(1))
        await visitor.packet_of(0x40)

    async with ScriptedBroker(grants_half, good) as broker:
        subject = await make_link(broker.port, protocol="5", filters=("in/#", "secret/#")).up()
        assert subject.heard.sessions[0].refused == (("secret/#", "not_authorized"),)
        assert subject.heard.alarms == [
            ("subscribe_denied", True, "the broker refused the subscription to secret/# (not_authorized)")
        ]
        await subject.heard.until(subject.link.waiting, "a message of the granted one")
        subject.take_and_acknowledge()
        await subject.up(2)
        await subject.heard.until(lambda: len(subject.heard.alarms) == 2, "the end of the alarm")
        assert subject.heard.alarms[1][:2] == ("subscribe_denied", False)


async def test_what_the_broker_announces_is_kept_to(make_link: MakeLink) -> None:
    connack = mqtt5.ConnAckPacket(
        session_present=True, receive_max=3, max_packet_size=500, retain_available=False, server_keep_alive=1
    ).write()

    async def limited(visitor: Visitor) -> None:
        await visitor.accept(connack)
        await visitor.packet_of(0xC0)  # a ping within the keep-alive the broker chose
        await visitor.send(b"\xd0\x00")
        await visitor.packet_of(0xE0)

    async with ScriptedBroker(limited) as broker:
        subject = await make_link(broker.port, protocol="5", keep_alive_s=1_000).up()
        session = subject.heard.sessions[0]
        assert (session.session_present, session.receive_maximum, session.max_packet_bytes) == (True, 3, 500)
        sent = [
            Outbound(b"t", b"x" * 500, 1),
            Outbound(b"t", b"", 2, True),
            *(Outbound(b"t", b"", token) for token in range(3, 10)),
        ]
        assert subject.link.send(sent) == 5
        assert subject.link.free_slots == 0
        await subject.heard.until(lambda: len(subject.heard.refused) == 2, "the refusals")
        assert subject.heard.refused == [(1, "packet_too_large"), (2, "retain_not_supported")]


async def test_a_broker_that_does_not_read_fills_no_memory(make_link: MakeLink) -> None:
    go_on = asyncio.Event()

    async def deaf(visitor: Visitor) -> None:
        await visitor.accept()
        await go_on.wait()
        await good_after(visitor)

    async def good_after(visitor: Visitor) -> None:
        while True:
            publish_, _ = mqtt5.read(memoryview(await visitor.packet_of(0x30)))
            assert isinstance(publish_, mqtt5.PublishPacket)
            await visitor.send(mqtt5.PubAckPacket(publish_.packet_id or 0).write())

    async with ScriptedBroker(deaf) as broker:
        subject = await make_link(broker.port, protocol="5", max_write_buffer_bytes=100_000).up()
        sent = 0
        while subject.link.send([Outbound(b"t", b"x" * 50_000, sent + 1)]):
            sent += 1
            await asyncio.sleep(0)
        counted = subject.link.statistics()
        assert subject.link.free_slots == 0
        assert counted.inflight == sent < 1_000
        assert 100_000 < counted.write_buffer_bytes <= 200_000
        calls = subject.heard.settled_calls
        go_on.set()
        await subject.heard.until(lambda: subject.link.free_slots, "free slots again")
        assert subject.heard.settled_calls > calls  # the engine was told
        await subject.heard.until(lambda: len(subject.heard.acknowledged) == sent, "all confirmations")


async def test_closing_while_the_broker_keeps_us_waiting_ends_at_once(make_link: MakeLink) -> None:
    async def mute(visitor: Visitor) -> None:
        await visitor.packet()
        await visitor.packet()

    async with ScriptedBroker(mute) as broker:
        subject = make_link(broker.port, protocol="5", connect_timeout_s=30.0)
        await subject.heard.until(lambda: broker.connections, "the broker to be called")
        async with asyncio.timeout(3):
            await subject.link.close(Outbound(b"t", b"bye", 0))
            await subject.ended()
        assert subject.heard.downs == []


async def test_a_tls_handshake_that_never_ends_is_given_up_and_closing_does_not_wait_for_it(
    make_link: MakeLink,
) -> None:
    async def mute(visitor: Visitor) -> None:
        await visitor.packet()
        await asyncio.sleep(30)

    async with ScriptedBroker(mute) as broker:
        subject = make_link(broker.port, tls=TlsSettings(), connect_timeout_s=0.2)
        await subject.heard.until(lambda: subject.heard.downs, "the attempt to time out")
        assert subject.heard.downs[0][0] == "timeout"
        await subject.end()
        patient = make_link(broker.port, tls=TlsSettings(), connect_timeout_s=30.0)
        await patient.heard.until(lambda: broker.connections >= 2, "the second attempt")
        async with asyncio.timeout(3):
            await patient.link.close()
            await patient.ended()


async def test_a_host_that_cannot_be_a_name_is_an_unreachable_one(make_link: MakeLink) -> None:
    subject = make_link(1, host="." + "a" * 70)
    await subject.heard.until(lambda: subject.heard.downs, "a failed attempt")
    assert subject.heard.downs[0][0] == "unreachable"


async def test_closing_between_two_attempts_ends_at_once(make_link: MakeLink) -> None:
    subject = make_link(1, backoff=FAST.__class__(first_s=60.0))
    await subject.heard.until(lambda: subject.heard.downs, "a failed attempt")
    async with asyncio.timeout(3):
        await subject.link.close()
        await subject.ended()


async def test_closing_does_not_wait_longer_than_told_for_confirmations(make_link: MakeLink) -> None:
    seen: list[bytes] = []

    async def never_confirms(visitor: Visitor) -> None:
        await visitor.accept()
        while True:
            seen.append(await visitor.packet())

    async with ScriptedBroker(never_confirms) as broker:
        subject = await make_link(broker.port, protocol="5").up()
        subject.link.send(outbound(1))
        async with asyncio.timeout(3):
            await subject.link.close(Outbound(b"state", b"offline", 0, True), drain_s=0.1)
            await subject.ended()
        assert [packet[0] for packet in seen] == [0x32, 0x33, 0xE0]
        assert subject.heard.acknowledged == []


async def test_a_link_without_filters_is_up_after_connack_and_takes_what_the_session_held(make_link: MakeLink) -> None:
    async def resumed(visitor: Visitor) -> None:
        await visitor.packet()
        await visitor.send(b"\x20\x03\x01\x00\x00" + publish(7, b"held"))
        await visitor.packet_of(0x40)
        await visitor.packet_of(0xE0)

    async with ScriptedBroker(resumed) as broker:
        subject = await make_link(broker.port, protocol="5", filters=()).up()
        await subject.heard.until(subject.link.waiting, "the held message")
        subject.take_and_acknowledge()
        assert subject.payloads == [b"held"]
        assert subject.link.statistics().unacked_count == 0
