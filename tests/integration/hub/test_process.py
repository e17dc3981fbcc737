"""The whole program: supervisor, workers, a real broker and a real database; killed, starved, flooded, stopped."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from edged.errors import ExitCode
from edged.hub.cli import run as command_line
from tests.doubles.broker import Mosquitto, free_port, running
from tests.doubles.hub_process import HubProcess
from tests.doubles.hub_rig import Gateway, payload, until
from tests.doubles.postgres import Postgres
from tests.doubles.waiting import until as wait_until

ROWS = 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    yield from running(tmp_path, "max_queued_messages 100000")


def table(broker: Mosquitto) -> str:
    return f'[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'


class Fleet:
    """Gateways that send their batches again until they are home, as the real ones do."""

    def __init__(self, gateways: list[Gateway], batches: int) -> None:
        self.gateways = gateways
        self.left = {(each.gateway, 1 + number * ROWS) for each in gateways for number in range(batches)}
        self._by_name = {each.gateway: each for each in gateways}

    def _take_answers(self) -> None:
        for each in self.gateways:
            for ack in each.acks:
                if ack.status == "ok":
                    self.left.discard((each.gateway, ack.first))

    async def home(self, resend_s: float = 1.5, within_s: float = 45.0) -> None:
        """Send until everything is called home."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self.left:
            assert loop.time() < deadline, f"not home: {sorted(self.left)[:10]}"
            await self.send()
            again = loop.time() + resend_s
            while self.left and loop.time() < again:
                await asyncio.sleep(0.01)
                self._take_answers()

    async def send(self) -> None:
        for name, first in sorted(self.left, key=lambda batch: batch[1]):
            each = self._by_name[name]
            await each.send(payload(first, first + ROWS - 1, gateway=name))


@asynccontextmanager
async def fleet(port: int, gateways: int, batches: int) -> AsyncIterator[Fleet]:
    made = [Gateway(port, gateway=f"g{number}") for number in range(gateways)]
    for each in made:
        await each.__aenter__()
    try:
        yield Fleet(made, batches)
    finally:
        for each in made:
            await each.__aexit__(None, None, None)


def exactly_once(hub: HubProcess, gateways: int, batches: int) -> None:
    books = hub.ledger()
    assert len(books) == gateways
    for each in books:
        assert (each["rows"], each["missing"], each["quarantined"]) == (batches * ROWS, 0, 0)


async def test_everything_comes_home_with_sqlite_and_a_worker_that_is_killed_in_the_middle(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with HubProcess(tmp_path / "hub", table(broker), measured=True) as hub:
        await asyncio.to_thread(hub.start)
        await asyncio.to_thread(hub.healthy)
        async with fleet(broker.port, gateways=3, batches=10) as some:
            await some.send()
            (pid,) = await asyncio.to_thread(hub.worker_pids)
            os.kill(pid, signal.SIGKILL)
            await some.home()
        status = await asyncio.to_thread(hub.status)
        assert status["workers"][0]["starts"] == 2
        await asyncio.to_thread(exactly_once, hub, 3, 10)
        metrics = (await asyncio.to_thread(hub.page, "/metrics")).decode()
        assert 'edged_hub_worker_restarts_total{worker="1"} 1.0' in metrics
        assert await asyncio.to_thread(hub.stop) == ExitCode.OK
        assert "drained killed=0" in hub.log
        hub.notify.read()
        assert "STOPPING=1" in hub.notify.lines
        assert "WATCHDOG=1" in hub.notify.lines


@pytest.mark.slow
async def test_four_workers_killed_at_will_change_nothing_in_the_result_with_postgresql(
    tmp_path: Path, broker: Mosquitto, postgres: Postgres
) -> None:
    url = postgres.url(await asyncio.to_thread(postgres.database))
    chance = random.Random(7)
    with HubProcess(tmp_path / "hub", table(broker), database=url, workers=4) as hub:
        await asyncio.to_thread(hub.start)
        await asyncio.to_thread(hub.healthy)
        async with fleet(broker.port, gateways=5, batches=20) as some, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(some.home())
            for _ in range(6):
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                pids = await asyncio.to_thread(hub.worker_pids)
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
            await sending
        await asyncio.to_thread(exactly_once, hub, 5, 20)


async def test_it_starts_without_broker_and_database_and_serves_when_they_come(
    tmp_path: Path, own_postgres: Postgres
) -> None:
    server, broker = own_postgres, Mosquitto(tmp_path)
    url = server.url(await asyncio.to_thread(server.database))
    await asyncio.to_thread(server.stop)
    try:
        with HubProcess(tmp_path / "hub", table(broker), database=url) as hub:
            await asyncio.to_thread(hub.start)
            status = await asyncio.to_thread(hub.status)
            assert {fault["code"] for fault in status["faults"]} == {"database_away", "broker_away"}
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(broker.start)
            await asyncio.to_thread(hub.healthy)
            async with fleet(broker.port, gateways=1, batches=2) as some:
                await some.home()
                await asyncio.to_thread(server.stop)
                some.left = {("g0", 1 + 2 * ROWS)}
                await some.send()
                await until(lambda: any(ack.reason == "database_away" for ack in some.gateways[0].acks), "patience")
                await asyncio.to_thread(server.start)
                await some.home()
            await asyncio.to_thread(hub.healthy)
            await asyncio.to_thread(exactly_once, hub, 1, 3)
    finally:
        await asyncio.to_thread(broker.kill)


async def test_a_worker_drains_while_batches_keep_coming(tmp_path: Path, broker: Mosquitto) -> None:
    with HubProcess(tmp_path / "hub", table(broker), measured=True) as hub:
        await asyncio.to_thread(hub.start)
        await asyncio.to_thread(hub.healthy)
        async with fleet(broker.port, gateways=2, batches=40) as some, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(some.home())
            await until(lambda: len(some.left) < 75, "they are coming in")
            assert await asyncio.to_thread(hub.stop) == ExitCode.OK
            await asyncio.to_thread(hub.start)
            await sending
        await asyncio.to_thread(exactly_once, hub, 2, 40)
        assert "unhandled" not in hub.log
        assert "Traceback" not in hub.log


async def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path, broker: Mosquitto) -> None:
    with HubProcess(tmp_path / "hub", table(broker), workers=2) as hub:
        await asyncio.to_thread(hub.start)
        pids = await asyncio.to_thread(hub.worker_pids)
        hub.signal(signal.SIGKILL)
        await until(lambda: not any(_lives(pid) for pid in pids), "the workers have ended")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_two_workers_serve_one_http_port_and_their_numbers_are_shown_together(tmp_path: Path) -> None:
    port, token = free_port(), "0123456789abcdef0123456789abcdef"
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "tokens").write_text(f"{token} lyon/gw-1\n")
    http = f'[http]\nlisten = "127.0.0.1:{port}"\ntokens_file = "tokens"\n'
    headers = {"Authorization": f"Bearer {token}"}
    with HubProcess(tmp_path / "hub", http, workers=2) as hub:
        await asyncio.to_thread(hub.start)
        await asyncio.to_thread(hub.healthy)
        base = f"http://127.0.0.1:{port}"
        for first in range(1, 101, 5):
            async with (
                aiohttp.ClientSession(base) as client,  # a connection each: the kernel chooses the worker
                client.post("/v1/sync/batch", data=payload(first, first + 4), headers=headers) as response,
            ):
                assert (await response.json())["status"] == "ok"
        async with aiohttp.ClientSession(base) as client:
            await _until_metrics(client, headers, 100)
        books = await asyncio.to_thread(hub.ledger)
    assert [(each["rows"], each["missing"]) for each in books] == [(100, 0)]


