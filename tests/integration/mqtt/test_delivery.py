"""Messages in and out through a real mosquitto, and what is left after failures."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from edged.messages import Outbound, Oversize
from tests.doubles.broker import Mosquitto
from tests.doubles.peer import Peer
from tests.integration.mqtt.conftest import MakeLink, outbound

both_versions = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@both_versions
async def test_messages_arrive_in_order_and_publishes_are_confirmed(
    stock_broker: Mosquitto, make_link: MakeLink, protocol: str
) -> None:
    subject = await make_link(stock_broker.port, protocol=protocol).up()
    subject.acknowledge_everything()
    async with Peer(stock_broker.port, "out/#") as peer:
        await peer.publish("in/1", [b"%d" % i for i in range(200)])
        await subject.heard.until(lambda: len(subject.taken) == 200, "200 messages")
        assert subject.payloads == [b"%d" % i for i in range(200)]
        assert {m.topic for _, m in subject.taken} == {"in/1"}
        assert subject.link.send([Outbound(b"out/x", b"result", 42, False, 3600)]) == 1
        await subject.heard.until(lambda: subject.heard.acknowledged == [42], "the confirmation")
        await subject.heard.until(lambda: peer.messages == [("out/x", b"result", False)], "the result at the peer")
    session = subject.heard.sessions[0]
    assert (session.protocol, session.generation, session.session_present) == (protocol, 1, False)
    counted = subject.link.statistics()
    assert (counted.received, counted.acks_sent, counted.confirmed, counted.unacked_count) == (200, 200, 1, 0)


@both_versions
async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(
    stock_broker: Mosquitto, make_link: MakeLink, protocol: str
) -> None:
    first = await make_link(stock_broker.port, protocol=protocol).up()
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"%d" % i for i in range(10)])
        await first.heard.until(lambda: first.link.waiting() == 10, "10 messages")
        taken = first.take()
        first.link.send((), [m.packet_id for m in taken[:4]], generation=1)
        async with Peer(stock_broker.port) as marker:  # a round trip behind the acknowledgements
            await marker.publish("in/2", [b"marker"])
        await first.heard.until(lambda: first.link.waiting() == 1, "the marker")
        await first.end()
        await peer.publish("in/1", [b"while away"])
    second = await make_link(stock_broker.port, protocol=protocol).up()
    await second.heard.until(lambda: second.link.waiting() == 8, "what was left")
    assert second.heard.sessions[0].session_present
    assert [m.payload for m in second.take()] == [b"4", b"5", b"6", b"7", b"8", b"9", b"marker", b"while away"]


async def test_the_window_of_a_stock_broker_is_respected_and_everything_gets_out(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port, filters=()).up()
    assert subject.link.free_slots == 20
    waiting = outbound(500)
    assert subject.link.send(waiting) == 20
    assert subject.link.send(waiting[20:]) == 0
    most = sent = 20
    async with asyncio.timeout(20):
        while sent < 500:
            await subject.heard.until(lambda: subject.link.free_slots, "a free slot")
            sent += subject.link.send(waiting[sent:])
            most = max(most, subject.link.statistics().inflight)
    await subject.heard.until(lambda: len(subject.heard.acknowledged) == 500, "all confirmations")
    assert most == 20
    assert subject.heard.acknowledged == list(range(1, 501))


async def test_without_a_subscriber_the_confirmation_is_a_confirmation(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port, filters=()).up()
    subject.link.send(outbound(3, b"nobody/listens"))
    await subject.heard.until(lambda: len(subject.heard.acknowledged) == 3, "three confirmations")
    assert subject.heard.refused == []


async def test_acknowledgements_of_an_old_connection_are_never_sent(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port).up()
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"old 1", b"old 2", b"old 3"])
        await subject.heard.until(lambda: subject.link.waiting() == 3, "three messages")
        generation, old = subject.link.take(10)
    await stock_broker.restart()  # it forgets everything and starts again with packet id 1
    await subject.up(2)
    assert not subject.heard.sessions[1].session_present
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"new 1", b"new 2", b"new 3"])
        await subject.heard.until(lambda: subject.link.waiting() == 3, "three new messages")
        new_generation, new = subject.link.take(10)
        assert [m[0] for m in new] == [m[0] for m in old]
        subject.link.send((), [m[0] for m in old], generation=generation, released_count=3, released_bytes=15)
        assert subject.link.statistics().acks_stale == 3
        assert subject.link.statistics().acks_sent == 0
    await subject.end()
    again = await make_link(stock_broker.port).up()
    await again.heard.until(lambda: again.link.waiting() == 3, "the unacknowledged ones again")
    assert new_generation == 2
    assert [m.payload for m in again.take()] == [b"new 1", b"new 2", b"new 3"]


async def test_what_arrived_before_the_connection_ended_can_still_be_taken_with_its_generation(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port).up()
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"a", b"b", b"c"])
        await subject.heard.until(lambda: subject.link.waiting() == 3, "three messages")
    await stock_broker.restart()
    await subject.up(2)
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"d"])
        await subject.heard.until(lambda: subject.link.waiting() == 4, "a fourth message")
    for limit in (2, 10, 10, 10):
        subject.take(limit)
    assert [(generation, m.payload) for generation, m in subject.taken] == [
        (1, b"a"),
        (1, b"b"),
        (1, b"c"),
        (2, b"d"),
    ]
    assert subject.link.waiting() == 0


@both_versions
async def test_a_burst_pauses_reading_and_nothing_is_lost(tmp_path: Path, make_link: MakeLink, protocol: str) -> None:
    with Mosquitto(tmp_path, "max_queued_messages 100000") as broker:
        subject = await make_link(
            broker.port, protocol=protocol, max_unacked_count=64, receive_maximum=1_000, keep_alive_s=60
        ).up()
        most = 0
        async with Peer(broker.port) as peer:
            publishing = asyncio.get_running_loop().create_task(
                peer.publish("in/1", [b"%04d" % i + b"x" * 2_000 for i in range(3_000)])
            )
            if protocol == "5":  # on 3.1.1 the broker keeps to 20 anyway until acknowledgements flow
                await subject.heard.until(lambda: subject.link.statistics().pauses, "reading to pause")
            while len(subject.taken) < 3_000:
                await subject.heard.until(subject.link.waiting, "messages")
                await asyncio.sleep(0.002)  # a slow engine
                most = max(most, subject.link.statistics().unacked_count)
                subject.take_and_acknowledge(50)
            await publishing
        assert [int(payload[:4]) for payload in subject.payloads] == list(range(3_000))
        counted = subject.link.statistics()
        assert counted.unacked_count == counted.unacked_bytes == 0
        # One read may bring up to 256 KiB at once, here 130 messages.
        assert most < 64 + 140


async def test_a_pause_longer_than_the_keep_alive_does_not_cost_the_connection(
    tmp_path: Path, make_link: MakeLink
) -> None:
    with Mosquitto(tmp_path, "max_queued_messages 100000") as broker:
        subject = await make_link(broker.port, max_unacked_count=10, keep_alive_s=1, receive_maximum=1_000).up()
        async with Peer(broker.port) as peer:
            await peer.publish("in/1", [b"x" * 20] * 15)
            await subject.heard.until(lambda: subject.link.waiting() == 15, "the messages")
            assert subject.link.statistics().pauses == 1
            await subject.heard.until(lambda: subject.link.statistics().forced_reads >= 3, "three short reads")
            assert subject.heard.downs == []
            subject.take_and_acknowledge()
            await peer.publish("in/1", [b"after"])
            await subject.heard.until(subject.link.waiting, "reading again")
        assert subject.take()[-1].payload == b"after"


async def test_a_message_over_the_limit_arrives_as_its_head_and_is_acknowledged_like_any_other(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port, max_packet_bytes=10_000).up()
    large = bytes(range(256)) * 20_000
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"before", large, b"after"])
        await subject.heard.until(lambda: subject.link.waiting() == 3, "three messages")
        before, head, after = subject.take_and_acknowledge()
        assert (before.payload, after.payload) == (b"before", b"after")
        assert isinstance(head.payload, Oversize)
        assert head.payload == large[:1024]
        assert head.payload.size_bytes == len(large)
        assert head.payload.sha256 == hashlib.sha256(large).hexdigest()
        assert subject.link.statistics().oversize == 1
        assert subject.heard.downs == []
        await peer.publish("in/1", [b"marker"])
        await subject.heard.until(subject.link.waiting, "the marker")
    await subject.end()
    again = await make_link(stock_broker.port).up()
    await again.heard.until(again.link.waiting, "what is left")
    assert [m.payload for m in again.take()] == [b"marker"]


async def test_a_publish_over_the_brokers_limit_is_refused_here_and_the_rest_goes_out(
    tmp_path: Path, make_link: MakeLink
) -> None:
    with Mosquitto(tmp_path, "max_packet_size 2000") as broker:
        subject = await make_link(broker.port, filters=()).up()
        assert subject.heard.sessions[0].max_packet_bytes == 2_000
        sent = [Outbound(b"out/t", b"ok", 1), Outbound(b"out/t", b"x" * 3_000, 2), Outbound(b"out/t", b"ok", 3)]
        assert subject.link.send(sent) == 3
        await subject.heard.until(lambda: subject.heard.acknowledged == [1, 3], "the confirmations")
        assert subject.heard.refused == [(2, "packet_too_large")]
        assert subject.heard.downs == []
        assert subject.link.statistics().publishes_refused == 1


async def test_a_limit_that_a_broker_keeps_to_itself_is_a_refusal_too_and_not_an_endless_loop(
    tmp_path: Path, make_link: MakeLink
) -> None:
    with Mosquitto(tmp_path, "message_size_limit 2000") as broker:
        subject = await make_link(broker.port, protocol="5", filters=()).up()
        assert subject.heard.sessions[0].max_packet_bytes > 2_000
        subject.link.send([Outbound(b"out/t", b"x" * 3_000, 1), Outbound(b"out/t", b"ok", 2)])
        await subject.heard.until(lambda: subject.heard.acknowledged == [2], "the confirmation")
        assert subject.heard.refused == [(1, "packet_too_large")]
        assert subject.heard.downs == []


async def test_our_own_limit_holds_where_the_broker_has_none(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    subject = await make_link(stock_broker.port, protocol="3.1.1", filters=(), max_publish_bytes=2_000).up()
    subject.link.send([Outbound(b"out/t", b"x" * 3_000, 1), Outbound(b"out/t", b"ok", 2)])
    await subject.heard.until(lambda: subject.heard.acknowledged == [2], "the confirmation")
    assert subject.heard.refused == [(1, "packet_too_large")]


async def test_only_replayed_messages_carry_the_retain_flag(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/old", [b"old"], retain=True)
        subject = await make_link(stock_broker.port).up()
        await subject.heard.until(subject.link.waiting, "the retained message")
        await peer.publish("in/new", [b"new"], retain=True)
        await subject.heard.until(lambda: subject.link.waiting() == 2, "the live message")
        assert [(m.payload, m.retain) for m in subject.take_and_acknowledge()] == [(b"old", True), (b"new", False)]
        await subject.link.close()
    again = await make_link(stock_broker.port).up()
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"marker"])
        await again.heard.until(again.link.waiting, "the marker")
    assert [m.payload for m in again.take()] == [b"marker"]  # not replayed: the subscription had existed


async def test_messages_at_qos_0_have_no_packet_id(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    subject = await make_link(stock_broker.port).up()
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"q0"], qos=0)
        await peer.publish("in/1", [b"q2"], qos=2)
        await subject.heard.until(lambda: subject.link.waiting() == 2, "both messages")
    assert [(bool(m.packet_id), m.payload) for m in subject.take()] == [(False, b"q0"), (True, b"q2")]


async def test_while_down_nothing_is_consumed(make_link: MakeLink) -> None:
    subject = make_link(1)
    await subject.heard.until(lambda: subject.heard.downs, "a failed attempt")
    assert subject.link.send(outbound(1), [1], generation=0) == 0
    assert (subject.link.generation, subject.link.free_slots, subject.link.take(5)) == (0, 0, (0, []))
    assert subject.link.statistics().acks_stale == 1
    assert subject.heard.downs[0][0] == "unreachable"
