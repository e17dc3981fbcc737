"""The bad line of the other tests does what it says; otherwise they would show nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.doubles.chaos_link import AfterBytes, ChaosLink, Shape
from tests.doubles.waiting import until


class Echo:
    """A server that sends everything back, and remembers what each connection brought and how it ended."""

    def __init__(self) -> None:
        self.heard: list[bytearray] = []
        self.ended: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        heard = bytearray()
        self.heard.append(heard)
        with peer:
            try:
                while data := peer.recv(65_536):
                    heard += data
                    peer.sendall(data)
                self.ended.append("closed")
            except OSError:
                self.ended.append("reset")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def dial(link: ChaosLink) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", link.port))
    client.settimeout(10)
    return client


def receive(client: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := client.recv(65_536)):
        got += data
    return got


def test_bytes_pass_unchanged_and_delay_is_added_once_in_each_direction(echo: Echo) -> None:
    with ChaosLink(echo.port, Shape(delay_s=0.1, jitter_s=0.02)) as link, dial(link) as client:
        sent = bytes(range(256)) * 400
        begun = time.monotonic()
        client.sendall(sent[:10])
        assert receive(client, 10) == sent[:10]
        assert 0.16 <= time.monotonic() - begun < 5
        client.sendall(sent)
        assert receive(client, len(sent)) == sent


def test_the_rate_holds_in_both_directions_together_with_a_bounded_queue(echo: Echo) -> None:
    with ChaosLink(echo.port, Shape(rate_bytes_s=40_000, queue_bytes=4096)) as link, dial(link) as client:
        begun = time.monotonic()
        threading.Thread(target=client.sendall, args=(bytes(40_000),), daemon=True).start()
        assert len(receive(client, 40_000)) == 40_000
        assert 0.9 <= time.monotonic() - begun < 8
        assert link.passed_bytes("up") == link.passed_bytes("down") == 40_000


def test_a_cut_resets_what_is_there_and_refuses_what_is_new_until_restored(echo: Echo) -> None:
    with ChaosLink(echo.port) as link, dial(link) as client:
        client.sendall(b"before")
        assert receive(client, 6) == b"before"
        link.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        with dial(link) as refused, contextlib.suppress(ConnectionResetError):
            assert refused.recv(10) == b""
        link.restore()
        with dial(link) as again:
            again.sendall(b"after")
            assert receive(again, 5) == b"after"


def test_a_stall_keeps_connections_and_every_byte_until_restored(echo: Echo) -> None:
    with ChaosLink(echo.port) as link, dial(link) as client:
        link.stall()
        client.sendall(b"waiting")
        with dial(link) as newcomer:
            newcomer.sendall(b"too")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(10)
            client.settimeout(10)
            link.restore()
            assert receive(client, 7) == b"waiting"
            assert receive(newcomer, 3) == b"too"


def test_half_open_tells_the_end_that_listens_and_not_the_one_that_connected(echo: Echo) -> None:
    with ChaosLink(echo.port) as link, dial(link) as client:
        client.sendall(b"before")
        assert receive(client, 6) == b"before"
        link.half_open()
        until(lambda: echo.ended, "the far end has noticed")
        client.sendall(b"into the void")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(10)
        assert bytes(echo.heard[0]) == b"before"
        with dial(link) as again:
            again.sendall(b"after")
            assert receive(again, 5) == b"after"


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 10_000])
def test_a_cut_after_so_many_bytes_lets_exactly_these_arrive(echo: Echo, count: int) -> None:
    with ChaosLink(echo.port) as link, dial(link) as client:
        told: list[int] = []
        link.arm(AfterBytes("up", count), lambda: told.append(link.passed_bytes("up")))
        with contextlib.suppress(OSError):
            client.sendall(bytes(20_000))
        assert link.snipped.wait(10)
        until(lambda: echo.ended, "the far end has noticed")
        assert (len(echo.heard[0]), told) == (count, [count])
        with pytest.raises(ConnectionResetError):
            receive(client, 1 << 30)
        with dial(link) as again:
            again.sendall(bytes(20_000))
            assert len(receive(again, 20_000)) == 20_000