async def _until_metrics(client: aiohttp.ClientSession, headers: dict[str, str], rows: int) -> None:
    """Until the numbers of all workers, which report each second, say so many rows."""
    async with asyncio.timeout(20):
        while True:
            async with client.get("/metrics", headers=headers) as response:
                text = await response.text()
            counts = [float(line.split()[-1]) for line in text.splitlines() if line.startswith("edged_hub_rows_total")]
            if sum(counts) == rows:
                return
            await asyncio.sleep(0.1)


async def test_memory_is_bounded_under_a_flood(tmp_path: Path, broker: Mosquitto) -> None:
    """400 MB of batches that are no batches, and real ones between them."""
    with HubProcess(tmp_path / "hub", table(broker)) as hub:
        await asyncio.to_thread(hub.start)
        await asyncio.to_thread(hub.healthy)
        before = sum((await asyncio.to_thread(hub.memory_bytes, "VmRSS")).values())
        async with Gateway(broker.port, gateway="flood") as flood, fleet(broker.port, gateways=1, batches=10) as some:
            wrong = payload(1, 5, gateway="flood", sha256="0" * 64)
            large = wrong + bytes(1_040_000 - len(wrong))
            for _ in range(8):
                await flood.publish(f"{flood.root}/sync/alarm/batch", [large] * 50)
            await some.home()
            await flood.acked(400)
            reasons = {ack.reason for ack in flood.acks}
        highest = sum((await asyncio.to_thread(hub.memory_bytes)).values())
    assert reasons <= {"bad_checksum", "busy"}
    assert highest - before < 120_000_000, f"{(highest - before) / 1e6:.0f} MB more than at rest"


# --- operators ---


def test_an_operator_sees_what_runs(tmp_path: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with HubProcess(tmp_path / "hub", table(broker), hub=f'metrics_listen = "{listen}"') as hub:
        arguments = ["--config", str(hub.config)]
        assert command_line(["migrate", *arguments]) == ExitCode.OK
        assert command_line(["check", *arguments]) == ExitCode.OK
        assert capsys.readouterr().out.endswith("ok\n")
        assert command_line(["status", *arguments]) == ExitCode.UNAVAILABLE
        assert "systemctl status" in capsys.readouterr().err
        hub.start().healthy()
        assert command_line(["status", *arguments]) == ExitCode.OK
        shown = capsys.readouterr().out
        assert "hub       healthy" in shown
        assert "worker 1  works" in shown
        assert command_line(["status", "--json", *arguments]) == ExitCode.OK
        assert '"healthy": true' in capsys.readouterr().out
        with urllib.request.urlopen(f"http://{listen}/metrics") as response:
            assert b'edged_hub_up{what="database",worker="1"} 1.0' in response.read()


def test_a_port_that_is_taken_ends_the_start_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "tokens").write_text("0123456789abcdef0123456789abcdef lyon/gw-1\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        http = f'[http]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\ntokens_file = "tokens"\n'
        with HubProcess(tmp_path / "hub", http) as hub:
            assert hub.launch().wait() == ExitCode.TEMPORARY
            assert "Traceback" not in hub.log
            assert "listening on" in hub.log


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_started_anew(tmp_path: Path, broker: Mosquitto) -> None:
    with HubProcess(tmp_path / "hub", table(broker)) as hub:
        hub.start()
        (pid,) = hub.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: hub.status()["workers"][0]["starts"] == 2, "it was started anew", 40)
        assert "worker_hung" in hub.log
