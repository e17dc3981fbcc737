"""The proxy passes bytes on, drops, refuses and swallows them when told to, and heals."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from edged.demo.proxy import Proxy

PATIENCE_S = 5.0


@pytest.fixture
def upstream() -> Iterator[int]:
    """Port of a server that says everything back, on as many connections as come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads: list[threading.Thread] = []

        def echo(peer: socket.socket) -> None:
            with peer:
                while data := receive(peer):
                    peer.sendall(data)

        def accept() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=echo, args=(peer,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join(PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)


@pytest.fixture
def proxy(upstream: int) -> Iterator[Proxy]:
    with Proxy(upstream) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S)


def receive(peer: socket.socket) -> bytes:
    """What comes next; b"" when the connection is gone, however it went."""
    try:
        return peer.recv(65_536)
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        return b""


def test_bytes_flow_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as peer:
        peer.sendall(b"hello")

        assert receive(peer) == b"hello"
        assert proxy.accepted == 1


def test_a_cut_drops_connections_and_refuses_new_ones_until_it_is_repaired(proxy: Proxy) -> None:
    with connect(proxy) as before:
        before.sendall(b"x")
        assert receive(before) == b"x"
        proxy.switch("cut")
        assert receive(before) == b""
    with connect(proxy) as during:
        assert receive(during) == b""
    assert proxy.refused == 1

    proxy.switch("open")
    with connect(proxy) as after:
        after.sendall(b"y")
        assert receive(after) == b"y"


def test_a_black_hole_keeps_connections_and_delivers_when_it_is_over(proxy: Proxy) -> None:
    with connect(proxy) as peer:
        peer.sendall(b"a")
        assert receive(peer) == b"a"
        proxy.switch("stalled")
        peer.sendall(b"b")
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            receive(peer)

        peer.settimeout(PATIENCE_S)
        proxy.switch("open")
        assert receive(peer) == b"b"


def test_when_the_server_goes_the_client_is_told() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Proxy(server.getsockname()[1]) as proxy,
        connect(proxy) as peer,
    ):
        accepted, _ = server.accept()
        accepted.close()

        assert receive(peer) == b""


def test_when_there_is_no_server_the_client_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()[1]
    with Proxy(nobody) as proxy, connect(proxy) as peer:
        assert receive(peer) == b""


def test_the_end_drops_what_is_open_even_in_a_black_hole(upstream: int) -> None:
    with Proxy(upstream) as proxy:
        peer = connect(proxy)
        peer.sendall(b"a")
        assert receive(peer) == b"a"
        proxy.switch("stalled")
        peer.sendall(b"b")
    with peer:
        assert receive(peer) in (b"", b"b")
