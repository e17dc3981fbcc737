"""The same batches over HTTP(S), for sites where only that is open: who speaks is told by a token or a certificate."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from edged.errors import EdgedError
from edged.hub.decisions import Place, Sender, parse_sender
from edged.hub.receiver import HEAD_BYTES, PAYLOAD_MAX_BYTES, Answer, Arrival, Receiver, kind
from edged.hub.tls import common_name, server_context
from edged.hub.tokens import Tokens, find, read_tokens
from edged.sync.envelope import MESSAGE_MAX_BYTES, encode_message

if TYPE_CHECKING:
    import ssl

    from aiohttp.web_protocol import RequestHandler

    from edged.hub.metering import HubMetrics
    from edged.hub.settings import HttpTable
    from edged.ops.logs import Log
    from edged.ports import Clock

READ_TIMEOUT_S = 60.0  # of one payload: 1 MiB at 140 kbit/s
FIRST_REQUEST_WITHIN_S = 20.0
KEEP_ALIVE_S = 75.0
DRAIN_S = 5.0
LINGER_S = READ_TIMEOUT_S  # what is refused unread is read and dropped, so that the answer is not lost in a reset
SWEEP_EVERY_S = 5.0
VIA = "http"

Faults = tuple[tuple[str, str], ...]


class Behind(NamedTuple):
    """What stands behind the listener. metrics_text: the page of all workers."""

    receiver: Receiver
    faults: Callable[[], Faults]
    metrics_text: Callable[[], Awaitable[bytes]]
    clock: Clock
    log: Log
    metrics: HubMetrics


class HttpSide:
    """Serves on a socket that somebody else bound. `run` looks after tokens and silent connections."""

    def __init__(self, table: HttpTable, behind: Behind) -> None:
        self._table = table
        self._behind = behind
        self._tokens: Tokens = {}
        self._tokens_state: object = None
        self._silent_since_ns: dict[RequestHandler, int] = {}
        self._spoke: set[RequestHandler] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, listening: socket.socket) -> None:
        """Raises `EdgedError`: certificates or tokens cannot be used."""
        context = await asyncio.to_thread(self._context)
        await self._refresh_tokens()
        application = web.Application(middlewares=[self._mark])
        application.router.add_post("/v1/sync/batch", self._batch)
        application.router.add_post("/v1/sync/hello", self._hello)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,  # a bomb would grow in the parser, before anybody counts
            shutdown_timeout=DRAIN_S,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listening, ssl_context=context).start()

    def _context(self) -> ssl.SSLContext | None:
        table = self._table
        if not table.cert_file:
            return None
        return server_context(table.cert_file, table.key_file, table.client_ca_file, required=not table.tokens_file)

    async def run(self) -> None:
        """Look after tokens and connections until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._sweep()
            try:
                await self._refresh_tokens()
            except EdgedError as error:  # the old ones stay: a mistake in the file must not lock a fleet out
                self._behind.log.error("tokens_refused", detail=str(error))

    async def close(self) -> None:
        """Answer what is in hand, take nothing more."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- who ---

    async def _refresh_tokens(self) -> None:
        if not self._table.tokens_file:
            return
        file = Path(self._table.tokens_file)
        state, tokens = await asyncio.to_thread(_read_if_changed, file, self._tokens_state)
        if tokens is not None:
            self._tokens, self._tokens_state = tokens, state

    def _who(self, request: web.Request) -> Sender | None:
        """Whom token or certificate name; None when neither does, or each another one."""
        found: set[Sender | None] = set()
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            found.add(find(self._tokens, token.strip()) if scheme.lower() == "bearer" else None)
        certificate = request.get_extra_info("peercert")
        if certificate:
            found.add(parse_sender(common_name(certificate)))
        return found.pop() if len(found) == 1 else None

    # --- requests ---

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        return await self._take(request, hello=False, limit_bytes=PAYLOAD_MAX_BYTES)

    async def _hello(self, request: web.Request) -> web.StreamResponse:
        return await self._take(request, hello=True, limit_bytes=MESSAGE_MAX_BYTES)

    async def _take(self, request: web.Request, *, hello: bool, limit_bytes: int) -> web.StreamResponse:
        sender = self._who(request)
        if sender is None:
            return web.Response(
                status=401, text="a token or a certificate is needed\n", headers={"WWW-Authenticate": "Bearer"}
            )
        receiver, at_ns = self._behind.receiver, self._behind.clock.mono_ns()
        length = request.content_length
        held_bytes = limit_bytes if length is None or length > limit_bytes else length
        place = Place(sender, hello)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await _read(request, b"", HEAD_BYTES)  # bounded, and enough to name the batch in the answer
            if not receiver.door.enter(sender, held_bytes):
                return self._answer(receiver.busy(Arrival(place, head, len(head), at_ns)), unread=True)
            try:
                payload = head
                if length is None or length <= limit_bytes:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        payload = await _read(request, head, limit_bytes + 1)
                size_bytes = max(length or 0, len(payload))
                self._behind.metrics.received(VIA, len(payload))
                answer = await receiver.take(Arrival(place, payload, size_bytes, at_ns))
            finally:
                receiver.door.leave(sender, held_bytes)
        except TimeoutError:
            return web.Response(status=408, text=f"the payload did not come within {READ_TIMEOUT_S:.0f} s\n")
        return self._answer(answer, unread=size_bytes > limit_bytes)

    def _answer(self, answer: Answer | None, *, unread: bool) -> web.Response:
        if answer is None:
            return web.Response(
                status=503, text="this hub has not seen its database yet\n", headers={"Retry-After": "5"}
            )
        self._behind.metrics.answer(VIA, kind(answer), answer.status, answer.reason)
        response = web.Response(body=encode_message(answer), content_type="application/json")
        if unread:
            response.force_close()
        return response

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        """For load balancers: codes only, what stands behind them is told on the status socket."""
        codes = [code for code, _detail in self._behind.faults()]
        text = json.dumps({"healthy": not codes, "faults": codes})
        return web.Response(status=503 if codes else 200, text=text, content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        if self._who(request) is None:
            return web.Response(status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"})
        try:
            page = await self._behind.metrics_text()
        except (OSError, TimeoutError) as error:
            return web.Response(status=503, text=f"the supervisor does not answer: {error}\n")
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4"})

    # --- connections ---

    @web.middleware
    async def _mark(self, request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        self._spoke.add(request.protocol)
        return await handler(request)

    def _sweep(self) -> None:
        """Drop connections that never said anything: each holds a file descriptor."""
        assert self._runner is not None
        assert self._runner.server is not None
        now_ns = self._behind.clock.mono_ns()
        present = set(self._runner.server.connections)
        self._spoke &= present
        self._silent_since_ns = {
            each: self._silent_since_ns.get(each, now_ns) for each in present if each not in self._spoke
        }
        for each, since_ns in self._silent_since_ns.items():
            if now_ns - since_ns > FIRST_REQUEST_WITHIN_S * 1e9 and each.transport is not None:
                each.transport.abort()


async def _read(request: web.Request, begun: bytes, limit_bytes: int) -> bytes:
    """What was begun and the rest of the body, until its end or until it has `limit_bytes`."""
    pieces, size = [begun], len(begun)
    while size < limit_bytes:
        piece = await request.content.read(limit_bytes - size)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _read_if_changed(file: Path, state: object) -> tuple[object, Tokens | None]:
    try:
        stat = file.stat()
    except OSError as error:
        raise EdgedError(f"reading the tokens {file}: {error.strerror}", hint="put the file back") from None
    now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return now, None if now == state else read_tokens(file)
