"""A hub's worker in this process, and gateways that bring it batches: over a broker, or straight to the receiver."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edged.hub.configuration import load
from edged.hub.metering import Report
from edged.hub.ports import Batch
from edged.hub.settings import HubConfig
from edged.hub.worker import Doors, Worker
from edged.messages import RecordColumns
from edged.ops.clock import SystemClock
from edged.ops.logs import Log
from edged.sync.envelope import decode_ack, decode_hello_ack, encode_message, seal
from edged.sync.piece import Piece
from edged.sync.protocol import VERSION, Ack, Hello, HelloAck, Lost, Stream
from tests.doubles.hub_database import MemoryDatabase
from tests.doubles.peer import Peer

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from edged.hub.ports import Database

WITHIN_S = 20.0


def records(count: int, size: int = 20) -> RecordColumns:
    """Rows of the streams alarm and health; `size`: characters of each payload that do not compress away entirely."""
    payloads = [json.dumps({"n": row, "text": f"{row:08d}" * (size // 8)}).encode() for row in range(count)]
    return RecordColumns(
        kind=["gap"] * count,
        wall_ms=[1_790_000_000_000 + row for row in range(count)],
        mono_ns=[1_000 + row for row in range(count)],
        boot=["boot-1"] * count,
        clock=["synced"] * count,
        payload=payloads,
    )


def payload(
    first: int,
    last: int,
    /,
    *,
    stream: Stream = "alarm",
    site: str = "lyon",
    gateway: str = "gw-1",
    base: int = 1,
    lost: Lost | None = None,
    **header: object,
) -> bytes:
    """A batch as it travels; `header`: fields that are put in afterwards, as a liar would."""  # fmt: skip
    rows = None if lost is not None else records(last - first + 1)
    piece = Piece(stream, "epoch-1", base, first, last, "boot-1", "synced", rows, lost)
    made, data = seal(piece, site=site, gateway=gateway)
    if not header:
        return data
    fields = {**msgspec.to_builtins(made), **header}
    return json.dumps(fields).encode() + b"\n" + data.partition(b"\n")[2]


def hello_payload(site: str = "lyon", gateway: str = "gw-1", **more: Any) -> bytes:
    fields: dict[str, Any] = {
        "v": VERSION, "site": site, "gateway": gateway, "instance": "i-1", "version": "1", "epoch": "epoch-1",
        "extents": (), **more,
    }  # fmt: skip
    return encode_message(Hello(**fields))


class GatedDatabase(MemoryDatabase):
    """Can be told to wait, or to fail in its own way. `committed`: (gateway, stream, first) in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.held_gateways: set[str] = set()
        self.waiting = 0
        self.highest_waiting = 0
        self.committed: list[tuple[str, str, int]] = []
        self.bug: Exception | None = None

    async def commit(self, batch: Batch) -> Ack:
        self.waiting += 1
        self.highest_waiting = max(self.waiting, self.highest_waiting)
        try:
            if not self.held_gateways or batch.header.gateway in self.held_gateways:
                await self.open.wait()
        finally:
            self.waiting -= 1
        if self.bug is not None:
            raise self.bug
        ack = await super().commit(batch)
        self.committed.append((batch.header.gateway, batch.header.stream, batch.header.first))
        return ack

    async def ping(self) -> None:
        self._reach()


def hub_config(folder: Path, text: str, *, database: str = "sqlite:///hub.db") -> HubConfig:
    """The configuration of a hub in `folder`; `text`: tables besides [hub] and [database]."""
    folder.mkdir(exist_ok=True)
    file = folder / "hub.toml"
    file.write_text(f'[hub]\nstate_dir = "state"\n[database]\nurl = "{database}"\n{text}')
    (folder / "state").mkdir(exist_ok=True)
    return load(file, {})


async def configured(folder: Path, text: str) -> HubConfig:
    """`hub_config` for tests with a running loop: it reads files."""
    return await asyncio.to_thread(hub_config, folder, text)


class Rig:
    """A running worker. `lines`: its log. `reports`: what the supervisor would hear."""

    def __init__(self, worker: Worker, database: GatedDatabase) -> None:
        self.worker = worker
        self.database = database
        self.lines: list[str] = []
        self.reports: list[Report] = []
        self.stop = asyncio.Event()

    async def until(self, condition: Any, what: str) -> None:
        await until(condition, f"{what}\n{''.join(self.lines[-20:])}")

    async def healthy(self) -> Rig:
        await self.until(lambda: not self.worker.faults(), "the worker is healthy")
        return self


async def until(condition: Any, what: str, within_s: float = WITHIN_S) -> None:
    """Let the loop turn until `condition()` is true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"after {within_s} s still not: {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running_worker(
    config: HubConfig, database: GatedDatabase | None = None, listening: socket.socket | None = None
) -> AsyncIterator[Rig]:
    """A worker that serves until the block ends, then drains."""
    held = database or GatedDatabase()

    async def open_database() -> Database:
        held._reach()
        return held

    async def probe(_database: Database) -> None:
        held._reach()

    clock = await asyncio.to_thread(SystemClock)  # reads files
    lines: list[str] = []
    log = Log(clock, write=lines.append, journal=True)
    rig = Rig(Worker(config, 1, Doors(open_database, probe), clock, log), held)
    rig.lines = lines
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.worker.run(listening, rig.reports.append, rig.stop))
        try:
            yield rig
        finally:
            rig.stop.set()
            held.open.set()
            await task


class Gateway(Peer):
    """A gateway at a broker: publishes batches below its root, and keeps the answers."""

    def __init__(
        self, port: int, site: str = "lyon", gateway: str = "gw-1", *, username: str = "", password: str = ""
    ) -> None:
        self.root = f"edged/v1/{site}/{gateway}"
        self.site, self.gateway = site, gateway
        super().__init__(port, f"{self.root}/sync/+/ack", username=username, password=password)

    async def batch(self, first: int, last: int, stream: Stream = "alarm", **header: Any) -> None:
        data = payload(first, last, stream=stream, site=self.site, gateway=self.gateway, **header)
        await self.publish(f"{self.root}/sync/{stream}/batch", [data])

    async def send(self, data: bytes, topic: str = "sync/alarm/batch") -> None:
        await self.publish(f"{self.root}/{topic}", [data])

    async def hello(self, **more: Any) -> None:
        await self.publish(f"{self.root}/sync/hello", [hello_payload(self.site, self.gateway, **more)])

    async def __aenter__(self) -> Gateway:
        await super().__aenter__()
        return self

    @property
    def acks(self) -> list[Ack]:
        return [decode_ack(data) for topic, data, _ in self.messages if not topic.endswith("hello/ack")]

    @property
    def hello_acks(self) -> list[HelloAck]:
        return [decode_hello_ack(data) for topic, data, _ in self.messages if topic.endswith("hello/ack")]

    async def acked(self, count: int) -> list[Ack]:
        await until(lambda: len(self.acks) >= count, f"{count} acks; came: {self.messages}")
        return self.acks

    async def answered(self, count: int = 1) -> list[HelloAck]:
        await until(lambda: len(self.hello_acks) >= count, f"{count} answers to hello; came: {self.messages}")
        return self.hello_acks
