"""A bad line between two ends on this machine: slow, late, stalled, half open, cut at an exact byte. Needs no root.

A TCP proxy on loopback. It cannot lose packets, because its ends never see any: tests/doubles/netns.py can, as root.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

HOST = "127.0.0.1"
Direction = Literal["up", "down"]
"""up: from the end that connects to the end that listens; down: back."""
Mode = Literal["open", "cut", "stalled"]

_CHUNK_BYTES = 4096
_CHUNKS_MAX = 256  # under way on a line with delay
_KERNEL_BUFFER_BYTES = 16_384  # else the kernel hides the line's slowness behind megabytes
_WAIT_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # linger for no time at all


class Shape(NamedTuple):
    """What the line does to each byte, in both directions.

    rate_bytes_s: 0 is no limit; all connections share it. queue_bytes: what a modem holds before it stops taking more.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    rate_bytes_s: float = 0.0
    queue_bytes: int = 32_768


UNHURT = Shape()


class Scissors(Protocol):
    """Decides where a line is cut."""

    def snip(self, connection: int, direction: Direction, data: bytes) -> int | None:
        """How many of these bytes may still pass before the cut; None when the line holds."""


class AfterBytes:
    """Cuts once exactly so many bytes have passed in one direction, over all connections."""

    def __init__(self, direction: Direction, count: int) -> None:
        self._direction = direction
        self._left = count

    def snip(self, connection: int, direction: Direction, data: bytes) -> int | None:
        if direction != self._direction:
            return None
        if len(data) >= self._left:
            return self._left
        self._left -= len(data)
        return None


class _Way:
    """One direction of one line: when may the next byte leave?"""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.passed_bytes = 0

    def leave(self, size: int, shape: Shape, now: float, chance: random.Random) -> float:
        """When a chunk of this size arrives at the other end."""
        if shape.rate_bytes_s:
            self.free_at = max(now, self.free_at) + size / shape.rate_bytes_s
            now = self.free_at
        return now + max(0.0, shape.delay_s + chance.uniform(-shape.jitter_s, shape.jitter_s))

    def full_for(self, shape: Shape, now: float) -> float:
        """Seconds until the queue has room."""
        return max(0.0, self.free_at - now - shape.queue_bytes / shape.rate_bytes_s) if shape.rate_bytes_s else 0.0


class _Lane(NamedTuple):
    """One direction of one connection. back: the writer towards `source`."""

    connection: int
    direction: Direction
    source: asyncio.StreamReader
    sink: asyncio.StreamWriter
    back: asyncio.StreamWriter


