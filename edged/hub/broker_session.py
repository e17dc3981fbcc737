"""One connection to the broker: a paho client with its thread, from connect to disconnect. Never used again afterwards.

A new client for each connection, so that nothing of the last one is hidden in it: no answers, no packet ids.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.errors import LinkError

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.reasoncodes import ReasonCode

    from edged.hub.decisions import Protocol

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
PACKET_MAX_BYTES = (
    16_777_216  # what is larger than a batch may be is still answered up to here; beyond it the broker drops
)
QUEUED_ANSWERS_MAX = 2_000
RECEIVE_MAXIMUM_FACTOR = 4  # of the batches in hand: room to say `busy` to others meanwhile
_DO_NOT_SEND_RETAINED = SubscribeOptions.RETAIN_DO_NOT_SEND


class Address(NamedTuple):
    """Where and as whom to connect. tls: None for plain TCP."""

    host: str
    port: int
    client_id: str
    username: str
    password: str
    keep_alive_s: int
    tls: ssl.SSLContext | None


class Message(NamedTuple):
    """A message as it came. token: 0 when the broker wants no acknowledgement (QoS 0).

    answer_to, correlation: what MQTT 5 says about the answer; empty where it says nothing.
    """

    topic: str
    payload: bytes
    retained: bool
    token: int
    answer_to: str = ""
    correlation: bytes = b""


class AckOrder:
    """PUBACKs leave in the order in which their messages came, as MQTT demands [MQTT-4.6.0-2]."""

    def __init__(self) -> None:
        self._done: dict[int, bool] = {}  # in order of arrival

    def __len__(self) -> int:
        return len(self._done)

    def came(self, token: int) -> None:
        self._done[token] = False

    def done(self, token: int) -> list[int]:
        """What may be acknowledged now."""
        if token in self._done:
            self._done[token] = True
        ready: list[int] = []
        for mid, done in self._done.items():
            if not done:
                break
            ready.append(mid)
        for mid in ready:
            del self._done[mid]
        return ready


class Session:
    """A connection. Callbacks run in paho's thread: `on_message` decides there; all else is posted to the loop."""

    def __init__(
        self,
        address: Address,
        protocol: Protocol,
        filters: list[str],
        receive_maximum: int,
        on_message: Callable[[Session, Message], None],
        on_denied: Callable[[str], None],
    ) -> None:
        self._address = address
        self._filters = filters
        self._receive_maximum = receive_maximum
        self._on_message = on_message
        self._on_denied = on_denied
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._acks = AckOrder()
        self.refused_version = False
        """The broker closed the door before it said anything, or said that it does not know this version."""
        self.up: asyncio.Future[None] = self._loop.create_future()
        """Done when every subscription is granted; fails with `LinkError`."""
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why the connection is over."""
        self._answered = False
        self._v5 = protocol == "5"
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if self._v5 else True,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._configure()

    def _configure(self) -> None:
        client, address = self._client, self._address
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_queued_messages = QUEUED_ANSWERS_MAX
        if address.username:
            client.username_pw_set(address.username, address.password or None)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_message = self._received

    def open(self) -> None:
        """Connect and start the thread. Blocks: call it off the loop.

        Raises:
            OSError: no such host, refused, timeout, TLS.
        """
        address = self._address
        if self._v5:
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = self._receive_maximum
            properties.MaximumPacketSize = PACKET_MAX_BYTES
            self._client.connect(
                address.host, address.port, address.keep_alive_s, clean_start=True, properties=properties
            )
        else:
            self._client.connect(address.host, address.port, address.keep_alive_s)
        self._client.loop_start()

    def answer(self, topic: str, payload: bytes, *, qos: int = 1, correlation: bytes = b"", expiry_s: int = 0) -> str:
        """Send an answer; "" or why it did not leave. From any thread, never blocks for long."""
        properties = _answer_properties(correlation, expiry_s) if self._v5 else None
        result = self._client.publish(topic, payload, qos=qos, properties=properties).rc
        return "" if result == paho.MQTT_ERR_SUCCESS else "queue_full" if result == paho.MQTT_ERR_QUEUE_SIZE else "away"

    def done(self, token: int) -> None:
        """The message is answered: acknowledge it when its turn comes. From any thread."""
        if not token:
            return
        with self._lock:
            for mid in self._acks.done(token):
                self._client.ack(mid, 1)

    def pause(self) -> None:
        """Let the broker give new messages to others; what is in hand can still be answered."""
        self._client.unsubscribe(self._filters)

    async def close(self) -> None:
        """Say goodbye; when the broker does not even take that, cut the line."""
        self.up.cancel()
        if self.up.done() and not self.up.cancelled():
            self.up.exception()  # whoever waited has seen it, or nobody waits any more
        if self.alive:
            self._client.disconnect()
            await asyncio.wait({self.ended}, timeout=CLOSE_TIMEOUT_S)
        line = self._client.socket()
        if line is not None and not self.ended.done():
            with suppress(OSError):
                cast("socket.socket", line).shutdown(socket.SHUT_RDWR)  # paho's thread notices, and ends
        self._forget()

    def _forget(self) -> None:
        """Break the circle of references, so that paho closes its sockets now and not at some garbage collection."""
        client = self._client
        client.on_connect = client.on_subscribe = client.on_disconnect = None
        client.on_publish = client.on_message = None

    @property
    def alive(self) -> bool:
        """Whether paho's thread runs. It dies without a word when a packet is more than paho can stand."""
        return self._client._thread is not None  # there is no public way to ask

    # --- in paho's thread: nothing here may raise, that would kill it ---

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: nobody listens any more
            pass

    def _connected(self, _client: object, _data: object, _flags: object, reason: ReasonCode, _more: object) -> None:
        self._answered = True
        if not reason.is_failure:
            options = [(each, SubscribeOptions(qos=1, retainHandling=_DO_NOT_SEND_RETAINED)) for each in self._filters]
            self._client.subscribe(options if self._v5 else [(each, 1) for each in self._filters])
            return
        self.refused_version = str(reason) == "Unsupported protocol version"
        self._post(self._fail, f"the broker refuses us: {reason}", "check username, password_file and certificates")

    def _subscribed(self, _client: object, _data: object, _mid: int, reasons: list[ReasonCode], _more: object) -> None:
        failed = [
            f"{name} ({reason})" for name, reason in zip(self._filters, reasons, strict=False) if reason.is_failure
        ]
        if failed:
            hint = "allow it in the broker's access list; shared = false where there are no shared subscriptions"
            self._post(self._fail, f"the broker refuses the subscription {failed[0]}", hint)
        else:
            self._post(_finish, self.up, None)

    def _disconnected(self, _client: object, _data: object, _flags: object, reason: ReasonCode, _more: object) -> None:
        self._post(self._end, str(reason))

    def _published(self, _client: object, _data: object, _mid: int, reason: ReasonCode, _more: object) -> None:
        if reason.is_failure:
            self._post(self._on_denied, str(reason))

    def _received(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        token = message.mid if message.qos else 0
        if token:
            with self._lock:
                self._acks.came(token)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        answer_to = getattr(message.properties, "ResponseTopic", "")
        correlation = getattr(message.properties, "CorrelationData", b"")
        self._on_message(self, Message(topic, bytes(message.payload), message.retain, token, answer_to, correlation))

    # --- on the loop ---

    def _fail(self, text: str, hint: str) -> None:
        if not self.up.done():
            self.up.set_exception(LinkError(text, hint=hint))

    def _end(self, why: str) -> None:
        self.refused_version = self.refused_version or not self._answered
        self._fail(f"the connection ended: {why}", "look at the broker's log")
        _finish(self.ended, why)


def _answer_properties(correlation: bytes, expiry_s: int) -> Properties | None:
    if not correlation and not expiry_s:
        return None
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if correlation:
        properties.CorrelationData = correlation
    if expiry_s:
        properties.MessageExpiryInterval = expiry_s
    return properties  # type: ignore[no-any-return]


def _finish(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
