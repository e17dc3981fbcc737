"""Brokers that die, forget, hang, overflow and misbehave: the daemon returns, loses nothing, names what they lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import ROOT, Daemon, pipeline
from tests.doubles.hand_broker import (
    CONNACK,
    HandBroker,
    HandConnection,
    accept,
    break_off,
    hang_up,
    publish_packet,
    refuse,
)
from tests.doubles.scada import Scada
from tests.doubles.sensors import Event, Sensors, devices, payload
from tests.doubles.waiting import until

BURST = 5000
DEVICES = 50
CLIENTS = 5


def test_a_broker_killed_and_restarted_empty_gets_everything_retained_again_and_the_loss_is_told(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    with Daemon(tmp_path, broker.port, pipeline("single", single_model)) as daemon:
        daemon.start().connected()
        with Scada(broker.port) as scada, Sensors(broker.port, devices(4)) as sensors:
            sensors.round(5)
            sensors.pause()
            scada.until_results(20)
            until(lambda: f"{ROOT}/last/dev-3/single" in scada.topics, "the last values are retained")
            retained = {f"{ROOT}/state", f"{ROOT}/mode", *(t for t in scada.topics if "/result/" not in t)}
            broker.kill()
            until(lambda: not daemon.status()["link"]["up"], "the loss is noticed")
            daemon.signal(signal.SIGSTOP)
            broker.start()
            scada.until_back()
            daemon.signal(signal.SIGCONT)
            until(lambda: [gap for gap in scada.gaps if gap["kind"] == "session_lost"], "the lost session is told", 30)
            sensors.round(5)
            sensors.pause()
            results = scada.until_results(40)
            assert books.check(sensors.acknowledged, results, "single").problems == []
            assert daemon.status()["ledger"]["balanced"]
        with Scada(broker.port, client_id="newcomer") as newcomer:

            def found() -> set[str]:
                known = {f"{ROOT}/mode"} if newcomer.modes else set()
                return known | ({f"{ROOT}/state"} if newcomer.states else set()) | set(newcomer.topics)

            until(lambda: found() >= retained, "every retained topic is there")
            assert newcomer.states[0]["state"] == "online"


def test_a_broker_stopped_for_longer_than_the_keep_alive_is_noticed_and_nothing_is_lost(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), broker="keep_alive_s = 5") as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        sensors.trickle(0.01)
        scada.until_results(100)
        broker.stop()
        until(lambda: daemon.status()["link"]["half_open"] == 1, "the silence is noticed", 8.5)
        assert daemon.status()["mode"] == "offline"
        broker.resume()
        daemon.connected(30)
        sensors.pause()
        results = scada.until_results(len(sensors.acknowledged))
        assert books.check(sensors.acknowledged, results, "single").problems == []
        assert scada.gaps == []
        assert daemon.status()["ledger"]["balanced"]


@pytest.mark.parametrize("held", [False, True], ids=["daemon runs", "daemon stopped meanwhile"])
def test_a_burst_on_a_stock_broker_is_answered_or_reported_missing_to_the_last_event(
    tmp_path: Path, stock_broker: Mosquitto, single_model: Path, *, held: bool
) -> None:
    names = devices(DEVICES)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(tmp_path, stock_broker.port, pipeline("single", single_model)))
        daemon.start().connected()
        scada = stack.enter_context(Scada(stock_broker.port, f"{ROOT}/result/#", f"{ROOT}/gap"))
        clients = [
            stack.enter_context(Sensors(stock_broker.port, names[first::CLIENTS], inflight=1000))
            for first in range(CLIENTS)
        ]
        for client in clients:
            client.round()  # every device is known before the flood
        until(lambda: daemon.status()["next_event"] == DEVICES + 1, "the first events are stored")
        if held:
            daemon.signal(signal.SIGSTOP)
        for _ in range(BURST // DEVICES - 2):
            for client in clients:
                client.round()
        for client in clients:
            client.pause()
        daemon.signal(signal.SIGCONT)
        until(lambda: settled(daemon), "the daemon has taken what the broker kept")
        for client in clients:
            client.round()  # closing messages: what is missing at the end shows, too
        until(lambda: settled(daemon), "the closing messages are through")

        acknowledged = {event for client in clients for event in client.acknowledged}
        assert len(acknowledged) == BURST
        until(lambda: accounted(scada) == BURST, f"{BURST} events are answered or missing; see {accounted(scada)}")
        answered = [Event(r["device"], r["input"]["seq"]) for r in scada.results]
        missing = {Event(gap["device"], seq) for gap in scada.gaps for seq in range(gap["from"], gap["to"] + 1)}
        assert len(set(answered)) == len(answered), "none came twice"
        assert missing.isdisjoint(answered)
        assert missing | set(answered) == acknowledged
        assert {gap["kind"] for gap in scada.gaps} <= {"sequence"}
        assert daemon.status()["ledger"]["balanced"]
        if held and not missing:
            pytest.skip(
                f"this broker keeps {BURST} events for a daemon that hangs (mosquitto 2.0.21 does): no gap to see"
            )
        if held:
            assert "gap" in daemon.codes()


def settled(daemon: Daemon) -> bool:
    """Nothing more has come, and everything has left, since the last look."""
    before = daemon.status()
    until(lambda: daemon.status()["uptime_s"] > before["uptime_s"], "a second passes", every_s=0.1)
    after = daemon.status()
    return bool(before["next_event"] == after["next_event"] and after["waiting_results"] == 0)


def accounted(scada: Scada) -> int:
    gaps: int = sum(gap["count"] for gap in list(scada.gaps) if gap["kind"] == "sequence")
    return len({result["id"] for result in list(scada.results)}) + gaps


# --- brokers moved by hand ---


def results_of(*connections: HandConnection) -> list[dict[str, Any]]:
    return [
        json.loads(body)
        for connection in connections
        for topic, body in list(connection.published)
        if topic.startswith(f"{ROOT}/result/")
    ]


@pytest.fixture
def hand_daemon(tmp_path: Path, single_model: Path) -> Iterator[Any]:
    """Makes a started daemon for a broker moved by hand."""
    with ExitStack() as stack:

        def make(port: int, **more: Any) -> Daemon:
            daemon = stack.enter_context(Daemon(tmp_path, port, pipeline("single", single_model), **more))
            return daemon.start()

        yield make


def test_a_broker_that_refuses_breaks_off_and_hangs_up_is_tried_until_it_serves(hand_daemon: Any) -> None:
    with HandBroker(refuse, break_off, hang_up, accept(CONNACK)) as broker:
        daemon = hand_daemon(broker.port)
        connection = broker.connection(within_s=40)
        assert broker.attempts >= 4
        connection.publish(1, "in/dev-0", payload(Event("dev-0", 1)))
        until(lambda: connection.acks == [1], "the event is acknowledged")
        assert books.check([Event("dev-0", 1)], results_of(connection), "single").problems == []
        assert daemon.status()["link"]["connects"] == 1


def test_a_connection_closed_in_the_middle_of_a_packet_loses_and_repeats_nothing(hand_daemon: Any) -> None:
    events = [Event("dev-0", seq) for seq in range(1, 4)]
    with HandBroker() as broker:
        hand_daemon(broker.port)
        first = broker.connection()
        first.publish(1, "in/dev-0", payload(events[0]))
        until(lambda: first.acks == [1], "the whole message is acknowledged")
        first.break_off(publish_packet(2, "in/dev-0", payload(events[1]))[:-7])
        second = broker.connection(2)
        for packet_id, event in ((2, events[1]), (3, events[2])):
            second.publish(packet_id, "in/dev-0", payload(event))
        until(lambda: second.acks == [2, 3], "the broken one is acknowledged when it came whole")
        assert books.check(events, results_of(first, second), "single").problems == []


def test_packet_ids_that_begin_anew_are_never_acknowledged_for_what_an_old_connection_brought(
    hand_daemon: Any, tmp_path: Path, bad_disk: Path
) -> None:
    """Commit of the old connection's messages ends after the new connection has reused their ids."""
    word = tmp_path / "disk"
    word.write_text("ok")
    env = {"LD_PRELOAD": str(bad_disk), "BAD_DISK": str(word)}
    old = [Event("dev-0", seq) for seq in range(1, 4)]
    new = [Event("dev-1", seq) for seq in range(1, 4)]
    with HandBroker() as broker:
        daemon = hand_daemon(broker.port, env=env)
        first = broker.connection()
        word.write_text("hang")
        for event in old:
            first.publish(event.seq, "in/dev-0", payload(event))
        until(lambda: daemon.status()["link"]["received"] == 3, "the events are taken")
        first.close()
        second = broker.connection(2)
        assert first.acks == second.acks == []
        word.write_text("ok")
        until(lambda: daemon.status()["ledger"]["inputs"]["single"]["stored"] == 3, "the old events are stored")
        assert second.acks == [], "their acknowledgements died with their connection"
        for event in new:
            second.publish(event.seq, "in/dev-1", payload(event))
        until(lambda: second.acks == [1, 2, 3], "the new messages are acknowledged")
        for packet_id, event in enumerate(old, 10):  # the broker repeats what it got no acknowledgement for
            second.publish(packet_id, "in/dev-0", payload(event))
        until(lambda: second.acks == [1, 2, 3, 10, 11, 12], "the repeated ones are acknowledged")
        until(lambda: len(results_of(second)) >= 6, "all are answered")
        assert books.check([*old, *new], results_of(first, second), "single").problems == []
        status = daemon.status()
        assert status["ledger"]["inputs"]["single"]["duplicates"] == 3
        assert status["link"]["acks_stale"] >= 1
        assert status["ledger"]["balanced"]


