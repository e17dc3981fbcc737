"""Questions to the hub over MQTT 5: request and response, each with a deadline, none more than the line can spare.

A connection of its own, apart from the way home: what is asked can be left unanswered, what goes home cannot. It sends
QoS 0 with an expiry, a few at a time and within a rate, and its packets leave this machine behind all others.
"""

from __future__ import annotations

import math
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.errors import InferenceError, ModelError
from edged.sync import inference
from edged.sync.envelope import Refusal
from edged.sync.tensors import to_arrays, to_packed

if TYPE_CHECKING:
    import numpy as np

    from edged.infer.upstream import UpstreamAddress
    from edged.sync.inference import Packed

IN_FLIGHT_MAX = 4
UNSENT_MAX = 2  # handed over and not yet written: the line is slower than the rate, or hangs
CONNECT_TIMEOUT_S = 3.0
KEEP_ALIVE_S = 15
RECONNECT_MAX_S = 30
_BULK = 2  # TC_PRIO_BULK: of what waits in this machine for the line, alarms go first
_STUCK_S = 0.02

# A plug-in gets no clock; this one is the kernel's monotonic clock, as everywhere else.
Now = Callable[[], int]


class UpstreamStatistics(NamedTuple):
    """late: answers after their deadline, dropped. foreign: answers to nothing that was asked, dropped."""

    asked: int
    answered: int
    refused: int
    timed_out: int
    late: int
    foreign: int
    sent_bytes: int


class Pace:
    """A bucket without a burst: when the next message may go, so that the average stays below the rate. Pure."""

    def __init__(self, kbit_s: int) -> None:
        self._ns_per_byte = 8e6 / kbit_s
        self._free_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        return max(0, self._free_ns - now_ns)

    def sent(self, now_ns: int, size_bytes: int) -> None:
        self._free_ns = max(now_ns, self._free_ns) + int(size_bytes * self._ns_per_byte)


