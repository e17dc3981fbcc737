"""One worker process: receives, commits, answers. Started by the supervisor only.

`python -m edged.hub.worker NUMBER [FD]`, FD being the socket to serve HTTP on. Its configuration comes on standard
input, its reports leave on standard output, one line of JSON each; when standard input ends, so does it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.errors import EdgedError, ExitCode
from edged.hub.broker import BrokerLink, Surroundings
from edged.hub.configuration import database_url
from edged.hub.keeper import Keeper
from edged.hub.metering import HubMetrics, Report
from edged.hub.receiver import Parts, Receiver
from edged.hub.settings import HubConfig
from edged.hub.status_socket import METRICS_PATH, ask, socket_file
from edged.ops.clock import SystemClock
from edged.ops.logs import Log, LogBridge

if TYPE_CHECKING:
    from edged.hub.inference import InferenceService
    from edged.hub.inference_link import InferenceLink
    from edged.hub.keeper import Open, Probe
    from edged.hub.ports import Database
    from edged.hub.web import Faults, HttpSide
    from edged.ports import Clock

REPORT_EVERY_S = 1.0
DRAIN_S = 6.0
STUCK_FACTOR = 3  # times the commit timeout in hand: then something hangs that no timeout reached
CONFIG_MAX_BYTES = 4_000_000
STATEMENT_SHARE = 0.75  # of the commit timeout: the database gives up first, and says why
REPORT_BACKLOG_BYTES = 262_144  # the supervisor does not read: leave reports out rather than gather them


class Doors(NamedTuple):
    """How a worker reaches its database. remembered: its identity when it was open the last time, or ""."""

    open_database: Open
    probe: Probe
    remembered: str = ""


class Worker:
    """The parts of a worker, connected."""

    def __init__(self, config: HubConfig, number: int, doors: Doors, clock: Clock, log: Log) -> None:
        self._config = config
        self._number = number
        self._clock = clock
        self._log = log
        self._service: InferenceService | None = None
        self.metrics = HubMetrics(str(number))
        self.keeper = Keeper(doors.open_database, doors.probe, clock, log, remembered=doors.remembered)
        shares = config.broker is None or config.broker.shared
        self.receiver = Receiver(
            Parts(
                self.keeper,
                config.gateways,
                config.hub.sites,
                config.limits,
                config.hub.workers if shares else 1,
                clock,
                log,
                self.metrics,
                random.random,
            )
        )
        self.link = self._link()
        self.inference = self._inference()
        self.web: HttpSide | None = None

    def _link(self) -> BrokerLink | None:
        config = self._config
        return None if config.broker is None else BrokerLink(config.broker, self.receiver, self._around())

    def _inference(self) -> InferenceLink | None:
        """Threads begin here that `run` ends."""
        config = self._config
        if config.broker is None or config.inference is None:
            return None
        from edged.hub.inference import InferenceService
        from edged.hub.inference_link import InferenceLink
        from edged.hub.inference_models import ModelFolder

        table = config.inference
        self._service = InferenceService(
            config.broker.root,
            config.gateways,
            config.hub.sites,
            ModelFolder(table, self._clock.mono_ns),
            self._clock,
            self.metrics,
            threads=table.threads,
            max_waiting=table.max_waiting,
        )
        return InferenceLink(config.broker, self._service, self._around())

    def _around(self) -> Surroundings:
        config = self._config
        return Surroundings(
            self._number,
            config.hub.sites,
            config.limits.max_inflight_batches,
            self._clock,
            self._log,
            self.metrics,
            random.random,
        )

    async def run(self, listening: socket.socket | None, report: Callable[[Report], None], stop: asyncio.Event) -> None:
        """Serve until `stop`, then answer what is in hand."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.keeper.run()), tasks.create_task(self._report(report))]
            link = tasks.create_task(self.link.run()) if self.link is not None else None
            if self.inference is not None:
                running.append(tasks.create_task(self.inference.run()))
            if listening is not None:
                running.append(tasks.create_task(self._serve_web(listening)))
            await stop.wait()
            if self.web is not None:
                await self.web.close()
            if self.link is not None and link is not None:
                self.link.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        await asyncio.wait({link})
                link.cancel()
            for task in running:
                task.cancel()
        if self._service is not None:
            await asyncio.to_thread(self._service.close)
        await self.keeper.close()

    async def _serve_web(self, listening: socket.socket) -> None:
        from edged.hub.web import Behind, HttpSide

        assert self._config.http is not None
        path = socket_file(self._config.hub.state_dir)
        behind = Behind(
            self.receiver,
            self.faults,
            lambda: ask(path, METRICS_PATH),
            self._clock,
            self._log,
            self.metrics,
        )
        web = HttpSide(self._config.http, behind)
        await web.start(listening)
        self.web = web
        await web.run()

    # --- what it says about itself ---

    def faults(self) -> Faults:
        """Code and detail of everything that keeps it from its work."""
        found: list[tuple[str, str]] = []
        if self.keeper.fault:
            found.append(("database_away", self.keeper.fault))
        elif self.keeper.troubled_s():
            found.append(("database_slow", f"commits take too long, for {self.keeper.troubled_s():.0f} s"))
        if self.link is not None and self.link.fault:
            found.append(("broker_away", self.link.fault))
        elif self.link is not None and self.link.denied:
            found.append(("answer_denied", self.link.denied))
        if self.inference is not None and self.inference.fault:
            found.append(("inference_away", self.inference.fault))
        return tuple(found)

    def _report_now(self) -> Report:
        door, codes = self.receiver.door, {code for code, _detail in self.faults()}
        self.metrics.holding(door.batches, door.size_bytes)
        self.metrics.up("database", "database_away" not in codes)
        self.metrics.up("broker", None if self.link is None else "broker_away" not in codes)
        return Report(
            worker=self._number,
            pid=os.getpid(),
            receiver=self.keeper.receiver,
            faults=self.faults(),
            moving=self.receiver.oldest_s() < STUCK_FACTOR * self._config.limits.commit_timeout_s,
            inflight_batches=door.batches,
            inflight_bytes=door.size_bytes,
            answered=self.metrics.answered(),
            cells=self.metrics.dump(),
        )

    async def _report(self, report: Callable[[Report], None]) -> None:
        before: Faults | None = None
        since_s = 0.0
        while True:
            faults = self.faults()
            if faults != before or since_s >= REPORT_EVERY_S:
                report(self._report_now())
                before, since_s = faults, 0.0
            await asyncio.sleep(REPORT_EVERY_S / 4)
            since_s += REPORT_EVERY_S / 4


