"""Brokers for tests: a real mosquitto on a free loopback port, and one that plays a script byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
START_TIMEOUT_S = 15.0


def free_port() -> int:
    """A port nobody listens on now. Another process may take it: callers start anew when theirs does not come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mosquitto:
    """A real mosquitto with the given options, one `key value` line each; the stock settings where none are given.

    It listens on 127.0.0.1, anonymous clients are allowed unless an option says otherwise.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        if MOSQUITTO is None:
            pytest.skip("mosquitto is not installed: apt install mosquitto")
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Mosquitto:
        lines = [f"listener {self.port} 127.0.0.1"]
        if not any(option.startswith("allow_anonymous") for option in self.options):
            lines.append("allow_anonymous true")
        if os.geteuid() == 0:
            lines.append("user root")  # else it gives up its rights and cannot read the test's folder
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, *self.options]) + "\n")
        assert MOSQUITTO is not None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-v", "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"mosquitto did not start: {self.log.read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def kill(self) -> None:
        """SIGKILL: whatever it did not write down is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: the kernel still acknowledges TCP, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def reload(self) -> None:
        """SIGHUP: read access lists and passwords again."""
        self._signal(signal.SIGHUP)

    async def restart(self) -> None:
        """Kill and start again; without `persistence true` it has forgotten everything."""
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(self.start)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Mosquitto:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()


class Visitor:
    """One client at the scripted broker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def packet(self) -> bytes:
        """The client's next packet, whole."""
        packet = await self._reader.readexactly(2)
        length, shift = packet[1] & 127, 7
        while packet[-1] & 128:
            packet += await self._reader.readexactly(1)
            length |= (packet[-1] & 127) << shift
            shift += 7
        return packet + await self._reader.readexactly(length)

    async def packet_of(self, kind: int) -> bytes:
        """The next packet of this type (the upper half of the first byte); others are dropped."""
        while True:
            packet = await self.packet()
            if packet[0] & 0xF0 == kind:
                return packet

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def accept(self, connack: bytes = b"\x20\x03\x00\x00\x00") -> bytes:
        """Read CONNECT and SUBSCRIBE, grant all; returns the CONNECT packet. The default answer is MQTT 5."""
        connect = await self.packet()
        await self.send(connack)
        subscribe = await self.packet_of(0x80)
        with_properties = connack[1] > 2
        filters = _count_filters(subscribe, 5 if with_properties else 4)
        body = subscribe[2:4] + (b"\0" if with_properties else b"") + b"\x01" * filters
        await self.send(bytes((0x90, len(body))) + body)
        return connect

    def hang_up(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with RST, as a crashed host does."""
        self._writer.transport.abort()


class ScriptedBroker:
    """Plays one script per connection; the last one is repeated. Exceptions of a script fail the test on exit.

    A connection that the client closes while its script reads ends the script without complaint.
    """

    def __init__(self, *scripts: Callable[[Visitor], Awaitable[None]]) -> None:
        self._scripts = list(scripts)
        self._failures: list[BaseException] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> ScriptedBroker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        if self._failures and error is None:
            raise self._failures[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        self._writers.append(writer)
        try:
            await script(Visitor(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is reported on exit
            self._failures.append(failure)
        finally:
            writer.close()


def _count_filters(subscribe: bytes, start: int) -> int:
    count, at = 0, start
    while at < len(subscribe):
        at += 3 + (subscribe[at] << 8 | subscribe[at + 1])
        count += 1
    return count


def running(folder: Path, *options: str) -> Iterator[Mosquitto]:
    """For fixtures: `yield from running(tmp_path, "max_inflight_messages 20")`."""
    with Mosquitto(folder, *options) as broker:
        yield broker