class ChaosLink:
    """Listens on `port` and passes bytes on to `target_port`, as long as the `with` block lasts.

    Methods work from any thread, and have taken effect when they return.
    """

    def __init__(self, target_port: int, shape: Shape = UNHURT, *, seed: int = 1) -> None:
        self.target_port = target_port
        self.port = 0
        self.accepted = 0
        self.snipped = threading.Event()
        self._shape = shape
        self._chance = random.Random(seed)
        self._mode: Mode = "open"
        self._ways: dict[Direction, _Way] = {"up": _Way(), "down": _Way()}
        self._scissors: Scissors | None = None
        self._at_the_cut: Callable[[], object] = int
        self._tamper: Callable[[Direction, bytes], bytes] | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._far_ends: set[asyncio.StreamWriter] = set()
        self._deaf: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="chaos-link", daemon=True)

    # --- what a test does ---

    def shape(self, **changed: Any) -> None:
        """Change the named properties of the line, see `Shape`."""
        self._call(lambda: setattr(self, "_shape", self._shape._replace(**changed)))

    def cut(self) -> None:
        """Connections are reset, new ones refused, until `restore`."""
        self._call(lambda: self._enter("cut"))

    def drop(self) -> None:
        """Connections are reset once; new ones get through."""
        self._call(self._drop_all)

    def stall(self) -> None:
        """A black hole: connections stay and new ones are made, but not a byte arrives, until `restore`."""
        self._call(lambda: self._enter("stalled"))

    def restore(self) -> None:
        self._call(lambda: self._enter("open"))

    def half_open(self) -> None:
        """The end that listens sees its connections reset; the end that connected hears nothing of it, ever.

        New connections get through.
        """
        self._call(self._lose_far_ends)

    def arm(self, scissors: Scissors, at_the_cut: Callable[[], object] = int) -> None:
        """Cut the connection where `scissors` say, once; `at_the_cut` is called first. `snipped` tells.

        The bytes before the cut arrive for certain, those behind it never. New connections get through.
        """

        def take_up() -> None:
            self._scissors, self._at_the_cut = scissors, at_the_cut

        self.snipped.clear()
        self._call(take_up)

    def garble(self, tamper: Callable[[Direction, bytes], bytes]) -> None:
        """From now on what passes is what `tamper` returns; the length must not change."""

        def take_up() -> None:
            self._tamper = tamper

        self._call(take_up)

    def passed_bytes(self, direction: Direction) -> int:
        """Payload bytes that arrived, since the beginning."""
        return self._ways[direction].passed_bytes

    def __enter__(self) -> ChaosLink:
        self._thread.start()
        assert self._ready.wait(_WAIT_S), "the chaos link does not listen"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._call(self._closing.set)
        self._thread.join(_WAIT_S)

    # --- in its thread ---

    def _call(self, action: Callable[[], object]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(_WAIT_S), "the chaos link hangs"

    def _enter(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "stalled":
            self._flowing.clear()
            return
        self._flowing.set()
        if mode == "cut":
            self._drop_all()

    def _drop_all(self) -> None:
        for writer in self._ends:
            _reset(writer)

    def _lose_far_ends(self) -> None:
        self._deaf |= self._ends - self._far_ends
        for writer in self._far_ends:
            _reset(writer)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        listener = _socket()
        listener.bind((HOST, 0))
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._connected, sock=listener, limit=_CHUNK_BYTES)
        self._ready.set()
        await self._closing.wait()
        server.close()
        self._deaf.clear()
        self._flowing.set()
        self._drop_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            _reset(writer)
            return
        self.accepted += 1
        number, ends = self.accepted, {writer}
        self._ends.add(writer)
        try:
            await self._flowing.wait()
            far_reader, far = await self._open_far()
            ends.add(far)
            self._ends.add(far)
            self._far_ends.add(far)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(_Lane(number, "up", reader, far, writer)))
                group.create_task(self._pass_on(_Lane(number, "down", far_reader, writer, far)))
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there, or the test ends: either way both ends are dropped below
        finally:
            for end in ends:
                _reset(end)
            self._ends -= ends
            self._far_ends -= ends
            self._deaf -= ends

    async def _open_far(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        far_socket = _socket()
        try:
            far_socket.setblocking(False)
            await self._loop.sock_connect(far_socket, (HOST, self.target_port))
            return await asyncio.open_connection(sock=far_socket, limit=_CHUNK_BYTES)
        except BaseException:
            far_socket.close()
            raise

    async def _pass_on(self, lane: _Lane) -> None:
        """Copy until the source closes or the line is cut there."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(lane, line))
            await self._deliver(lane, line)
            reading.cancel()

    async def _read(self, lane: _Lane, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Put what comes on the line, with the time it arrives at; nothing stands for the end."""
        way = self._ways[lane.direction]
        data = b"-"
        while data:
            await asyncio.sleep(way.full_for(self._shape, self._loop.time()))
            try:
                data = await lane.source.read(_CHUNK_BYTES)
            except OSError:
                data = b""  # reset: ends here like an orderly close
            await line.put((way.leave(len(data), self._shape, self._loop.time(), self._chance), data))

    async def _deliver(self, lane: _Lane, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            arrives_at, data = await line.get()
            await asyncio.sleep(max(0.0, arrives_at - self._loop.time()))
            await self._flowing.wait()
            if self._tamper is not None:
                data = self._tamper(lane.direction, data)
            whole = self._scissors.snip(lane.connection, lane.direction, data) if self._scissors and data else None
            with contextlib.suppress(OSError):  # the end that is gone is noticed by reading from it
                self._ways[lane.direction].passed_bytes += len(data[:whole])
                lane.sink.write(data[:whole])
                await lane.sink.drain()
            if whole is not None:
                self._scissors = None
                self._at_the_cut()
                _reset(lane.back)
                self.snipped.set()
            if whole is not None or not data:
                if lane.sink not in self._deaf:
                    lane.sink.close()  # with FIN, so that what was written arrives
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, without what was not sent yet."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _socket() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BUFFER_BYTES)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER_BYTES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
