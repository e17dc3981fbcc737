"""Gateways bring batches over a real broker; the database is a double."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edged.hub.broker_session import AckOrder
from edged.sync.protocol import Ack
from tests.doubles.broker import Mosquitto, ScriptedBroker, Visitor, free_port, running
from tests.doubles.certificates import Authority
from tests.doubles.hub_rig import GatedDatabase, Gateway, configured, payload, running_worker, until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    yield from running(tmp_path, "max_queued_messages 100000")


def table(port: int, more: str = "") -> str:
    return f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n{more}\n'


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
async def test_a_batch_is_committed_and_then_called_home(tmp_path: Path, broker: Mosquitto, protocol: str) -> None:
    config = await configured(tmp_path / "hub", table(broker.port, f'protocol = "{protocol}"'))
    async with running_worker(config) as rig, Gateway(broker.port) as gateway:
        await rig.healthy()
        await gateway.hello()
        (answer,) = await gateway.answered()
        await gateway.batch(1, 10)
        (ack,) = await gateway.acked(1)

    assert (answer.status, answer.receiver, answer.instance) == ("ok", "hub-db-1", "i-1")
    assert (ack.status, ack.first, ack.last, ack.upto) == ("ok", 1, 10, 10)
    assert rig.database.committed == [("gw-1", "alarm", 1)]


async def test_workers_share_what_comes_and_each_batch_is_committed_once(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port))
    async with (
        running_worker(config, GatedDatabase()) as one,
        running_worker(config, GatedDatabase()) as two,
        Gateway(broker.port) as gateway,
    ):
        await one.healthy()
        await two.healthy()
        for first in range(1, 101, 10):
            await gateway.batch(first, first + 9)
        await gateway.acked(10)
    assert one.database.committed
    assert two.database.committed
    assert len(one.database.committed) + len(two.database.committed) == 10


async def test_without_shared_subscriptions_every_worker_gets_everything(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port, "shared = false"))
    async with (
        running_worker(config, GatedDatabase()) as one,
        running_worker(config, GatedDatabase()) as two,
        Gateway(broker.port) as gateway,
    ):
        await one.healthy()
        await two.healthy()
        await gateway.batch(1, 10)
        acks = await gateway.acked(2)
    assert [ack.upto for ack in acks] == [10, 10]


async def test_the_broker_may_be_away_at_the_start_and_go_at_any_time(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    config = await configured(tmp_path / "hub", table(broker.port))
    async with running_worker(config) as rig:
        await rig.until(lambda: "refused" in str(rig.worker.faults()), "the broker is away")
        await asyncio.to_thread(broker.start)
        try:
            await rig.healthy()
            await broker.restart()
            async with Gateway(broker.port) as gateway:
                await rig.until(lambda: any("broker_away" in line for line in rig.lines), "it was noticed")
                await rig.healthy()
                await gateway.batch(1, 5)
                assert (await gateway.acked(1))[0].upto == 5
        finally:
            await asyncio.to_thread(broker.kill)


async def test_hostile_batches_are_refused_and_delay_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port))
    async with (
        running_worker(config) as rig,
        Gateway(broker.port, gateway="bad") as bad,
        Gateway(broker.port) as good,
    ):
        await rig.healthy()
        liars = [
            (b"{" + b" " * 10_000_000 + b"}\n", "bad_header"),
            (payload(1, 5, gateway="bad") + bytes(3_000_000), "too_large"),
            (payload(1, 5, gateway="gw-1"), "foreign_gateway"),
            (payload(1, 5, gateway="bad", first=9, n=-3), "bad_header"),
            (payload(1, 5, gateway="bad", stream="health"), "bad_header"),
        ]
        for data, _reason in liars:
            await bad.send(data)
        await good.batch(1, 5)
        await good.acked(1)
        acks = await bad.acked(len(liars))
    assert [(ack.status, ack.reason) for ack in acks] == [("reject", reason) for _data, reason in liars]
    assert rig.database.committed == [("gw-1", "alarm", 1)]


async def test_what_is_not_ours_is_counted_and_not_answered(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port, 'protocol = "3.1.1"\nshared = false'))
    async with Gateway(broker.port) as gateway:
        await gateway.publish(f"{gateway.root}/sync/alarm/batch", [payload(1, 5)], retain=True)
        async with running_worker(config) as rig:
            await rig.healthy()
            await gateway.send(b"x", "sync/other/batch")
            await gateway.publish(f"{gateway.root}/sync/alarm/batch", [payload(6, 9)], qos=0)
            (ack,) = await gateway.acked(1)
            page = await asyncio.to_thread(rig.worker.metrics.registry.prometheus_text)  # its import reads files
    text = page.decode()
    assert ack.first == 6
    assert 'edged_hub_ignored_total{reason="retained",worker="1"} 1.0' in text
    assert 'edged_hub_ignored_total{reason="topic",worker="1"} 1.0' in text


async def test_a_flood_is_answered_with_busy_and_never_gathered(tmp_path: Path, broker: Mosquitto) -> None:
    limits = "[limits]\nmax_inflight_batches = 4\nmax_inflight_per_gateway = 3\n"
    config = await configured(tmp_path / "hub", table(broker.port) + limits)
    async with (
        running_worker(config) as rig,
        Gateway(broker.port, gateway="flood") as flood,
        Gateway(broker.port) as other,
    ):
        await rig.healthy()
        rig.database.open.clear()
        rig.database.held_gateways = {"flood"}
        batches = [payload(first, first, gateway="flood") for first in range(1, 15)]
        await flood.publish(f"{flood.root}/sync/alarm/batch", batches)
        acks = await flood.acked(11)
        await other.batch(1, 5)
        assert (await other.acked(1))[0].status == "ok"
        rig.database.open.set()
        await flood.acked(14)
        assert rig.worker.receiver.door.highest_batches <= 4
    assert {(ack.status, ack.reason) for ack in acks} == {("retry", "busy")}
    assert sorted(ack.first for ack in flood.acks if ack.status == "ok") == [1, 2, 3]


async def test_the_database_goes_and_comes_back(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port))
    async with running_worker(config) as rig, Gateway(broker.port) as gateway:
        await rig.healthy()
        rig.database.away_after = 0
        await gateway.batch(1, 5)
        (ack,) = await gateway.acked(1)
        assert (ack.status, ack.reason, ack.receiver) == ("retry", "database_away", "hub-db-1")
        assert [code for code, _detail in rig.worker.faults()] == ["database_away"]
        rig.database.away_after = None
        await rig.until(lambda: rig.worker.keeper.serving() is not None, "it serves")
        await gateway.batch(1, 5)
        assert (await gateway.acked(2))[1].status == "ok"
        await rig.healthy()


async def test_a_worker_that_stops_answers_what_is_in_hand(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port))
    async with Gateway(broker.port) as gateway:
        async with running_worker(config) as rig:
            await rig.healthy()
            rig.database.open.clear()
            await gateway.batch(1, 5)
            await rig.until(lambda: rig.database.waiting == 1, "the batch is at the database")
        (ack,) = await gateway.acked(1)
    assert ack.status == "ok"


async def test_a_batch_is_acknowledged_to_the_broker_only_after_its_commit(tmp_path: Path) -> None:
    """A scripted broker sends one batch and looks at what comes back, in which order."""
    came: list[int] = []
    done = asyncio.Event()

    async def script(visitor: Visitor) -> None:
        await visitor.accept()
        topic, data = b"edged/v1/lyon/gw-1/sync/alarm/batch", payload(1, 5)
        body = len(topic).to_bytes(2, "big") + topic + b"\x00\x07\x00" + data
        await visitor.send(bytes((0x32,)) + _length(len(body)) + body)
        while len(came) < 2:
            came.append((await visitor.packet())[0] & 0xF0)
        done.set()
        await visitor.packet()

    async with ScriptedBroker(script) as broker:
        config = await configured(tmp_path / "hub", table(broker.port, 'protocol = "5"'))
        database = GatedDatabase()
        database.open.clear()
        async with running_worker(config, database) as rig:
            await rig.until(lambda: rig.database.waiting == 1, "the batch is at the database")
            assert came == []
            rig.database.open.set()
            async with asyncio.timeout(10):
                await done.wait()
    assert came == [0x30, 0x40]


def _length(size: int) -> bytes:
    """MQTT's variable length."""
    data = bytearray()
    while True:
        size, digit = divmod(size, 128)
        data.append(digit | (128 if size else 0))
        if not size:
            return bytes(data)


