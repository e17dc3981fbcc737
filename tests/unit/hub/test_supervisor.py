"""Workers are started, started again with growing pauses, and killed when they hang."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.hub.status_socket import HEALTH_PATH, METRICS_PATH, ask, socket_file
from edged.hub.supervisor import START_WITHIN_S, Child, Supervisor, backoff_s
from edged.ops.logs import Log
from edged.ops.sdnotify import SystemdNotifier
from tests.doubles.clock import FakeClock
from tests.doubles.hub_rig import configured, until

BROKER = '[broker]\nurl = "mqtt://127.0.0.1:1"\n'
REPORT = (
    '{"worker":1,"pid":7,"receiver":"hub-1","faults":FAULTS,"moving":MOVING,'
    '"inflight_batches":1,"inflight_bytes":2,"answered":3,"cells":[]}'
)


def script(*lines: str) -> tuple[str, ...]:
    """A worker that writes these lines and then waits for its end."""
    body = "".join(f"print({line!r}, flush=True);" for line in lines)
    return (sys.executable, "-c", f"import sys;sys.stdin.readline();{body}sys.stdin.read()")


def report(faults: str = "[]", moving: str = "true") -> str:
    return REPORT.replace("FAULTS", faults).replace("MOVING", moving)


class Scene:
    def __init__(self, supervisor: Supervisor, clock: FakeClock, lines: list[str], stop: asyncio.Event) -> None:
        self.supervisor = supervisor
        self.clock = clock
        self.lines = lines
        self.stop = stop

    def said(self, word: str) -> int:
        return sum(word in line for line in self.lines)


@asynccontextmanager
async def supervised(folder: Path, command: tuple[str, ...]) -> AsyncIterator[Scene]:
    config = await configured(folder, BROKER)
    clock, lines, stop = FakeClock(), list[str](), asyncio.Event()
    log = Log(clock, write=lines.append, journal=True)
    supervisor = Supervisor(config, clock=clock, log=log, notifier=SystemdNotifier({}), command=command)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(supervisor.run(stop))
        try:
            yield Scene(supervisor, clock, lines, stop)
        finally:
            stop.set()
            await task


def test_pauses_between_starts_grow() -> None:
    assert [backoff_s(failures) for failures in (0, 1, 2, 3, 7, 50)] == [0.0, 0.5, 1.0, 2.0, 30.0, 30.0]


async def test_what_a_worker_reports_is_shown(tmp_path: Path) -> None:
    async with supervised(tmp_path, script(report('[["broker_away","refused"]]'))) as scene:
        await until(lambda: scene.said("unhealthy"), "the report is taken over")
        document = scene.supervisor.status()
        assert (document["healthy"], document["receiver"]) == (False, "hub-1")
        assert document["faults"] == [{"code": "broker_away", "detail": "refused"}]
        health = await ask(socket_file(str(tmp_path / "state")), HEALTH_PATH)
        assert b'"healthy":false' in health
        with pytest.raises(OSError, match="404"):
            await ask(socket_file(str(tmp_path / "state")), "/nothing")


async def test_a_worker_that_ends_is_started_again(tmp_path: Path) -> None:
    async with supervised(tmp_path, (sys.executable, "-c", "raise SystemExit(3)")) as scene:
        await until(lambda: scene.said("worker_ended") >= 2, "it ended twice")
        assert any("exit=3" in line for line in scene.lines)
        assert scene.supervisor.faults()[0][0] == "worker_away"


async def test_a_worker_that_never_reports_is_killed(tmp_path: Path) -> None:
    async with supervised(tmp_path, script()) as scene:
        child = scene.supervisor._children[0]
        await until(lambda: child.process is not None, "it runs")
        scene.clock.advance_s(START_WITHIN_S + 1)
        await until(lambda: scene.said("worker_hung") and child.starts == 2, "it was started anew")


async def test_a_worker_in_which_something_is_stuck_is_killed(tmp_path: Path) -> None:
    async with supervised(tmp_path, script(report(moving="false"))) as scene:
        await until(lambda: scene.said("worker_hung"), "it was killed")


async def test_a_worker_that_babbles_is_killed(tmp_path: Path) -> None:
    async with supervised(tmp_path, script("no report")) as scene:
        await until(lambda: scene.said("bad_report"), "it was killed")


@pytest.mark.allow_blocking(reason="prometheus_client reads /proc when it is imported")
async def test_numbers_are_served_on_the_socket(tmp_path: Path) -> None:
    async with supervised(tmp_path, script(report())) as scene:
        await until(lambda: scene.said("started"), "it runs")
        assert b"# HELP" in await ask(socket_file(str(tmp_path / "state")), METRICS_PATH)


async def test_a_state_directory_that_cannot_be_made_is_an_error_of_the_world(tmp_path: Path) -> None:
    config = await configured(tmp_path, BROKER)
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()
    clock = FakeClock()
    log = Log(clock, write=lambda _line: None, journal=True)
    supervisor = Supervisor(config, clock=clock, log=log, notifier=SystemdNotifier({}))
    with pytest.raises(EdgedError, match="state directory"):
        await supervisor.run(asyncio.Event())


def test_a_child_that_does_not_run_does_not_hang() -> None:
    child = Child(1, 0)
    assert not child.hung(10**15)
    child.kill()
    assert child.faults[0][0] == "worker_away"
