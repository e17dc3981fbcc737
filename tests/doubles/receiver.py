"""A hub of the tests' own: decodes with `edged.sync`, keeps ranges in memory, and misbehaves when told to.

`Receiver` is the hub; `BrokerSide` (paho, an independent client) and `HttpSide` (http.server) bring it what arrives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edged.sync.envelope import decode_hello, encode_message, open_body, read_header
from edged.sync.protocol import VERSION, Ack, AckStatus, BatchHeader, Cursor, Fork, Hello, HelloAck, Range, Stream
from edged.sync.ranges import Ranges, add, contiguous, count, missing

Do = Literal["commit", "deaf", "mute", "babble", "retry", "reject"]
"""commit: take it and answer. deaf: neither. mute: take it, and do not answer.
babble: answer nonsense. retry, reject: say so instead."""


class Fault(NamedTuple):
    do: Do
    reason: str = ""
    retry_ms: int = 0
    delay_s: float = 0.0


class Arrival(NamedTuple):
    at_s: float
    header: BatchHeader
    size_bytes: int
    fresh: int


GOOD = Fault("commit")


class Receiver:
    """Answers what it is given. `fault` decides about each batch; all calls come from threads of the sides."""

    def __init__(self, name: str = "hub-1", *, open_bodies: bool = True) -> None:
        self.name = name
        self.open_bodies = open_bodies
        self.fault: Callable[[BatchHeader], Fault] = lambda _: GOOD
        self.hello_fault: Callable[[Hello], Fault] = lambda _: GOOD
        self.forks: tuple[Fork, ...] = ()
        self.hellos: list[Hello] = []
        self.arrivals: list[Arrival] = []
        self.payloads: dict[tuple[Stream, int, int], set[bytes]] = {}
        self.twice = 0
        self.base: dict[tuple[str, Stream], int] = {}
        self.home: dict[tuple[str, Stream], Ranges] = {}
        self.lost: dict[Stream, Ranges] = {}
        self._lock = threading.Lock()

    def has(self, stream: Stream) -> int:
        """How many numbers of a stream are home, whatever the epoch."""
        return sum(count(home) for (_, name), home in self.home.items() if name == stream)

    def when(self, stream: Stream, number: int) -> float | None:
        """When (monotonic) this number came first."""
        with self._lock:
            for at_s, header, _, _ in self.arrivals:
                if header.stream == stream and header.first <= number <= header.last:
                    return at_s
        return None

    def hello(self, payload: bytes) -> bytes | None:
        hello = decode_hello(payload)
        with self._lock:
            self.hellos.append(hello)
            fault = self.hello_fault(hello)
            cursors = []
            for (epoch, stream), known in self.home.items():
                upto, beyond = contiguous(known, self.base[epoch, stream])
                cursors.append(Cursor(epoch, stream, upto, beyond))
        if fault.do in ("deaf", "babble"):
            return b"{}" if fault.do == "babble" else None
        status: AckStatus = fault.do if fault.do in ("retry", "reject") else "ok"
        return encode_message(
            HelloAck(
                v=VERSION,
                receiver=self.name,
                site=hello.site,
                gateway=hello.gateway,
                instance=hello.instance,
                status=status,
                cursors=tuple(cursors),
                forks=self.forks,
                retry_ms=fault.retry_ms,
                reason=fault.reason,
            )
        )

    def batch(self, payload: bytes) -> bytes | None:
        header, body = read_header(payload)
        if self.open_bodies:
            open_body(header, body)
        fault = self.fault(header)
        if fault.delay_s:
            time.sleep(fault.delay_s)
        if fault.do in ("deaf", "babble"):
            return b"{}" if fault.do == "babble" else None
        if fault.do in ("retry", "reject"):
            return encode_message(self._ack(header, fault.do, fault))
        with self._lock:
            self._commit(header, payload)
            answer = self._ack(header, "ok", fault)
        return None if fault.do == "mute" else encode_message(answer)

    def _commit(self, header: BatchHeader, payload: bytes) -> None:
        key = (header.epoch, header.stream)
        self.base.setdefault(key, header.base)
        known = self.home.get(key, ())
        fresh: list[Range] = missing(known, header.first, header.last)
        new = sum(last - first + 1 for first, last in fresh)
        self.twice += header.n - new
        self.home[key] = add(known, header.first, header.last)
        if header.kind == "lost":
            self.lost[header.stream] = add(self.lost.get(header.stream, ()), header.first, header.last)
        self.arrivals.append(Arrival(time.monotonic(), header, len(payload), new))

    def _ack(self, header: BatchHeader, status: AckStatus, fault: Fault) -> Ack:
        key = (header.epoch, header.stream)
        upto, beyond = contiguous(self.home.get(key, ()), self.base.get(key, header.base))
        return Ack(
            v=VERSION,
            receiver=self.name,
            site=header.site,
            gateway=header.gateway,
            epoch=header.epoch,
            stream=header.stream,
            first=header.first,
            last=header.last,
            status=status,
            upto=upto,
            ranges=beyond,
            retry_ms=fault.retry_ms,
            reason=fault.reason,
        )


class BrokerSide:
    """Subscribes for a receiver at a broker on 127.0.0.1."""

    def __init__(self, port: int, receiver: Receiver) -> None:
        self._receiver = receiver
        self._ready = threading.Event()
        client_id = f"receiver-{receiver.name}"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(100)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._port = port

    def __enter__(self) -> BrokerSide:
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._ready.wait(10), "the broker did not answer the receiver"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([("edged/v1/+/+/sync/hello", 1), ("edged/v1/+/+/sync/+/batch", 1)])

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        head, _, kind = message.topic.rpartition("/")
        if kind == "hello":
            answer, topic = self._receiver.hello(bytes(message.payload)), f"{message.topic}/ack"
        else:
            answer, topic = self._receiver.batch(bytes(message.payload)), f"{head}/ack"
        if answer is not None:
            client.publish(topic, answer, qos=1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what these tests are about."""


class HttpSide:
    """The same over HTTP/1.1 with kept-alive connections. token: asked for when given. `down`: connections are cut."""

    def __init__(self, receiver: Receiver, *, token: str = "", context: Any = None) -> None:
        self.requests = 0
        self.down = False
        self.tokens: list[str] = []
        side = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                side.requests += 1
                payload = self.rfile.read(int(self.headers["Content-Length"]))
                if side.down:
                    self.close_connection = True
                    return
                given = self.headers.get("Authorization", "")
                if token and given != f"Bearer {token}":
                    self._reply(401, b"")
                    return
                if self.path.endswith("/v1/sync/hello"):
                    answer = receiver.hello(payload)
                elif self.path.endswith("/v1/sync/batch"):
                    answer = receiver.batch(payload)
                else:
                    self._reply(404, b"")
                    return
                if answer is None:
                    self.close_connection = True
                    return
                self._reply(200, answer)

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> HttpSide:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
