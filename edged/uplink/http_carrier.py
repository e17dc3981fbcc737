"""Batches straight to the hub over HTTP(S): one POST each, a few kept-alive connections, each in a thread."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import LinkError
from edged.mqtt.backoff import Backoff
from edged.mqtt.configured import tls_settings
from edged.mqtt.settings import read_secret
from edged.mqtt.tls import explain, make_context
from edged.sync.dispatch import PAYLOAD_MAX_BYTES
from edged.sync.envelope import MESSAGE_MAX_BYTES
from edged.sync.protocol import Stream

if TYPE_CHECKING:
    from edged.config.settings import Upstream
    from edged.ports import Clock
    from edged.uplink.carrier import CarrierListener
    from edged.uplink.lines import Start

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 90.0  # a hub whose database is slow answers `retry` long before
DENIED = (401, 403)
STATUS_REASONS = dict.fromkeys(DENIED, "not_authorized") | {413: "packet_too_large"}


class Answer(NamedTuple):
    status: int
    payload: bytes


class HttpCarrier:
    """Implements `edged.uplink.carrier.Carrier`. It counts as up until a request fails, and then pauses."""

    def __init__(self, start: Start, listener: CarrierListener, clock: Clock, chance: Callable[[], float]) -> None:
        self._upstream = start.upstream
        self._listener = listener
        self._now_ns = clock.mono_ns
        self._chance = chance
        self._backoff = Backoff()
        workers = start.upstream.window + 1  # one for each batch, and one for a hello
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="uplink-http")
        self._posts = Posts(start.upstream)
        self._generation = 0
        self._failed: asyncio.Future[str] | None = None

    async def run(self) -> None:
        failures = 0
        while True:
            self._generation += 1
            self._failed = asyncio.get_running_loop().create_future()
            since_ns = self._now_ns()
            self._listener.on_up(PAYLOAD_MAX_BYTES)
            detail = await self._failed
            failures = self._backoff.failures_after(failures, (self._now_ns() - since_ns) / 1e9)
            self._listener.on_down(detail)
            await asyncio.sleep(self._backoff.delay_s(failures, self._chance()))

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._posts.close)  # wakes the threads that wait for an answer

    def hello(self, key: int, payload: bytes) -> None:
        self._post(key, "hello", payload, self._listener.on_hello_answer)

    def batch(self, key: int, stream: Stream, payload: bytes) -> None:
        self._post(key, "batch", payload, self._listener.on_answer)

    def _post(self, key: int, name: str, payload: bytes, deliver: Callable[[bytes], None]) -> None:
        try:
            post = self._pool.submit(self._posts.post, f"{self._upstream.path}/v1/sync/{name}", payload)
        except RuntimeError:  # closed: the process ends
            return
        future = asyncio.wrap_future(post)
        future.add_done_callback(partial(self._on_answer, self._generation, key, deliver))

    def _on_answer(
        self, generation: int, key: int, deliver: Callable[[bytes], None], future: asyncio.Future[Answer]
    ) -> None:
        if future.cancelled():
            return
        error = future.exception()
        current = generation == self._generation
        if error is not None:
            if self._failed is not None and not self._failed.done():
                if not isinstance(error, LinkError):
                    self._failed.set_exception(error)
                elif current:
                    self._failed.set_result(str(error))
            return
        answer = future.result()
        if current:
            self._listener.on_carried(key)
            if answer.status != http.client.OK:
                self._listener.on_refused(key, STATUS_REASONS.get(answer.status, f"http_{answer.status}"))
        if answer.status == http.client.OK:
            deliver(answer.payload)


class Posts:
    """The threads' side: a connection for each thread, opened when needed. Blocking."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._closed = False

    def post(self, path: str, payload: bytes) -> Answer:
        """One request. A kept-alive connection that turns out to be closed is tried anew. Raises `LinkError`."""
        kept: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        try:
            if kept is not None:
                try:
                    return self._ask(kept, path, payload)
                except (http.client.RemoteDisconnected, ConnectionError):
                    self._drop(kept)  # the hub may close it between two requests
            return self._ask(self._connect(), path, payload)
        except (OSError, http.client.HTTPException) as error:
            self._drop(getattr(self._mine, "connection", None))
            raise self._explained(error) from None

    def close(self) -> None:
        """End every request that waits."""
        with self._lock:
            self._closed = True
            connections, self._open = self._open, set()
        for connection in connections:
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, path: str, payload: bytes) -> Answer:
        headers = {"Content-Type": "application/octet-stream", **self._mine.headers}
        connection.request("POST", path, body=payload, headers=headers)
        response = connection.getresponse()
        body = response.read(MESSAGE_MAX_BYTES + 1)
        if len(body) > MESSAGE_MAX_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MESSAGE_MAX_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        if response.will_close or response.status in DENIED:
            self._drop(connection)  # a denied one is made anew with what the token file says then
        return Answer(response.status, body)

    def _connect(self) -> http.client.HTTPConnection:
        upstream = self._upstream
        tls = tls_settings(upstream)
        connection: http.client.HTTPConnection
        if tls is None:
            connection = http.client.HTTPConnection(upstream.host, upstream.port, timeout=CONNECT_TIMEOUT_S)
        else:
            context = make_context(tls)
            connection = http.client.HTTPSConnection(
                upstream.host, upstream.port, timeout=CONNECT_TIMEOUT_S, context=context
            )
        token = read_secret(Path(upstream.token_file)) if upstream.token_file else None
        self._mine.headers = {"Authorization": f"Bearer {token.decode()}"} if token else {}
        self._mine.connection = connection
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError("the uplink stops")
            self._open.add(connection)
        connection.connect()
        connection.sock.settimeout(ANSWER_TIMEOUT_S)
        return connection

    def _drop(self, connection: http.client.HTTPConnection | None) -> None:
        self._mine.connection = None
        if connection is not None:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _explained(self, error: Exception) -> LinkError:
        upstream = self._upstream
        if isinstance(error, ssl.SSLError):
            return explain(error, upstream.host, upstream.port)
        what = str(error) or type(error).__name__
        return LinkError(f"posting to {upstream.host}:{upstream.port}: {what}", retryable=True)