class MqttUpstream:
    """Implements `edged.infer.upstream.PackedUpstream`. Connects in the background and keeps trying until `close`."""

    def __init__(self, address: UpstreamAddress, *, now_ns: Now = time.perf_counter_ns) -> None:
        self._address = address
        self._now_ns = now_ns
        self._answers = f"{address.root}/answer/{secrets.token_hex(8)}"
        self._changed = threading.Condition()
        self._pace = Pace(address.kbit_s)
        self._waiting: dict[bytes, SimpleQueue[bytes | None]] = {}
        self._expired: dict[bytes, None] = {}  # ids whose deadline has passed, oldest first: to tell late from foreign
        self._unsent: list[paho.MQTTMessageInfo] = []
        self._up = False
        self._fault = ""
        self._closed = False
        self._counts = dict.fromkeys(UpstreamStatistics._fields, 0)
        self._client = self._make_client()
        self._client.loop_start()

    # --- asking: any thread ---

    def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
        try:
            packed = [to_packed(name, array) for name, array in tensors.items()]
        except ValueError as error:
            raise InferenceError("invalid_input", f"Cannot ask the upstream: {error}") from None
        return self.ask_packed(digest, packed, deadline_s)

    def ask_packed(self, digest: str, tensors: Sequence[Packed], deadline_s: float) -> Mapping[str, np.ndarray]:
        end_ns = self._now_ns() + int(deadline_s * 1e9)
        body = inference.body_of(tensors)
        headers = tuple(tensor.header for tensor in tensors)
        correlation = secrets.token_bytes(16)
        answers: SimpleQueue[bytes | None] = SimpleQueue()
        try:
            self._send(digest, headers, body, correlation, answers, end_ns)
            message = answers.get(timeout=max(0.0, (end_ns - self._now_ns()) / 1e9))
        except Empty:
            self._count("timed_out")
            raise InferenceError("upstream_timeout", f"No answer of the upstream within {deadline_s:.3g} s") from None
        finally:
            self._forget(correlation)
        if message is None:
            raise InferenceError("upstream_away", f"The line to the upstream broke: {self._fault}", retryable=True)
        return self._read(message, correlation.hex(), digest)

    def _send(
        self,
        digest: str,
        headers: tuple[inference.TensorHeader, ...],
        body: bytes,
        correlation: bytes,
        answers: SimpleQueue[bytes | None],
        end_ns: int,
    ) -> None:
        """Hand the question over when its turn comes. Raises `InferenceError`, `Empty` when that was too late."""
        sha256 = inference.digest_of(body)
        with self._changed:
            self._admit(end_ns)
            left_ms = (end_ns - self._now_ns()) // 1_000_000
            if left_ms < 1:
                raise Empty
            question = inference.Question(
                v=inference.VERSION,
                site=self._address.site,
                gateway=self._address.gateway,
                id=correlation.hex(),
                model=digest,
                answer_to=self._answers,
                within_ms=min(left_ms, inference.WITHIN_MAX_MS),
                sha256=sha256,
                tensors=headers,
            )
            try:
                message = inference.encode(question, body)
            except Refusal as refused:
                raise InferenceError("upstream_refused", f"Not asked: {refused}") from None
            self._waiting[correlation] = answers
            info = self._client.publish(
                f"{self._address.root}/ask", message, qos=0, properties=self._properties(correlation, left_ms)
            )
            self._pace.sent(self._now_ns(), len(message))
            self._unsent.append(info)
            self._counts["asked"] += 1
            self._counts["sent_bytes"] += len(message)

    def _admit(self, end_ns: int) -> None:
        """Wait until this question may leave: connected, few enough on their way, the rate kept."""
        while True:
            if self._closed:
                raise InferenceError("closed", "Cannot ask the upstream: the connection is closed")
            if self._client._thread is None:  # there is no public way to ask
                self._revive()
            if self._fault:
                raise InferenceError("upstream_away", f"The upstream is away: {self._fault}", retryable=True)
            self._unsent = [
                info for info in self._unsent if info.rc == paho.MQTT_ERR_SUCCESS and not info.is_published()
            ]
            now_ns = self._now_ns()
            pause_ns = self._pace.wait_ns(now_ns)
            full = len(self._waiting) >= IN_FLIGHT_MAX or len(self._unsent) >= UNSENT_MAX
            if self._up and not full and not pause_ns:
                return
            if now_ns >= end_ns or now_ns + pause_ns >= end_ns:
                raise self._not_admitted(full)
            until_ns = now_ns + pause_ns if pause_ns else end_ns
            # paho tells nobody that a packet of QoS 0 was written: look again soon
            self._changed.wait(min((until_ns - now_ns) / 1e9, _STUCK_S if full else math.inf))

    def _not_admitted(self, full: bool) -> InferenceError:
        if not self._up:
            return InferenceError("upstream_away", "The upstream is away: not connected yet", retryable=True)
        what = "as many questions are on their way as may" if full else f"{self._address.kbit_s} kbit/s are in use"
        return InferenceError("upstream_busy", f"Not asked in time: {what}", retryable=True)

    def _revive(self) -> None:
        """A packet that paho cannot stand ends its thread without a word: go on with a new client."""
        self._down("a broken packet ended the connection")
        try:
            client = self._make_client()
        except ModelError as error:  # certificates that have gone meanwhile
            raise InferenceError("upstream_away", error.message, retryable=True) from error
        _cut_ties(self._client)
        self._client = client
        client.loop_start()

    def _properties(self, correlation: bytes, left_ms: int) -> Properties:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self._answers
        properties.CorrelationData = correlation
        properties.MessageExpiryInterval = math.ceil(left_ms / 1000)
        return properties  # type: ignore[no-any-return]

    def _read(self, message: bytes, question_id: str, digest: str) -> Mapping[str, np.ndarray]:
        try:
            answer, tensors = inference.decode_answer(message)
            if (answer.id, answer.model) != (question_id, digest):
                raise Refusal("bad_message", "it is about something else than was asked")
            outputs = to_arrays(tensors)
        except Refusal as error:
            self._count("refused")
            raise InferenceError("upstream_refused", f"The upstream's answer cannot be used: {error.detail}") from None
        if answer.status != "ok":
            self._count("refused")
            code = "upstream_timeout" if answer.reason == "expired" else "upstream_refused"
            raise InferenceError(code, f"The upstream refuses: {answer.reason}: {answer.detail}")
        self._count("answered")
        return outputs

    def _forget(self, correlation: bytes) -> None:
        with self._changed:
            if self._waiting.pop(correlation, None) is not None:
                self._expired[correlation] = None
                while len(self._expired) > 64:
                    del self._expired[next(iter(self._expired))]
            self._changed.notify_all()

    def _count(self, what: str) -> None:
        with self._changed:
            self._counts[what] += 1

    def statistics(self) -> UpstreamStatistics:
        with self._changed:
            return UpstreamStatistics(**self._counts)

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        client = self._client
        client.disconnect()
        client.loop_stop()
        self._down("closed")
        _cut_ties(client)

    # --- the connection: paho's thread; nothing here may raise, that would end the thread without a word ---

    def _make_client(self) -> paho.Client:
        address = self._address
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edged-ask-{secrets.token_hex(6)}",
            protocol=paho.MQTTv5,
            reconnect_on_failure=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(1, RECONNECT_MAX_S)
        if address.tls:
            client.tls_set_context(_tls_context(address))
        client.on_pre_connect = self._before_connect
        client.on_socket_open = self._opened
        client.on_connect = self._connected
        client.on_connect_fail = self._connect_failed
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._arrived
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = inference.MESSAGE_MAX_BYTES + 4096
        client.connect_async(address.host, address.port, KEEP_ALIVE_S, clean_start=True, properties=properties)
        return client

    def _before_connect(self, client: paho.Client, _data: object) -> None:
        """The password is read at each connect, so that a rotated one is used."""
        address = self._address
        if not address.username:
            return
        password = None
        if address.password_file:
            with suppress(OSError, ValueError):  # the broker will refuse us, and that is told
                password = Path(address.password_file).read_text(encoding="utf-8").split("\n", 1)[0].strip()
        client.username_pw_set(address.username, password)

    def _opened(self, _client: paho.Client, _data: object, line: Any) -> None:
        with suppress(OSError, AttributeError):
            line.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _BULK)

    def _connected(self, client: paho.Client, _data: object, _flags: object, reason: Any, _more: object) -> None:
        if reason.is_failure:
            self._down(f"the broker refuses us: {reason}")
        else:
            client.subscribe(self._answers, qos=0)

    def _subscribed(self, _client: paho.Client, _data: object, _mid: int, reasons: Any, _more: object) -> None:
        if any(reason.is_failure for reason in reasons):
            self._down(f"the broker refuses the subscription to {self._answers}: {reasons[0]}")
            return
        with self._changed:
            self._up, self._fault = True, ""
            self._changed.notify_all()

    def _connect_failed(self, _client: paho.Client, _data: object) -> None:
        self._down(f"{self._address.host}:{self._address.port} cannot be reached")

    def _disconnected(self, _client: paho.Client, _data: object, _flags: object, reason: Any, _more: object) -> None:
        self._down(self._fault or f"the connection ended: {reason}")  # a refusal said more

    def _down(self, fault: str) -> None:
        with self._changed:
            self._up, self._fault = False, fault
            self._unsent.clear()
            for answers in self._waiting.values():
                answers.put(None)  # whatever comes after a new connection is not for this one
            self._changed.notify_all()

    def _arrived(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        with self._changed:
            answers = self._waiting.get(correlation) if correlation is not None else None
            if answers is not None and answers.empty():
                answers.put(bytes(message.payload))
            else:
                self._counts["late" if correlation in self._expired else "foreign"] += 1


def _cut_ties(client: paho.Client) -> None:
    """Break the circle of references, so that paho closes its sockets now and not at some garbage collection."""
    client.on_connect = client.on_subscribe = client.on_disconnect = client.on_connect_fail = None
    client.on_message = client.on_pre_connect = client.on_socket_open = None


def _tls_context(address: UpstreamAddress) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificate and name checked. Raises `ModelError` (`device_unavailable`)."""
    try:
        context = ssl.create_default_context(cafile=address.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if address.cert_file:
            context.load_cert_chain(address.cert_file, address.key_file or None)
    except OSError as error:  # also ssl.SSLError
        raise ModelError(
            "device_unavailable",
            f"Cannot ask the upstream: its TLS files cannot be used: {error}",
            hint="check ca_file, cert_file and key_file in [upstream]",
        ) from error
    return context


# --- one connection for all who ask ---

_shared: dict[UpstreamAddress, tuple[MqttUpstream, int]] = {}
_sharing = threading.Lock()


class Lease:
    """A share of the connection to an address; the last one that closes ends it. Implements `PackedUpstream`."""

    def __init__(self, address: UpstreamAddress) -> None:
        self._address = address
        self._held = True
        with _sharing:
            upstream, users = _shared.get(address) or (MqttUpstream(address), 0)
            _shared[address] = upstream, users + 1
        self._upstream = upstream

    def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
        return self._upstream.ask(digest, tensors, deadline_s)

    def ask_packed(self, digest: str, tensors: Sequence[Packed], deadline_s: float) -> Mapping[str, np.ndarray]:
        return self._upstream.ask_packed(digest, tensors, deadline_s)

    def statistics(self) -> UpstreamStatistics:
        return self._upstream.statistics()

    def close(self) -> None:
        with _sharing:
            if not self._held:
                return
            self._held = False
            upstream, users = _shared.pop(self._address)
            if users > 1:
                _shared[self._address] = upstream, users - 1
                return
        upstream.close()


def connect(address: UpstreamAddress) -> Lease:
    """Ask at this address. Does not wait for the connection. Raises `ModelError` (`device_unavailable`)."""
    return Lease(address)
