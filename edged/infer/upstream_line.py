"""One MQTT 5 connection to the upstream's broker: a paho client with its thread, which reconnects until `close`."""

from __future__ import annotations

import secrets
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.errors import ModelError
from edged.sync.inference import MESSAGE_MAX_BYTES

if TYPE_CHECKING:
    from edged.infer.upstream import UpstreamAddress

CONNECT_TIMEOUT_S = 3.0
KEEP_ALIVE_S = 15
RECONNECT_MAX_S = 30
_BULK = 2  # TC_PRIO_BULK: where the machine's queue knows priorities, alarms pass


class LineListener(Protocol):
    """Who asks. Called in paho's thread; must neither block nor raise: that would end the thread without a word."""

    def on_up(self) -> None:
        """Connected, and answers are subscribed to."""

    def on_down(self, fault: str) -> None: ...

    def on_answer(self, correlation: bytes | None, payload: bytes) -> None: ...


class Line:
    """The connection. Never used again after `close`.

    Raises:
        ModelError: `device_unavailable`, the TLS files cannot be used.
    """

    def __init__(self, address: UpstreamAddress, answers: str, listener: LineListener) -> None:
        self._address = address
        self._answers = answers
        self._listener = listener
        self._refused = ""
        self._client = client = paho.Client(
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
        properties.MaximumPacketSize = MESSAGE_MAX_BYTES + 4096
        client.connect_async(address.host, address.port, KEEP_ALIVE_S, clean_start=True, properties=properties)
        client.loop_start()

    @property
    def alive(self) -> bool:
        """Whether paho's thread runs. It dies without a word of what paho does not expect."""
        return self._client._thread is not None  # there is no public way to ask

    def send(self, topic: str, payload: bytes, *, correlation: bytes, expiry_s: int) -> paho.MQTTMessageInfo:
        """Hand a question over, QoS 0; never blocks. The result says whether it was written. Any thread."""
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self._answers
        properties.CorrelationData = correlation
        properties.MessageExpiryInterval = expiry_s
        return self._client.publish(topic, payload, qos=0, properties=properties)

    def close(self) -> None:
        """Say goodbye. Idempotent; takes as long as connecting may, at most."""
        client = self._client
        client.disconnect()
        client.loop_stop()
        # Breaks the circle of references, so that paho closes its sockets now and not at some garbage collection.
        client.on_connect = client.on_subscribe = client.on_disconnect = client.on_connect_fail = None
        client.on_message = client.on_pre_connect = client.on_socket_open = None

    # --- paho's thread ---

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
        with suppress(OSError, AttributeError):  # some kernels and some kinds of sockets know no priorities
            line.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _BULK)

    def _connected(self, client: paho.Client, _data: object, _flags: object, reason: Any, _more: object) -> None:
        if reason.is_failure:
            self._refused = f"the broker refuses us: {reason}"
        else:
            client.subscribe(self._answers, qos=0)

    def _subscribed(self, _client: paho.Client, _data: object, _mid: int, reasons: Any, _more: object) -> None:
        if any(reason.is_failure for reason in reasons):
            self._listener.on_down(f"the broker refuses the subscription to {self._answers}: {reasons[0]}")
        else:
            self._listener.on_up()

    def _connect_failed(self, _client: paho.Client, _data: object) -> None:
        self._listener.on_down(f"{self._address.host}:{self._address.port} cannot be reached")

    def _disconnected(self, _client: paho.Client, _data: object, _flags: object, reason: Any, _more: object) -> None:
        refused, self._refused = self._refused, ""
        self._listener.on_down(refused or f"the connection ended: {reason}")

    def _arrived(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._listener.on_answer(getattr(message.properties, "CorrelationData", None), bytes(message.payload))


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