# --- the process -------------------------------------------------------------------------------------------------


async def serve(
    number: int, listening_fd: int | None, report_fd: int, doors_for: Callable[[HubConfig, Log], Doors]
) -> int:
    """Everything between the configuration on standard input and its end."""
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    log = Log(clock)
    logging.getLogger().addHandler(LogBridge(log))
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches the whole group: the supervisor decides
    reader = asyncio.StreamReader(limit=CONFIG_MAX_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    config = msgspec.json.decode(await reader.readline(), type=HubConfig)
    listening = None if listening_fd is None else socket.socket(fileno=listening_fd)
    transport, _protocol = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(report_fd, "wb", buffering=0))

    def report(said: Report) -> None:
        if transport.get_write_buffer_size() < REPORT_BACKLOG_BYTES:
            transport.write(msgspec.json.encode(said) + b"\n")

    async def parent() -> None:
        await reader.read()  # until the supervisor closes it, or dies
        stop.set()

    worker = Worker(config, number, doors_for(config, log), clock, log)
    code = ExitCode.OK
    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(parent())
            await worker.run(listening, report, stop)
            waiting.cancel()
    except* EdgedError as group:
        code = ExitCode.TEMPORARY
        log.error("worker_failed", detail="; ".join(map(str, group.exceptions)))
    finally:
        transport.close()
    return code


def real_doors(config: HubConfig, log: Log) -> Doors:
    """The database that the configuration names."""
    memory = ReceiverMemory(config)
    limits = config.limits

    async def open_database() -> Database:
        from edged.hub.database import opening

        url = await asyncio.to_thread(database_url, config)
        if config.database.migrate_at_start:
            for step in await opening.migrate(url):
                log.info("migrated", step=step)
        timeout_s = limits.commit_timeout_s * STATEMENT_SHARE
        database = await opening.open_database(url, connections=limits.commits, timeout_s=timeout_s)
        await asyncio.to_thread(memory.write, database.receiver)
        return database

    async def probe(database: Database) -> None:
        await database.books()

    return Doors(open_database, probe, memory.read())


class ReceiverMemory:
    """The identity of the configured database: a hub says who it is also when it starts while that is away."""

    def __init__(self, config: HubConfig) -> None:
        self._file = Path(config.hub.state_dir) / "receiver"
        table = config.database
        self._key = hashlib.sha256(f"{table.url} {table.url_file}".encode()).hexdigest()

    def read(self) -> str:
        """ "" when nothing is remembered of this database. Blocks."""
        try:
            key, _, receiver = self._file.read_text(encoding="utf-8").partition(" ")
        except (OSError, ValueError):
            return ""
        return receiver if key == self._key else ""

    def write(self, receiver: str) -> None:
        """Blocks; a disk that is full costs only this comfort."""
        beside = self._file.with_name(f".receiver.{os.getpid()}")
        try:
            beside.write_text(f"{self._key} {receiver}", encoding="utf-8")
            beside.replace(self._file)
        except OSError:
            pass


def main(arguments: list[str]) -> int:
    """NUMBER [FD]."""
    report_fd = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not end up among the reports
    listening_fd = int(arguments[1]) if len(arguments) > 1 else None
    return asyncio.run(serve(int(arguments[0]), listening_fd, report_fd, real_doors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