def test_a_broker_that_sends_byte_by_byte_is_waited_for(hand_daemon: Any) -> None:
    event = Event("dev-0", 1)
    with HandBroker() as broker:
        daemon = hand_daemon(broker.port)
        connection = broker.connection()
        connection.drip(publish_packet(1, "in/dev-0", payload(event)), 0.005)
        until(lambda: connection.acks == [1], "the event is acknowledged")
        assert books.check([event], results_of(connection), "single").problems == []
        assert daemon.status()["link"]["connects"] == 1


def test_while_the_broker_withholds_its_acknowledgements_events_are_taken_in_and_memory_stays(
    hand_daemon: Any,
) -> None:
    events = [Event(f"dev-{number}", seq) for seq in range(1, 401) for number in range(50)]
    with HandBroker(withhold=True) as broker:
        daemon = hand_daemon(broker.port)
        connection = broker.connection()
        before = daemon.memory_bytes("VmRSS")
        for packet_id, event in enumerate(events, 1):
            connection.publish(packet_id, f"in/{event.device}", payload(event))
        until(lambda: len(connection.acks) == len(events), "every event is acknowledged")
        status = daemon.status()
        assert status["waiting_results"] == len(events)
        assert status["outbox"]["in_flight"] <= 2000
        assert daemon.memory_bytes() - before < 100_000_000
        connection.acknowledge_all()
        until(lambda: daemon.status()["waiting_results"] == 0, "everything is delivered", 40)
        assert books.check(events, results_of(*broker.connections), "single").problems == []
        assert daemon.status()["ledger"]["balanced"]


def test_a_scada_that_never_acknowledges_holds_up_nobody(tmp_path: Path, broker: Mosquitto, single_model: Path) -> None:
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model)) as daemon,
        Scada(broker.port, f"{ROOT}/result/#", client_id="lazy", acknowledge=False) as lazy,
        Sensors(broker.port, devices(10)) as sensors,
    ):
        daemon.start().connected()
        sensors.round(300)
        sensors.pause()
        until(lambda: daemon.status()["waiting_results"] == 0 and settled(daemon), "the broker has every result")
        assert len(lazy.results) <= 300, "the broker waits for the acknowledgements"
        lazy.acknowledge_all()
        results = lazy.until_results(3000)
        assert books.check(sensors.acknowledged, results, "single").problems == []
