"""What a real broker does when it dies, hangs, forgets, denies or hands our place to somebody else."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from edged.messages import Outbound
from tests.doubles.broker import Mosquitto
from tests.doubles.peer import Peer
from tests.integration.mqtt.conftest import FAST, MakeLink, outbound

both_versions = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@both_versions
async def test_a_broker_killed_and_restarted_empty_is_found_again_and_the_lost_session_shows(
    stock_broker: Mosquitto, make_link: MakeLink, protocol: str
) -> None:
    subject = await make_link(stock_broker.port, protocol=protocol).up()
    subject.acknowledge_everything()
    sent = subject.link.send(outbound(5))
    await subject.heard.until(lambda: len(subject.heard.acknowledged) == sent, "confirmations")
    await asyncio.to_thread(stock_broker.kill)
    await subject.heard.until(lambda: subject.heard.downs, "the loss to be noticed")
    assert subject.link.send(outbound(1, first_token=9)) == 0
    assert (subject.link.generation, subject.link.free_slots) == (0, 0)
    await asyncio.to_thread(stock_broker.start)
    await subject.up(2)
    assert [s.session_present for s in subject.heard.sessions] == [False, False]
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"after"])
        await subject.heard.until(lambda: subject.payloads == [b"after"], "the subscription to be there again")
    assert subject.heard.acknowledged == [1, 2, 3, 4, 5]


async def test_a_stopped_broker_is_noticed_by_silence_although_the_kernel_answers(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port, keep_alive_s=1, connect_timeout_s=0.3).up()
    stock_broker.stop()
    started = time.monotonic()
    await subject.heard.until(lambda: subject.heard.downs, "the silence to be noticed")
    took_s = time.monotonic() - started
    assert subject.heard.downs[0][0] == "half_open"
    assert took_s < 3.0  # 1.5 keep-alives, and a busy machine
    assert subject.link.statistics().half_open == 1
    await subject.heard.until(lambda: subject.heard.downs[-1][0] == "timeout", "an attempt to time out")
    stock_broker.resume()
    await subject.up(2)


async def test_a_stopped_broker_is_noticed_by_missing_confirmations_before_the_keep_alive(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    subject = await make_link(stock_broker.port, keep_alive_s=60, ack_timeout_s=0.5, connect_timeout_s=0.3).up()
    stock_broker.stop()
    assert subject.link.send(outbound(3)) == 3
    await subject.heard.until(lambda: subject.heard.downs, "the missing confirmations to be noticed", within_s=5)
    assert subject.heard.downs[0][0] == "half_open"
    assert "3 publishes" in subject.heard.downs[0][1]
    assert subject.heard.acknowledged == []
    stock_broker.resume()
    await subject.up(2)


async def test_a_link_that_is_busy_one_way_only_stays_up(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    subject = await make_link(stock_broker.port, keep_alive_s=1, ack_timeout_s=1.0).up()
    async with Peer(stock_broker.port) as peer:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            await peer.publish("in/1", [b"x"])
            subject.take_and_acknowledge()
            await asyncio.sleep(0.05)
    assert subject.heard.downs == []


async def test_the_same_client_id_twice_is_an_alarm_that_names_it(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    first = await make_link(stock_broker.port, protocol="5", client_id="gw-01").up()
    second = make_link(stock_broker.port, protocol="5", client_id="gw-01")
    await first.heard.until(lambda: first.heard.alarms, "the alarm")
    code, active, detail = first.heard.alarms[0]
    assert (code, active) == ("duplicate_client_id", True)
    assert "'gw-01'" in detail
    await second.end()
    await first.heard.until(lambda: first.link.free_slots, "our place back")


async def test_the_same_client_id_twice_is_noticed_on_3_1_1_by_quick_drops(
    stock_broker: Mosquitto, make_link: MakeLink
) -> None:
    first = make_link(stock_broker.port, protocol="3.1.1", client_id="gw-01")
    second = make_link(stock_broker.port, protocol="3.1.1", client_id="gw-01")
    await first.heard.until(lambda: first.heard.alarms or second.heard.alarms, "the alarm of one of them")
    code, active, detail = (first.heard.alarms or second.heard.alarms)[0]
    assert (code, active) == ("duplicate_client_id", True)
    assert "'gw-01'" in detail


async def test_the_alarm_ends_when_the_connection_is_stable(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    backoff = FAST.__class__(first_s=0.05, cap_s=0.2, stable_s=0.5)
    subject = await make_link(stock_broker.port, protocol="5", keep_alive_s=1, backoff=backoff).up()
    async with Peer(stock_broker.port, client_id="edged-test"):
        await subject.heard.until(lambda: subject.heard.alarms, "the alarm")
    await subject.heard.until(lambda: len(subject.heard.alarms) > 1, "its end")
    assert [(code, active) for code, active, _ in subject.heard.alarms[:2]] == [
        ("duplicate_client_id", True),
        ("duplicate_client_id", False),
    ]


def write_access_list(folder: Path, *lines: str) -> str:
    file = folder / "acl"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return f"acl_file {file}"


async def test_a_denied_publish_is_refused_by_name_and_an_alarm(tmp_path: Path, make_link: MakeLink) -> None:
    with Mosquitto(tmp_path, write_access_list(tmp_path, "topic read in/#", "topic write out/good")) as broker:
        subject = await make_link(broker.port, protocol="5").up()
        subject.link.send([Outbound(b"out/good", b"", 1), Outbound(b"out/bad", b"", 2), Outbound(b"out/good", b"", 3)])
        await subject.heard.until(lambda: len(subject.heard.acknowledged) == 2, "the confirmations")
        await subject.heard.until(lambda: subject.heard.refused, "the refusal")
        assert subject.heard.acknowledged == [1, 3]
        assert subject.heard.refused == [(2, "not_authorized")]
        assert [(code, active) for code, active, _ in subject.heard.alarms] == [("publish_denied", True)]
        assert subject.link.statistics().inflight == 0


async def test_a_denied_publish_on_3_1_1_is_noticed_by_the_canary_and_so_is_its_end(
    tmp_path: Path, make_link: MakeLink
) -> None:
    denied = ("topic read in/#", "topic read R/#")
    with Mosquitto(tmp_path, write_access_list(tmp_path, *denied)) as broker:
        subject = make_link(
            broker.port, protocol="3.1.1", canary_topic="R/meta/canary", canary_timeout_s=0.5, keep_alive_s=2
        )
        await subject.up()
        await subject.heard.until(lambda: subject.heard.alarms, "the alarm")
        assert subject.heard.alarms[0][:2] == ("publish_denied", True)
        assert "R/meta/canary" in subject.heard.alarms[0][2]
        assert subject.link.waiting() == 0
        write_access_list(tmp_path, *denied, "topic write R/#")
        await broker.restart()
        await subject.heard.until(lambda: len(subject.heard.alarms) > 1, "the end of the alarm")
        assert subject.heard.alarms[1][:2] == ("publish_denied", False)
        assert subject.link.waiting() == 0  # the canary is nobody's event


async def test_a_canary_that_comes_back_is_no_alarm_and_no_event(stock_broker: Mosquitto, make_link: MakeLink) -> None:
    subject = make_link(stock_broker.port, protocol="3.1.1", canary_topic="R/meta/canary")
    await subject.up()
    async with Peer(stock_broker.port) as peer:
        await peer.publish("in/1", [b"marker"])
        await subject.heard.until(subject.link.waiting, "the marker, which comes after the canary")
    assert [message.topic for message in subject.take()] == ["in/1"]
    assert subject.heard.alarms == []
    assert subject.heard.sessions[0].refused == ()


@both_versions
async def test_the_will_is_sent_when_we_die_and_not_when_we_say_goodbye(
    stock_broker: Mosquitto, make_link: MakeLink, protocol: str
) -> None:
    will = {"will_topic": "R/state", "will_payload": b"offline, died", "will_delay_s": 0}
    subject = await make_link(stock_broker.port, protocol=protocol, **will).up()
    subject.link.send([Outbound(b"R/state", b"online", 0, True)])
    async with Peer(stock_broker.port, "R/state") as peer:
        await subject.heard.until(lambda: len(peer.messages) == 1, "online")
        await subject.end()
        await subject.heard.until(lambda: len(peer.messages) == 2, "the will")
        again = await make_link(stock_broker.port, protocol=protocol, **will).up()
        again.link.send([Outbound(b"R/state", b"online", 0, True)])
        await again.link.close(Outbound(b"R/state", b"offline, stopped", 0, True))
        async with Peer(stock_broker.port) as marker:
            await marker.publish("R/state", [b"marker"])
        await again.heard.until(lambda: len(peer.messages) >= 5, "everything")
        assert [payload for _, payload, _ in peer.messages] == [
            b"online",
            b"offline, died",
            b"online",
            b"offline, stopped",
            b"marker",
        ]
    assert again.heard.downs == []


async def test_a_password_file_is_read_again_at_each_connect(tmp_path: Path, make_link: MakeLink) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("gw:right\n")
    os.spawnlp(os.P_WAIT, "mosquitto_passwd", "mosquitto_passwd", "-U", str(passwords))
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    with Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}") as broker:
        subject = make_link(broker.port, username="gw", password=secret)
        await subject.heard.until(lambda: subject.heard.downs, "the refusal")
        assert subject.heard.downs[0][0] == "refused"
        assert "not_authorized" in subject.heard.downs[0][1]
        secret.write_text("right\n")
        await subject.up()
        secret.unlink()
        await broker.restart()
        await subject.heard.until(
            lambda: any(code == "credentials" for code, _ in subject.heard.downs), "the missing file to be named"
        )
        assert str(secret) in subject.heard.downs[-1][1]


async def test_an_engine_that_is_stuck_is_not_given_more_by_connecting_again(
    tmp_path: Path, make_link: MakeLink
) -> None:
    with Mosquitto(tmp_path, "max_queued_messages 100000") as broker:
        subject = await make_link(broker.port, max_unacked_count=5, receive_maximum=1_000, keep_alive_s=1).up()
        async with Peer(broker.port) as peer:
            await peer.publish("in/1", [b"x"] * 30)
            await subject.heard.until(lambda: subject.link.waiting() >= 10, "twice the limit")
            held = subject.link.statistics().unacked_count
            await broker.restart()
            await subject.heard.until(lambda: subject.heard.downs, "the loss")
        attempts = subject.link.statistics().attempts
        await asyncio.sleep(0.5)
        assert subject.link.statistics().attempts == attempts
        assert subject.link.statistics().unacked_count == held
        subject.take_and_acknowledge()
        await subject.up(2)
        assert subject.link.statistics().acks_sent == 0
