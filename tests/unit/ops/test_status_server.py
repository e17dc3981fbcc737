"""A small server that cannot be kept busy."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from edged.errors import EdgedError
from edged.ops.status_server import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Page, StatusServer, open_loopback, open_unix

PAGES = {
    "/status": Page("application/json", lambda: b'{"mode":"normal"}'),
    "/metrics": Page("text/plain", lambda: b"x" * 3_000_000),
}


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the socket that is really gone afterwards."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class Served:
    """A server on a Unix socket, and raw requests to it."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self.server = StatusServer(PAGES, timeout_s=timeout_s)

    async def ask(self, request: bytes) -> bytes:
        """Everything the server says to one request, until it closes."""
        async with connected(self.path) as (reader, writer):
            writer.write(request)
            return await reader.read(-1)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(tmp_path / "s", timeout_s=10)
    await made.server.start(await asyncio.to_thread(open_unix, made.path))
    yield made
    made.server.close()


async def test_a_page_is_served_with_its_length_and_the_connection_closed(served: Served) -> None:
    answer = await served.ask(b"GET /status HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.0 200 OK"
    assert b"Content-Length: 17" in head
    assert b"Content-Type: application/json" in head
    assert body == b'{"mode":"normal"}'


async def test_a_request_in_pieces_and_with_a_query_is_understood(served: Served) -> None:
    async with connected(served.path) as (reader, writer):
        for piece in (b"GET /sta", b"tus?now=1 HTTP/1.1\r\nHost: x\r", b"\n\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read(-1)).startswith(b"HTTP/1.0 200")


async def test_a_large_page_arrives_whole(served: Served) -> None:
    answer = await served.ask(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.0\r\n\r\n", b"404 Not Found"),
        (b"POST /status HTTP/1.0\r\n\r\n", b"405 Method Not Allowed"),
        (b"hello\r\n\r\n", b"400 Bad Request"),
        (b"GET /status SMTP/1\r\n\r\n", b"400 Bad Request"),
        (b"GET /\xff\xfe HTTP/1.0\r\n\r\n", b"404 Not Found"),
        (b"x" * (MAX_REQUEST_BYTES + 1), b"431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_no_request_for_a_page_is_answered_and_closed(
    served: Served, request_: bytes, status: bytes
) -> None:
    assert (await served.ask(request_)).startswith(b"HTTP/1.0 " + status)


async def test_bytes_after_the_request_do_not_make_a_second_answer(served: Served) -> None:
    answer = await served.ask(b"GET /status HTTP/1.0\r\n\r\nGET /status HTTP/1.0\r\n\r\n")
    assert answer.count(b"HTTP/1.0 200") == 1


async def test_too_many_connections_are_refused_and_the_daemon_goes_on(served: Served) -> None:
    async with AsyncExitStack() as idle:
        for _ in range(MAX_CONNECTIONS):
            await idle.enter_async_context(connected(served.path))
        while len(served.server.connections) < MAX_CONNECTIONS:
            await asyncio.sleep(0.001)
        async with connected(served.path) as (reader, _):
            assert await reader.read(-1) == b""
        assert served.server.refused_count == 1
    async with asyncio.timeout(10):
        while served.server.connections:
            await asyncio.sleep(0.001)
    assert (await served.ask(b"GET /status HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200")


async def test_a_client_that_says_nothing_is_dropped_in_time(tmp_path: Path) -> None:
    slow = Served(tmp_path / "s", timeout_s=0.02)
    await slow.server.start(await asyncio.to_thread(open_unix, slow.path))
    assert await slow.ask(b"GET /sta") == b""
    assert not slow.server.connections
    slow.server.close()


async def test_a_client_that_does_not_read_is_dropped_in_time(tmp_path: Path) -> None:
    slow = Served(tmp_path / "s", timeout_s=0.02)
    await slow.server.start(await asyncio.to_thread(open_unix, slow.path))
    deaf = socket.socket(socket.AF_UNIX)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, str(slow.path))
    await loop.sock_sendall(deaf, b"GET /metrics HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(10):
        while not slow.server.connections:
            await asyncio.sleep(0.001)
        while slow.server.connections:
            await asyncio.sleep(0.001)
    deaf.close()
    slow.server.close()


async def test_closing_the_server_drops_its_connections(served: Served) -> None:
    async with connected(served.path) as (reader, _):
        while not served.server.connections:
            await asyncio.sleep(0.001)
        served.server.close()
        assert await reader.read(-1) == b""
    with pytest.raises(OSError, match="refused"):
        await asyncio.open_unix_connection(str(served.path))


async def test_prometheus_can_ask_on_loopback(served: Served) -> None:
    listening = await asyncio.to_thread(open_loopback, "localhost", 0)
    port = listening.getsockname()[1]
    await served.server.start(listening)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b'{"mode":"normal"}' in await reader.read(-1)
    writer.close()
    await writer.wait_closed()


def test_it_serves_on_the_loop_that_the_daemon_uses(tmp_path: Path) -> None:
    async def ask() -> bytes:
        made = Served(tmp_path / "s", timeout_s=10)
        await made.server.start(await asyncio.to_thread(open_unix, made.path))
        answer = await made.ask(b"GET /status HTTP/1.0\r\n\r\n")
        made.server.close()
        return answer

    assert uvloop.run(ask()).startswith(b"HTTP/1.0 200")


# --- sockets ---


def test_the_socket_is_for_owner_and_group_only_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "edged.sock"
    open_unix(path).close()
    again = open_unix(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert [each.name for each in tmp_path.iterdir()] == ["edged.sock"]
    again.close()


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "edged.sock"
    path.write_text("precious")
    with pytest.raises(EdgedError, match="not a socket"):
        open_unix(path)
    assert path.read_text() == "precious"


def test_a_missing_folder_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(EdgedError, match="No such file") as caught:
        open_unix(tmp_path / "gone" / "edged.sock")
    assert caught.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_metrics_are_never_served_to_the_network(host: str) -> None:
    with pytest.raises(EdgedError, match="Refusing"):
        open_loopback(host, 0)


def test_a_port_that_is_taken_is_named_with_its_cure() -> None:
    taken = open_loopback("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(EdgedError, match="in use") as caught:
        open_loopback("127.0.0.1", taken.getsockname()[1])
    assert caught.value.hint == "choose a free port"
    taken.close()