async def test_a_broker_that_knows_only_3_1_1_is_found_out(tmp_path: Path) -> None:
    versions: list[int] = []

    async def old(visitor: Visitor) -> None:
        connect = await visitor.packet()
        versions.append(connect[8])
        if connect[8] == 5:
            visitor.hang_up()
            return
        await visitor.send(b"\x20\x02\x00\x00")
        subscribe = await visitor.packet_of(0x80)
        await visitor.send(b"\x90\x04" + subscribe[2:4] + b"\x01\x01")
        await visitor.packet()

    async with ScriptedBroker(old) as broker:
        config = await configured(tmp_path / "hub", table(broker.port))
        async with running_worker(config) as rig:
            await rig.healthy()
    assert versions == [5, 4]


@pytest.mark.parametrize(
    ("suback", "said"),
    [(b"\x90\x04{}\x01\x80", "refuses the subscription"), (None, "connection ended")],
    ids=["refused", "hangs up"],
)
async def test_a_broker_that_refuses_the_subscription_is_a_fault(
    tmp_path: Path, suback: bytes | None, said: str
) -> None:
    async def refusing(visitor: Visitor) -> None:
        await visitor.packet()
        await visitor.send(b"\x20\x02\x00\x00")
        subscribe = await visitor.packet_of(0x80)
        if suback is None:
            visitor.hang_up()
            return
        await visitor.send(suback.replace(b"{}", subscribe[2:4]))
        await visitor.packet()

    async with ScriptedBroker(refusing) as broker:
        config = await configured(tmp_path / "hub", table(broker.port, 'protocol = "3.1.1"'))
        async with running_worker(config) as rig:
            await rig.until(lambda: said in str(rig.worker.faults()), said)
            assert [code for code, _detail in rig.worker.faults()] == ["broker_away"]


