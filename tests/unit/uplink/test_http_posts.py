"""One POST after the other over kept-alive connections, and what goes wrong with them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edged.config.settings import Upstream
from edged.errors import LinkError
from edged.uplink.http_carrier import Answer, Posts

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def played(*answers: bytes | None) -> Iterator[tuple[Posts, list[bytes]]]:
    """A server that reads a request and answers with bytes, one connection per list entry after a None (close)."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    seen: list[bytes] = []

    def serve() -> None:
        connection: socket.socket | None = None
        for answer in answers:
            if connection is None:
                connection, _ = listener.accept()
                connection.settimeout(10)
            if answer is None:
                connection.close()
                connection = None
                continue
            request = b""
            while b"\r\n\r\n" not in request or not request.endswith(b"payload"):
                request += connection.recv(65_536)
            seen.append(request)
            connection.sendall(answer)
        if connection is not None:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    posts = Posts(Upstream(url=f"http://127.0.0.1:{listener.getsockname()[1]}/x"))
    try:
        yield posts, seen
    finally:
        posts.close()
        thread.join(10)
        listener.close()


def test_a_connection_is_kept_for_the_next_request() -> None:
    with played(OK, OK) as (posts, seen):
        assert posts.post("/x/v1/sync/batch", b"payload") == Answer(200, b"{}")
        assert posts.post("/x/v1/sync/hello", b"payload") == Answer(200, b"{}")
    assert [request.split(b" ")[1] for request in seen] == [b"/x/v1/sync/batch", b"/x/v1/sync/hello"]


def test_a_kept_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    with played(OK, None, OK) as (posts, seen):
        posts.post("/", b"payload")
        assert posts.post("/", b"payload").status == 200
    assert len(seen) == 2


def test_a_server_that_says_close_is_taken_at_its_word() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with played(closing, None, OK) as (posts, _):
        posts.post("/", b"payload")
        assert posts.post("/", b"payload").status == 200


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "1 bytes read, 499 more"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000), "more than 262144 bytes"),
        (b"no http\r\n\r\n", "no http"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bytes read"),
    ],
)
def test_an_answer_that_is_cut_short_or_none_is_a_broken_link(answer: bytes, complaint: str) -> None:
    with played(answer, None, OK) as (posts, _):
        with pytest.raises(LinkError, match=complaint):
            posts.post("/", b"payload")
        assert posts.post("/", b"payload").status == 200


def test_nobody_there_says_where_we_looked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(LinkError, match=f"posting to 127.0.0.1:{port}: .*refused"):
        Posts(Upstream(url=f"http://127.0.0.1:{port}")).post("/", b"payload")


def test_a_token_that_cannot_be_read_says_which_file(tmp_path: Path) -> None:
    posts = Posts(Upstream(url="https://127.0.0.1:1", token_file=str(tmp_path / "token")))
    with pytest.raises(LinkError, match="token"):
        posts.post("/", b"payload")


def test_closing_wakes_a_request_that_waits_and_refuses_further_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        posts = Posts(Upstream(url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        failed: list[LinkError] = []

        def wait() -> None:
            try:
                posts.post("/", b"payload")
            except LinkError as error:
                failed.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        connection, _ = silent.accept()
        connection.recv(10)
        posts.close()
        thread.join(10)
        connection.close()
        with pytest.raises(LinkError, match="the uplink stops"):
            posts.post("/", b"payload")
    assert len(failed) == 1
