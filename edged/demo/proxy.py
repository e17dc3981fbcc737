"""A TCP proxy between the daemon and the broker that can be a cut cable or a black hole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Literal

from edged.demo.broker import HOST

Mode = Literal["open", "cut", "stalled"]
_CHUNK_BYTES = 65_536
_WAIT_S = 5.0


class Proxy:
    """Passes bytes on, in a thread of its own, as long as the `with` block lasts. `switch` works from any thread.

    open: bytes flow. cut: connections are dropped, new ones refused. stalled: connections stay, nothing gets through.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="demo-proxy", daemon=True)
        self._ready = threading.Event()
        self._mode: Mode = "open"
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0
        self.refused = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        if not self._ready.wait(_WAIT_S):
            raise TimeoutError(f"the proxy did not listen within {_WAIT_S:g} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._closing.set)
        self._thread.join(_WAIT_S)

    def switch(self, mode: Mode) -> None:
        self._call(lambda: self._enter(mode))

    def _call(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _enter(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "stalled":
            self._flowing.clear()
            return
        self._flowing.set()
        if mode == "cut":
            self._drop_all()

    def _drop_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._closing.wait()
        server.close()
        self._flowing.set()
        self._drop_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            self.refused += 1
            writer.transport.abort()
            return
        self.accepted += 1
        ends = {writer}
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self._upstream_port)
            ends.add(up_writer)
            self._writers |= ends
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, up_writer))
                group.create_task(self._pass_on(up_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the broker is away, or the demo ends: either way both sides are dropped below
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Copy until one side ends; then the other side is dropped, too."""
        try:
            while data := await source.read(_CHUNK_BYTES):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # a dropped connection ends here like an orderly one
        sink.transport.abort()