async def test_a_broker_that_breaks_the_protocol_costs_one_connection(tmp_path: Path) -> None:
    """The thread of paho dies of some packets without a word."""

    async def babbling(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.send(b"\x32\x05\x00\xff\x00\x00\x00")  # a PUBLISH whose topic is longer than itself
        await visitor.packet()

    async def calm(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.packet()

    async with ScriptedBroker(babbling, calm) as broker:
        config = await configured(tmp_path / "hub", table(broker.port, 'protocol = "5"'))
        async with running_worker(config) as rig:
            await rig.until(lambda: broker.connections == 2, "it connected again")
            await rig.healthy()


async def test_a_broker_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    port = free_port()
    config = await configured(tmp_path / "hub", table(port))
    async with running_worker(config) as rig:
        await rig.until(lambda: "refused" in str(rig.worker.faults()), "refused")


async def test_wrong_passwords_and_missing_rights_are_told(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("user hub\ntopic read edged/v1/+/+/sync/#\nuser gw\ntopic readwrite edged/#\n")
    (tmp_path / "passwords").write_text("")
    mosquitto_passwd = "mosquitto_passwd"
    for user in ("hub", "gw"):
        process = await asyncio.create_subprocess_exec(mosquitto_passwd, "-b", tmp_path / "passwords", user, "right")
        assert await process.wait() == 0
    options = ("allow_anonymous false", f"acl_file {tmp_path}/acl", f"password_file {tmp_path}/passwords")
    with Mosquitto(tmp_path, *options) as broker:
        (tmp_path / "secret").write_text("wrong\n")
        more = f'username = "hub"\npassword_file = "{tmp_path}/secret"'
        config = await configured(tmp_path / "hub", table(broker.port, more))
        async with running_worker(config) as rig:
            await rig.until(lambda: "ot authori" in str(rig.worker.faults()), "the password is wrong")
            (tmp_path / "secret").write_text("right\n")  # read again at the next attempt
            await rig.healthy()
            async with Gateway(broker.port, username="gw", password="right") as gateway:
                await gateway.batch(1, 5)
                await rig.until(rig.worker.faults, "the answer is denied")
            assert [code for code, _detail in rig.worker.faults()] == ["answer_denied"]


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, server_key = authority.issue("broker")
    ours, our_key = authority.issue("hub")
    options = (f"cafile {authority.ca_file}", f"certfile {server}", f"keyfile {server_key}", "require_certificate true")
    with Mosquitto(tmp_path, *options) as broker:
        text = (
            f'[broker]\nurl = "mqtts://127.0.0.1:{broker.port}"\nca_file = "{authority.ca_file}"\n'
            f'cert_file = "{ours}"\nkey_file = "{our_key}"\n'
        )
        async with running_worker(await configured(tmp_path / "hub", text)) as rig:
            await rig.healthy()


def test_acknowledgements_keep_the_order_of_arrival() -> None:
    order = AckOrder()
    for token in (3, 1, 2):
        order.came(token)
    assert [order.done(1), order.done(9), order.done(3), order.done(2)] == [[], [], [3, 1], [2]]
    assert len(order) == 0


async def test_two_hundred_batches_of_many_gateways_all_come_home(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port))
    answers: list[Ack] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(20)

    def subscribe(*_: object) -> None:
        client.subscribe("edged/v1/+/+/sync/+/ack", 1)

    subscribed = threading.Event()
    client.on_connect = subscribe
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: answers.append(msgspec.json.decode(message.payload, type=Ack))
    async with running_worker(config) as rig:
        await rig.healthy()
        await asyncio.to_thread(client.connect, "127.0.0.1", broker.port)
        client.loop_start()
        assert await asyncio.to_thread(subscribed.wait, 20)
        todo = {(f"g{number}", first) for number in range(20) for first in range(1, 11)}
        while todo:
            want = len(answers) + len(todo)
            for gateway, first in todo:
                client.publish(f"edged/v1/lyon/{gateway}/sync/alarm/batch", payload(first, first, gateway=gateway), 1)
            await until(partial(lambda goal: len(answers) >= goal, want), "all are answered")
            todo -= {(ack.gateway, ack.first) for ack in answers if ack.status == "ok"}
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
        client._reset_sockets()
    assert {key[1] for key in rig.database.home} == {f"g{number}" for number in range(20)}
    assert all(home == ((1, 10),) for home in rig.database.home.values())


async def test_a_hub_that_never_saw_its_database_does_not_answer(tmp_path: Path, broker: Mosquitto) -> None:
    config = await configured(tmp_path / "hub", table(broker.port))
    database = GatedDatabase()
    database.away_after = 0
    async with running_worker(config, database) as rig, Gateway(broker.port) as gateway:
        await rig.until(lambda: rig.worker.link is not None and not rig.worker.link.fault, "it is connected")
        await gateway.hello()
        await gateway.batch(1, 5)
        await rig.until(lambda: "receiver_unknown" in str(rig.worker.metrics.dump()), "it was counted")
        assert gateway.messages == []
        database.away_after = None
        await rig.healthy()
        await gateway.hello()
        assert (await gateway.answered())[0].status == "ok"
