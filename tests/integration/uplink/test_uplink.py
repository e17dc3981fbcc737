"""The uplink's process between a store, a real broker or HTTP, and a receiver that misbehaves."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.messages import Unit
from edged.ports import Committed
from edged.store.opening import open_store
from edged.store.values import StoreSettings
from edged.sync.protocol import Fork
from edged.uplink.supervisor import COMMAND
from tests.doubles.broker import Mosquitto
from tests.doubles.certificates import Authority
from tests.doubles.chaos_link import ChaosLink, Shape
from tests.doubles.receiver import BrokerSide, Fault, HttpSide, Receiver
from tests.doubles.uplink_rig import CLOCK, UplinkRig
from tests.unit.store.samples import results


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder, "max_inflight_messages 100", "max_packet_size 2000000") as broker:
        yield broker


@pytest.fixture
def hub() -> Receiver:
    return Receiver()


@pytest.fixture(params=["mqtt 5", "mqtt 3.1.1", "http"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, hub: Receiver) -> Iterator[UplinkRig]:
    """An uplink on each way to the hub."""
    kind, _, protocol = request.param.partition(" ")
    if kind == "http":
        with HttpSide(hub) as side:
            yield UplinkRig(tmp_path, f"http://127.0.0.1:{side.port}/below")
        return
    broker = request.getfixturevalue("broker")
    with BrokerSide(broker.port, hub):
        yield UplinkRig(tmp_path, f"mqtt://127.0.0.1:{broker.port}", protocol=protocol)


@pytest.fixture
def by_broker(broker: Mosquitto, hub: Receiver, tmp_path: Path) -> Iterator[UplinkRig]:
    with BrokerSide(broker.port, hub):
        yield UplinkRig(tmp_path, f"mqtt://127.0.0.1:{broker.port}")


async def test_everything_comes_home_once_old_and_new(rig: UplinkRig, hub: Receiver) -> None:
    rig.next |= {"alarm": 11, "result": 5_001, "health": 21}
    rig._save()
    async with rig:
        await rig.until(rig.all_home, "the backlog home")
        rig.make("result", 100)
        rig.make("health", 1)
        newest = rig.make("alarm", 1)
        await rig.until(rig.all_home, "what was made since")
        await rig.until(lambda: rig.status and not any(rig.status.lag_rows.values()), "a status without lag")

    assert (hub.has("alarm"), hub.has("result"), hub.has("health")) == (newest, 5_100, 21)
    assert hub.twice == 0
    assert rig.active == set()
    assert rig.uplink.receiver == "hub-1"
    assert rig.uplink.statistics().crashes == 0
    assert rig.uplink.statistics().last_exit == 0
    first = hub.arrivals[0].header
    assert (first.stream, first.first) == ("alarm", 1)


async def test_an_alarm_is_at_the_hub_within_a_blink(rig: UplinkRig, hub: Receiver) -> None:
    async with rig:
        await rig.until(lambda: hub.hellos, "a hello")
        for _ in range(5):
            loop = asyncio.get_running_loop()
            made = loop.time()
            number = rig.make("alarm", 1)
            await rig.until(lambda n=number: hub.when("alarm", n), "the alarm at the hub")  # type: ignore[misc]
            assert loop.time() - made < 1.0


async def test_a_killed_uplink_is_started_again_and_nothing_is_lost_or_doubled(rig: UplinkRig, hub: Receiver) -> None:
    rig.next["result"] = 60_001
    rig._save()
    async with rig:
        for _ in range(3):
            home = hub.has("result")
            await rig.until(lambda before=home: hub.has("result") > before, "progress")  # type: ignore[misc]
            pid = rig.uplink.statistics().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await rig.until(lambda gone=pid: rig.uplink.statistics().pid not in (None, gone), "a new process")  # type: ignore[misc]
            rig.make("result", 1_000)
        await rig.until(rig.all_home, "everything home")

    assert hub.has("result") == 63_000
    assert rig.uplink.statistics().crashes == 3
    assert rig.uplink.statistics().last_exit == 0


async def test_a_hub_that_is_away_comes_back_to_the_rest(rig: UplinkRig, hub: Receiver) -> None:
    hub.hello_fault = lambda _: Fault("retry", "database_away", 300)
    rig.next["result"] = 2_001
    rig._save()
    async with rig:
        await rig.until(lambda: "upstream_slow" in rig.active, "the reason")
        assert hub.arrivals == []
        hub.hello_fault = lambda _: Fault("commit")
        hub.fault = lambda header: (
            Fault("retry", "busy", 200) if len(hub.hellos) and not hub.arrivals else Fault("commit")
        )
        await rig.until(lambda: rig.status and rig.status.counters["retries"] > 1, "retries")
        hub.fault = lambda _: Fault("commit")
        await rig.until(rig.all_home, "everything home")

    assert rig.active == set()
    assert hub.twice == 0


async def test_a_refused_batch_is_kept_given_up_and_its_tombstone_sent(
    rig: UplinkRig, hub: Receiver, tmp_path: Path
) -> None:
    hub.fault = lambda header: (
        Fault("reject", "bad_body") if header.first == 1 and header.kind == "rows" else Fault("commit")
    )
    rig.next["result"] = 3_001
    rig._save()
    async with rig:
        await rig.until(rig.all_home, "everything home")

    ((stream, first, last, reason),) = rig.rejected
    assert (stream, first, reason) == ("result", 1, "bad_body")
    assert hub.lost == {"result": ((1, last),)}
    (kept,) = (tmp_path / "quarantine").iterdir()
    assert kept.name == f"00000001-result-1-{last}-bad_body.batch"
    assert ("upstream_rejecting", True) in [(code, on) for code, on, _ in rig.reasons]


async def test_a_link_that_breaks_is_repaired_and_the_rest_sent(
    by_broker: UplinkRig, broker: Mosquitto, hub: Receiver
) -> None:
    by_broker.next["result"] = 40_001
    by_broker._save()
    async with by_broker as rig:
        await rig.until(lambda: hub.has("result"), "progress")
        await broker.restart()
        await rig.until(lambda: "upstream_away" in rig.active, "the reason")
        rig.make("result", 500)
        await rig.until(rig.all_home, "everything home")

    assert hub.has("result") == 40_500
    assert rig.active == set()


async def test_hub_connections_that_break_in_the_middle_cost_nothing(tmp_path: Path, hub: Receiver) -> None:
    hub.fault = lambda _: Fault("commit", delay_s=0.05)
    with HttpSide(hub) as side:
        rig = UplinkRig(tmp_path, f"http://127.0.0.1:{side.port}", window=2)
        rig.next["result"] = 100_001
        rig._save()
        async with rig:
            await rig.until(lambda: hub.has("result"), "progress")
            side.down = True
            await rig.until(lambda: "upstream_away" in rig.active, "the reason")
            side.down = False
            hub.fault = lambda header: Fault("mute" if header.last % 3 == 0 else "commit", delay_s=0.02)
            await rig.until(lambda: "upstream_away" not in rig.active, "the end of the reason")
            await rig.until(lambda: "upstream_away" in rig.active, "an answer that is missing")
            hub.fault = lambda _: Fault("commit")
            await rig.until(rig.all_home, "everything home")

    assert hub.has("result") == 100_000


async def test_two_receivers_answer_and_the_first_one_counts(
    by_broker: UplinkRig, broker: Mosquitto, hub: Receiver
) -> None:
    other = Receiver("hub-2")
    async with by_broker as rig:
        rig.make("result", 100)
        await rig.until(rig.all_home, "everything home")
        with BrokerSide(broker.port, other):
            rig.make("result", 100)
            await rig.until(lambda: "receiver_foreign" in rig.active, "the reason")
            await rig.until(rig.all_home, "everything home")
    assert hub.has("result") == 200
    assert rig.uplink.receiver == "hub-1"


async def test_the_receiver_that_was_kept_stays_the_receiver_of_the_next_process(
    by_broker: UplinkRig, broker: Mosquitto, hub: Receiver
) -> None:
    async with by_broker as rig:
        rig.make("result", 1)
        await rig.until(rig.all_home, "everything home")
        await rig.until(lambda: rig.uplink.receiver, "a status")
        hub.name = "hub-2"
        pid = rig.uplink.statistics().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        rig.make("result", 1)
        await rig.until(lambda: "receiver_foreign" in rig.active, "the reason")
        assert hub.has("result") == 1


async def test_another_history_is_told_once_and_nothing_is_sent(by_broker: UplinkRig, hub: Receiver) -> None:
    hub.forks = (Fork("epoch-1", 51),)
    by_broker.next["result"] = 101
    by_broker._save()
    async with by_broker as rig:
        await rig.until(lambda: rig.forks, "the fork")
        await rig.until(lambda: rig.status and rig.status.state == "halted", "the state")
    assert rig.forks == [("epoch-1", 51)]
    assert hub.arrivals == []


async def test_https_with_a_token_and_our_certificate(tmp_path: Path, hub: Receiver) -> None:
    authority = Authority(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("hub"))
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = authority.issue("gateway")
    token = tmp_path / "token"
    token.write_text("wrong\n")
    with HttpSide(hub, token="secret", context=context) as side:
        rig = UplinkRig(
            tmp_path,
            f"https://127.0.0.1:{side.port}",
            ca_file=str(authority.ca_file),
            cert_file=str(certificate),
            key_file=str(key),
            token_file=str(token),
        )
        async with rig:
            rig.make("result", 10)
            await rig.until(lambda: "upstream_refused" in rig.active, "the reason")
            token.write_text("secret\n")
            await rig.until(rig.all_home, "everything home")
        assert rig.active == set()


async def test_a_certificate_of_nobody_we_know_is_refused(tmp_path: Path, hub: Receiver) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path / "theirs").issue("hub"))
    ours = Authority(tmp_path / "ours")
    with HttpSide(hub, context=context) as side:
        rig = UplinkRig(tmp_path, f"https://127.0.0.1:{side.port}", ca_file=str(ours.ca_file))
        async with rig:
            await rig.until(lambda: "upstream_away" in rig.active, "the reason")
    assert "certificate is refused" in next(detail for code, _, detail in rig.reasons if code == "upstream_away")
    assert hub.hellos == []


async def test_an_uplink_that_keeps_dying_is_a_reason_of_its_own(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit(3)")
    async with UplinkRig(tmp_path, "mqtt://127.0.0.1:1", command=command) as rig:
        await rig.until(lambda: "uplink_failed" in rig.active, "the reason")

    assert rig.uplink.statistics().crashes >= 3
    assert rig.uplink.statistics().last_exit == 3


async def test_an_uplink_that_speaks_another_language_is_ended_and_said_aloud(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; print('hello?', flush=True); sys.stdin.read()")
    async with UplinkRig(tmp_path, "mqtt://127.0.0.1:1", command=command) as rig:
        await rig.until(lambda: any("uplink_not_understood" in line for line in rig.logged), "the log")
        await rig.until(lambda: rig.uplink.statistics().last_exit == -signal.SIGKILL, "its end")


async def test_an_uplink_that_ignores_the_polite_end_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.readline(); "
        """print('{"is":"reason","code":"deaf","active":true,"detail":""}', flush=True); time.sleep(99)"""
    )
    async with UplinkRig(tmp_path, "mqtt://127.0.0.1:1", command=(sys.executable, "-c", script)) as rig:
        await rig.until(lambda: "deaf" in rig.active, "its start")
    assert rig.uplink.statistics().last_exit == -signal.SIGKILL


async def test_a_command_that_does_not_exist_is_tried_again(tmp_path: Path) -> None:
    async with UplinkRig(tmp_path, "mqtt://127.0.0.1:1", command=("/nowhere/python",)) as rig:
        await rig.until(lambda: "uplink_failed" in rig.active, "the reason")
    assert rig.uplink.statistics().starts == 0


async def test_the_uplink_ends_when_the_daemon_is_gone(by_broker: UplinkRig, hub: Receiver) -> None:
    """A killed daemon closes its ends of the pipes: cancelling stands for it here."""
    async with by_broker as rig:
        await rig.until(lambda: hub.hellos, "a hello")
        assert rig.uplink._pipe is not None
        rig.uplink._pipe.close()
        await rig.until(lambda: rig.uplink.statistics().last_exit == 0, "its end")


async def test_nonsense_for_an_answer_is_counted_and_asked_again(by_broker: UplinkRig, hub: Receiver) -> None:
    hub.hello_fault = lambda _: Fault("babble")
    async with by_broker as rig:
        await rig.until(lambda: hub.hellos, "a hello")
        hub.hello_fault = lambda _: Fault("commit")
        await rig.until(lambda: len(hub.hellos) > 1, "another hello")
        hub.fault = lambda header: Fault("babble") if header.stream == "alarm" else Fault("commit")
        rig.make("alarm", 1)
        await rig.until(lambda: rig.status and rig.status.counters["answers_not_understood"] == 2, "the count")
        rig.make("result", 1)
        await rig.until(lambda: rig.home.get("result"), "the result home")


async def test_a_store_that_cannot_be_read_ends_the_process_which_is_started_again(
    by_broker: UplinkRig, hub: Receiver, tmp_path: Path
) -> None:
    async with by_broker as rig:
        await rig.until(lambda: hub.hellos, "a hello")
        (tmp_path / "store.json").rename(tmp_path / "away")
        rig.uplink.news({"result": 50}, urgent=True)
        await rig.until(lambda: rig.uplink.statistics().last_exit == 74, "its end")
        rig.make("result", 10)
        await rig.until(rig.all_home, "everything home")


async def test_a_disk_that_takes_no_copy_of_a_refused_batch_does_not_stop_the_line(
    by_broker: UplinkRig, hub: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "quarantine").write_text("in the way")
    hub.fault = lambda header: Fault("reject" if header.kind == "rows" and header.first == 1 else "commit", "bad_body")
    async with by_broker as rig:
        rig.make("result", 2)
        await rig.until(rig.all_home, "everything home")
    assert rig.rejected == [("result", 1, 2, "bad_body")]


async def test_news_for_an_uplink_that_does_not_read_take_no_memory(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-c",
        "import sys, time; sys.stdin.readline(); time.sleep(99)",
    )
    async with UplinkRig(tmp_path, "mqtt://127.0.0.1:1", command=command) as rig:
        await rig.until(lambda: rig.uplink._pipe, "its start")
        pipe = rig.uplink._pipe
        assert pipe is not None
        for number in range(20_000):
            rig.uplink.news({"alarm": number}, urgent=True)
        assert pipe.get_write_buffer_size() < 200_000


async def test_a_line_without_an_end_ends_the_uplink(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-c",
        "import sys, time; sys.stdout.write('x' * 300_000); sys.stdout.flush(); time.sleep(99)",
    )
    async with UplinkRig(tmp_path, "mqtt://127.0.0.1:1", command=command) as rig:
        await rig.until(lambda: any("longer than" in line for line in rig.logged), "the log")


async def test_a_cancelled_supervisor_leaves_no_process_behind(by_broker: UplinkRig, hub: Receiver) -> None:
    task = asyncio.get_running_loop().create_task(by_broker.uplink.run())
    await by_broker.until(lambda: hub.hellos, "a hello")
    pid = by_broker.uplink.statistics().pid
    assert pid is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await by_broker.uplink.stop()  # nothing to stop: no complaint


async def test_reasons_of_a_process_that_died_last_until_its_successor_knows_better(
    by_broker: UplinkRig, broker: Mosquitto, hub: Receiver
) -> None:
    hub.hello_fault = lambda _: Fault("retry", "database_away", 60_000)
    async with by_broker as rig:
        await rig.until(lambda: "upstream_slow" in rig.active, "the reason")
        pid = rig.uplink.statistics().pid
        assert pid is not None
        hub.hello_fault = lambda _: Fault("commit")
        os.kill(pid, signal.SIGKILL)
        await rig.until(lambda: rig.status and rig.status.state == "open", "the next process at work")
        await rig.until(lambda: not rig.active, "the end of the reason")


async def test_a_broker_that_denies_publishing_is_a_reason_until_it_allows_it(tmp_path: Path, hub: Receiver) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    rights = folder / "acl"
    rights.write_text("topic read edged/#\n")
    with Mosquitto(folder, f"acl_file {rights}") as broker:
        async with UplinkRig(tmp_path, f"mqtt://127.0.0.1:{broker.port}", protocol="5") as rig:
            await rig.until(lambda: "upstream_refused" in rig.active, "the reason")
            assert "denies publishing" in next(detail for code, _, detail in rig.reasons if code == "upstream_refused")


async def test_a_broker_that_takes_only_small_packets_gets_small_batches(tmp_path: Path, hub: Receiver) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with Mosquitto(folder, "max_packet_size 4000") as broker, BrokerSide(broker.port, hub):
        rig = UplinkRig(tmp_path, f"mqtt://127.0.0.1:{broker.port}", protocol="5")
        rig.next["health"] = 1_001
        rig._save()
        async with rig:
            await rig.until(rig.all_home, "everything home")
    assert max(arrival.size_bytes for arrival in hub.arrivals) < 4_000


async def test_the_daemons_own_store_is_read_while_it_is_written(
    by_broker: UplinkRig, hub: Receiver, tmp_path: Path
) -> None:
    def trouble(code: str, active: bool, detail: str) -> None:
        raise AssertionError(f"{code} {active} {detail}")

    def fail(error: BaseException) -> None:
        raise AssertionError from error

    opened = await open_store(StoreSettings(tmp_path), clock=CLOCK, on_trouble=trouble, on_failure=fail)
    journal = opened.journal

    async def commit(first: int, rows: int) -> None:
        done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        unit = Unit(1, first, None, results(first, rows), [], b"{}", 1_790_000_000_000, 1, "boot-1", "synced")
        journal.submit(unit, done.set_result)
        await done

    await commit(1, 2_000)
    rig = UplinkRig(tmp_path, by_broker.uplink._start.upstream.url, command=COMMAND)
    async with rig:
        await rig.until(lambda: hub.has("result") == 2_000, "the backlog home")
        await commit(2_001, 50)
        rig.uplink.news({"result": 2_051})
        await rig.until(lambda: rig.home.get("result") == ((1, 2_050),), "the rest home")
    await journal.close()
    assert hub.twice == 0


@pytest.mark.slow
async def test_alarms_overtake_a_weeks_backlog_on_a_slow_line(broker: Mosquitto, hub: Receiver, tmp_path: Path) -> None:
    line = Shape(delay_s=0.02, rate_bytes_s=32_000, queue_bytes=64_000)  # 256 kbit/s, and a modem that hides it
    with ChaosLink(broker.port, line) as link, BrokerSide(broker.port, hub):
        rig = UplinkRig(tmp_path, f"mqtt://127.0.0.1:{link.port}", rate_limit_kbit_s=10_000)
        rig.next["health"] = 1_000_000  # 100 bytes a row, compressed
        rig._save()
        async with rig:
            await rig.until(lambda: hub.has("health") > 1_500, "the backlog flowing")
            waits = []
            for _ in range(15):
                await asyncio.sleep(random.random())  # alarms know nothing of batches
                made = time.monotonic()
                number = rig.make("alarm", 1)
                await rig.until(lambda n=number: hub.when("alarm", n), "the alarm at the hub")  # type: ignore[misc]
                waits.append((hub.when("alarm", number) or 0.0) - made)
    assert max(waits) < 2.0
    assert sorted(waits)[len(waits) // 2] < 0.5
    assert hub.has("health") > 2_000
