"""A small HTTP/1.0 server for `edged status` and Prometheus: GET only, bounded in size, time and connections."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, cast

from edged.errors import EdgedError

MAX_REQUEST_BYTES = 4096
MAX_CONNECTIONS = 16
REQUEST_TIMEOUT_S = 5.0
SOCKET_MODE = 0o660


class Page(NamedTuple):
    """What a path answers with. `render` runs on the loop at each request and must be quick."""

    content_type: str
    render: Callable[[], bytes]


class StatusServer:
    """Serves `pages` (path → page). Sockets are opened before the loop needs them: `open_unix`, `open_loopback`."""

    def __init__(self, pages: Mapping[str, Page], *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._pages = pages
        self.timeout_s = timeout_s
        self.connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []
        self.refused_count = 0

    async def start(self, *listening: socket.socket) -> None:
        """Serve on sockets made by `open_unix` and `open_loopback`."""
        loop = asyncio.get_running_loop()
        for each in listening:
            if each.family == socket.AF_UNIX:
                server = await loop.create_unix_server(lambda: _Connection(self), sock=each)
            else:
                server = await loop.create_server(lambda: _Connection(self), sock=each)
            self._servers.append(server)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in tuple(self.connections):
            connection.abort()

    def admit(self, connection: _Connection) -> bool:
        if len(self.connections) >= MAX_CONNECTIONS:
            self.refused_count += 1
            return False
        self.connections.add(connection)
        return True

    def leave(self, connection: _Connection) -> None:
        self.connections.discard(connection)

    def answer(self, head: bytes) -> bytes:
        """The whole response to a request head."""
        parts = head.split(b"\r\n", 1)[0].split()
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            return _response(400, "text/plain", b"expected: GET <path> HTTP/1.0\n")
        if parts[0] != b"GET":
            return _response(405, "text/plain", b"only GET is served here\n")
        page = self._pages.get(parts[1].split(b"?", 1)[0].decode("ascii", "replace"))
        if page is None:
            return _response(404, "text/plain", f"served here: {', '.join(sorted(self._pages))}\n".encode())
        return _response(200, page.content_type, page.render())


class _Connection(asyncio.Protocol):
    """One request, one answer, closed."""

    def __init__(self, server: StatusServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # stream sockets only
        if not self._server.admit(self):
            self.abort()  # an answer would be lost in the reset that closing over unread bytes causes
            return
        self._timer = asyncio.get_running_loop().call_later(self._server.timeout_s, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._finish(self._server.answer(bytes(self._head)))
        elif len(self._head) > MAX_REQUEST_BYTES:
            self._finish(_response(431, "text/plain", f"a request has at most {MAX_REQUEST_BYTES} bytes\n".encode()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.leave(self)
        self._transport = None

    def abort(self) -> None:
        """Too slow, or the server closes: drop it, with what it did not read."""
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, response: bytes) -> None:
        if self._transport is not None:
            self._transport.write(response)
            self._transport.close()  # after the response has been written; the timer still bounds a slow reader


def open_unix(path: Path) -> socket.socket:
    """A bound Unix socket with mode 0660, put in place of a stale one in one step. Blocks.

    Raises:
        EdgedError: the folder is missing or not ours, or something else than a socket is in the way.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(f"{path} is not a socket")
        beside.unlink(missing_ok=True)
        listening.bind(str(beside))
        beside.chmod(SOCKET_MODE)  # before anybody can find it under its name
        beside.replace(path)
    except OSError as error:
        listening.close()
        raise EdgedError(
            f"Cannot open the status socket {path}: {error}",
            hint="check that its folder exists and belongs to the service's user; [status] socket chooses another path",
        ) from error
    listening.setblocking(False)
    return listening


def open_loopback(host: str, port: int) -> socket.socket:
    """A bound TCP socket on a loopback address; any other address is refused. Blocks.

    Raises:
        EdgedError: not loopback, or the port is taken.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        numeric = ip_address(address)
        if not numeric.is_loopback:
            raise ValueError(f"{host} is not a loopback address")
        family = socket.AF_INET6 if numeric.version == 6 else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except (ValueError, OSError) as error:
        raise EdgedError(f"Refusing to serve metrics on {host}:{port}: {error}", hint="use 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        raise EdgedError(
            f"Cannot serve metrics on {host}:{port}: {error.strerror}", hint="choose a free port"
        ) from error
    listening.setblocking(False)
    return listening


_STATUS_TEXTS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
}


def _response(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.0 {status} {_STATUS_TEXTS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
