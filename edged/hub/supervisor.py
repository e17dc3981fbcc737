"""The process that systemd sees: starts the workers, starts them again, ends them, and says how they are."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edged import __version__
from edged.errors import EdgedError, ExitCode
from edged.hub.configuration import make_state_dir, split_listen
from edged.hub.metering import HubMetrics, Report
from edged.hub.status_socket import HEALTH_PATH, METRICS_PATH, STATUS_PATH, socket_file
from edged.ops.clock import SystemClock
from edged.ops.logs import Log
from edged.ops.sdnotify import SystemdNotifier
from edged.ops.status_server import Page, StatusServer, open_loopback, open_unix

if TYPE_CHECKING:
    from edged.hub.settings import HttpTable, HubConfig
    from edged.ports import Clock

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
STABLE_AFTER_S = 60.0
SILENT_AFTER_S = 20.0  # without a report a worker is hung; it reports each second
START_WITHIN_S = 60.0
WATCH_EVERY_S = 1.0
STOP_WORKERS_S = 18.0  # longer than a worker needs to drain HTTP, then MQTT, and to close; below TimeoutStopSec
REPORT_MAX_BYTES = 4_000_000
WORKER = (sys.executable, "-P", "-m", "edged.hub.worker")


def backoff_s(failures: int) -> float:
    """Pause before a worker that ended so often in a row is started again."""
    return 0.0 if failures <= 0 else min(BACKOFF_FIRST_S * (1 << min(failures - 1, 10)), BACKOFF_MAX_S)


class Child:
    """One worker's life as the supervisor sees it."""

    def __init__(self, number: int, now_ns: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.report: Report | None = None
        self.heard_ns = now_ns
        self.starts = 0
        self.failures = 0

    @property
    def faults(self) -> tuple[tuple[str, str], ...]:
        if self.process is None or self.report is None:
            return (("worker_away", f"worker {self.number} is being started"),)
        return self.report.faults

    def hung(self, now_ns: int) -> bool:
        """Nothing heard for too long, or something is stuck in it: starting anew is the cure."""
        if self.process is None:
            return False
        patience_s = START_WITHIN_S if self.report is None else SILENT_AFTER_S
        return now_ns - self.heard_ns > patience_s * 1e9 or (self.report is not None and not self.report.moving)

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()


class Supervisor:
    """Everything of it lives in `run`."""

    def __init__(
        self,
        config: HubConfig,
        *,
        clock: Clock,
        log: Log,
        notifier: SystemdNotifier,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._config = config
        self._clock = clock
        self._log = log
        self._notifier = notifier
        self._command = tuple(command)
        self._children = [Child(number, clock.mono_ns()) for number in range(1, config.hub.workers + 1)]
        self._metrics = HubMetrics()
        self._stop = asyncio.Event()
        self._listening: socket.socket | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises `EdgedError`: a socket cannot be opened."""
        status = await self._open_sockets()
        try:
            async with asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(self._keep(child)) for child in self._children]
                watching = tasks.create_task(self._watch())
                await stop.wait()
                self._stop.set()
                self._notifier.stopping("draining")
                await self._end_workers()
                for task in (*keepers, watching):
                    task.cancel()
        finally:
            for child in self._children:
                child.kill()
            status.close()
            if self._listening is not None:
                self._listening.close()

    async def _open_sockets(self) -> StatusServer:
        config = self._config
        pages = {
            STATUS_PATH: Page("application/json", lambda: msgspec.json.encode(self.status())),
            HEALTH_PATH: Page("application/json", lambda: msgspec.json.encode(self._health())),
            METRICS_PATH: Page("text/plain; version=0.0.4", self._metrics.registry.prometheus_text),
        }
        server = StatusServer(pages)
        await asyncio.to_thread(make_state_dir, config)
        sockets = [await asyncio.to_thread(open_unix, socket_file(config.hub.state_dir))]
        if config.hub.metrics_listen:
            sockets.append(await asyncio.to_thread(open_loopback, *split_listen(config.hub.metrics_listen)))
        if config.http is not None:
            self._listening = await asyncio.to_thread(open_listening, config.http)
        await server.start(*sockets)
        return server

    # --- workers ---

    async def _keep(self, child: Child) -> None:
        """Start the worker, and again whenever it ends."""
        while not self._stop.is_set():
            begun_ns = child.heard_ns = self._clock.mono_ns()
            code = await self._one_life(child)
            if self._stop.is_set():
                return
            lived_s = (self._clock.mono_ns() - begun_ns) / 1e9
            child.failures = 1 if lived_s > STABLE_AFTER_S else child.failures + 1
            pause_s = backoff_s(child.failures)
            self._metrics.restarted(child.number)
            self._log.warning(
                "worker_ended", worker=child.number, exit=code, lived_s=round(lived_s, 1), again_in_s=pause_s
            )
            await asyncio.sleep(pause_s)

    async def _one_life(self, child: Child) -> int:
        listening = self._listening
        fds = () if listening is None else (listening.fileno(),)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(child.number),
            *map(str, fds),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=fds,
            env=_environment(),
            limit=REPORT_MAX_BYTES,
        )
        child.process, child.report = process, None
        child.starts += 1
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(OSError):  # it ended already: its exit code says more
                process.stdin.write(msgspec.json.encode(self._config) + b"\n")
                await process.stdin.drain()
            await self._listen(child, process.stdout)
            return await process.wait()
        finally:
            child.process = None

    async def _listen(self, child: Child, reports: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reports.readline()
                report = msgspec.json.decode(line, type=Report) if line else None
            except (ValueError, msgspec.DecodeError) as error:
                self._log.error("bad_report", worker=child.number, detail=str(error))
                child.kill()
                return
            if report is None:
                return
            child.report, child.heard_ns = report, self._clock.mono_ns()
            self._metrics.load(report.cells)

    async def _end_workers(self) -> None:
        """Close their standard input; what has not drained in time is killed: nothing is lost by it."""
        living = [child.process for child in self._children if child.process is not None]
        for process in living:
            assert process.stdin is not None
            process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WORKERS_S):
                await asyncio.gather(*(process.wait() for process in living))
        self._log.info("drained", killed=sum(process.returncode is None for process in living))

    # --- what it says ---

    async def _watch(self) -> None:
        """Kill what hangs, and tell systemd: the watchdog is fed by this round, which leaves no hung worker behind."""
        ready, healthy = False, None
        while True:
            now_ns = self._clock.mono_ns()
            for child in self._children:
                if child.hung(now_ns):
                    self._log.error("worker_hung", worker=child.number)
                    child.kill()
                    child.heard_ns = now_ns
            if not ready and all(child.report is not None for child in self._children):
                ready = True
                self._notifier.ready(self._line())
                self._log.info("started", workers=len(self._children), version=__version__)
            self._notifier.watchdog()
            self._notifier.status(self._line())
            faults = self.faults()
            if healthy != (not faults) and ready:
                healthy = not faults
                self._log.info("healthy" if healthy else "unhealthy", faults=",".join(code for code, _ in faults))
            await asyncio.sleep(WATCH_EVERY_S)

    def faults(self) -> list[tuple[str, str]]:
        """What is wrong with any worker, each thing once."""
        return list(dict.fromkeys(fault for child in self._children for fault in child.faults))

    def _health(self) -> dict[str, object]:
        faults = self.faults()
        return {"healthy": not faults, "faults": [{"code": code, "detail": detail} for code, detail in faults]}

    def status(self) -> dict[str, object]:
        """The document of `edged-hub status --json`."""
        receivers = {child.report.receiver for child in self._children if child.report is not None}
        return {
            "version": __version__,
            **self._health(),
            "receiver": next(iter(receivers - {""}), ""),
            "workers": [
                {
                    "number": child.number,
                    "pid": None if child.report is None else child.report.pid,
                    "starts": child.starts,
                    "answered": 0 if child.report is None else child.report.answered,
                    "inflight_batches": 0 if child.report is None else child.report.inflight_batches,
                    "inflight_bytes": 0 if child.report is None else child.report.inflight_bytes,
                    "faults": [code for code, _detail in child.faults],
                }
                for child in self._children
            ],
            "metrics": self._metrics.registry.snapshot(),
        }

    def _line(self) -> str:
        """One line for `systemctl status`."""
        faults = self.faults()
        answered = sum(child.report.answered for child in self._children if child.report is not None)
        state = "healthy" if not faults else ", ".join(sorted({code for code, _detail in faults}))
        return f"{state}; {len(self._children)} workers, {answered} answers"


def open_listening(table: HttpTable) -> socket.socket:
    """The socket for HTTP, which every worker inherits. Blocks. Raises `EdgedError`."""
    host, port = split_listen(table.listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise EdgedError(
            f"listening on {table.listen}: {error.strerror}", hint="choose another [http] listen"
        ) from None
    listening.setblocking(False)
    return listening


def _environment() -> dict[str, str]:
    """The workers find this package wherever the supervisor found it."""
    package = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))}


async def serve(config: HubConfig, command: Sequence[str] = WORKER) -> int:
    """`edged-hub run`: until SIGTERM or SIGINT."""
    clock = SystemClock()
    log = Log(clock)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = SystemdNotifier()
    try:
        await Supervisor(config, clock=clock, log=log, notifier=notifier, command=command).run(stop)
    except* EdgedError as group:
        raise group.exceptions[0] from None
    finally:
        notifier.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    log.info("stopped")
    return ExitCode.OK
