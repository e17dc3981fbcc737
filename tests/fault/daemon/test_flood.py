"""Hostile input in masses and of great size: refused with reasons that add up; the healthy rest is served."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import ROOT, Daemon, pipeline
from tests.doubles.hand_broker import HandBroker, HandConnection, publish_packet
from tests.doubles.scada import Scada
from tests.doubles.sensors import Event, Sensors, devices, payload
from tests.doubles.waiting import until

GARBAGE_PER_GOOD = 10
GOOD = 2000
MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
CGROUP = Path("/sys/fs/cgroup/memory")

GARBAGE: tuple[tuple[bytes, str], ...] = (
    (b"", "empty"),
    (b"hello", "not_json"),
    (b'{"a": 1.0,', "not_json"),
    (b"\xff\xfe\x00", "not_utf8"),
    (b"[" * 100_000, "too_deep"),
    (b'{"a": "one", "b": 2, "seq": 1, "ts": 1760000000000}', "wrong_type"),
    (b'{"a": 1.0}', "missing_field"),
    (b'{"a": 1e60, "b": 1}', "out_of_range"),
    (b'{"a": NaN, "b": 1}', "not_json"),
    (b'{"a": 1, "b": 1, "ts": -5}', "bad_ts"),
    (b"42", "wrong_type"),
)


def test_a_flood_of_garbage_costs_no_good_event_its_answer(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    chance = random.Random(3)
    sent: Counter[str] = Counter()
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model)) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(10), inflight=500) as sensors,
    ):
        daemon.start().connected()
        for _ in range(GOOD // len(sensors.names)):
            for device in sensors.names:
                sensors.publish(device)
                for _ in range(GARBAGE_PER_GOOD):
                    body, reason = chance.choice(GARBAGE)
                    sensors.raw(f"in/{device}", body)
                    sent[reason] += 1
        sensors.pause()
        results = scada.until_results(GOOD)
        assert books.check(sensors.acknowledged, results, "single").problems == []
        status = until(lambda: (now := daemon.status())["waiting_results"] == 0 and now, "all is delivered")
        refused = status["ledger"]["inputs"]["single"]["refused"]
        assert refused == dict(sent)
        assert sum(refused.values()) == GARBAGE_PER_GOOD * GOOD
        assert status["ledger"]["balanced"]
        until(lambda: told(scada) == refused, f"letters and what they suppress add up to {refused}, got {told(scada)}")
        assert len(scada.letters) < 0.05 * sum(refused.values()), "letters are rate-limited"
        latencies = sorted(result["latency_ms"]["total"] for result in results)
        assert latencies[int(0.99 * len(latencies))] < 500
        assert {mode["mode"] for mode in scada.modes} <= {"normal", "offline"}, "garbage is no reason to degrade"


def told(scada: Scada) -> dict[str, int]:
    count: Counter[str] = Counter()
    for letter in list(scada.letters):
        count[letter["reason"]] += 1 + letter["suppressed"]
    return dict(count)


# --- great payloads under a small memory ---


@pytest.fixture
def memory_cage() -> Iterator[tuple[tuple[str, ...], Path]]:
    """A command prefix that puts a process under the limit, and the folder of its control group."""
    folder = CGROUP / f"edged-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(MEMORY_LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"a memory limit needs root and cgroup v1 at {CGROUP}: {error}")
    yield ("sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"), folder
    with suppress(OSError):
        folder.rmdir()  # fails only while a process is left in it, which the test has reported then


def feed(connection: HandConnection, packet_id: int, topic: str, body: bytes) -> int:
    """Publish and return the next packet id."""
    connection.send(publish_packet(packet_id, topic, body))
    return packet_id + 1


@pytest.mark.timeout(120)
def test_five_hundred_payloads_of_five_megabytes_are_refused_under_half_a_gigabyte_of_memory(
    tmp_path: Path, single_model: Path, memory_cage: tuple[tuple[str, ...], Path]
) -> None:
    prefix, group = memory_cage
    huge = os.urandom(5_000_000)
    good = [Event("dev-0", seq) for seq in range(1, 501)]
    table = pipeline("single", single_model)
    with HandBroker() as broker, Daemon(tmp_path, broker.port, table, prefix=prefix) as daemon:
        daemon.start()
        connection = broker.connection()
        packet_id = 1
        for event in good:
            packet_id = feed(connection, packet_id, "in/huge", huge)
            packet_id = feed(connection, packet_id, "in/dev-0", payload(event))
        until(lambda: len(connection.acks) == 1000, "everything is acknowledged", 60)
        assert books.check(good, of_kind(connection, "result"), "single").problems == []
        status = daemon.status()
        assert status["ledger"]["inputs"]["unrouted"]["refused"] == {"too_large": 500}
        assert status["ledger"]["balanced"]
        until(lambda: sum(1 + letter["suppressed"] for letter in of_kind(connection, "dlq")) == 500, "letters for all")
        assert {letter["size"] for letter in of_kind(connection, "dlq")} == {len(huge)}
        assert daemon.memory_bytes() < MEMORY_LIMIT_BYTES // 2
        assert killed_for_memory(group) == 0


@pytest.mark.timeout(120)
def test_payloads_just_below_the_limit_are_answered_and_recovered_under_half_a_gigabyte_of_memory(
    tmp_path: Path, single_model: Path, memory_cage: tuple[tuple[str, ...], Path]
) -> None:
    prefix, group = memory_cage
    events = [Event("dev-0", seq) for seq in range(1, 301)]
    table = pipeline("single", single_model)
    with HandBroker() as broker, Daemon(tmp_path, broker.port, table, prefix=prefix) as daemon:
        daemon.write_config(table, port=broker.port)  # a snapshot a minute: all is replayed
        daemon.start()
        connection = broker.connection()
        for event in events:
            feed(connection, event.seq, "in/dev-0", payload(event, noise=os.urandom(490_000).hex()))
        until(lambda: len(connection.acks) == len(events), "everything is acknowledged", 60)
        assert books.check(events, of_kind(connection, "result"), "single").problems == []
        assert daemon.memory_bytes() < MEMORY_LIMIT_BYTES * 3 // 4
        daemon.kill()
        daemon.start()
        again = broker.connection(2)
        feed(again, 1, "in/dev-0", payload(Event("dev-0", 301)))
        until(lambda: again.acks == [1], "it serves again", 60)
        assert daemon.status()["ledger"]["balanced"]
        assert daemon.memory_bytes() < MEMORY_LIMIT_BYTES * 3 // 4
        assert killed_for_memory(group) == 0


def of_kind(connection: HandConnection, kind: str) -> list[dict[str, Any]]:
    found = [body for topic, body in list(connection.published) if topic.startswith(f"{ROOT}/{kind}/")]
    return [json.loads(body) for body in found]


def killed_for_memory(group: Path) -> int:
    for line in (group / "memory.oom_control").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0
