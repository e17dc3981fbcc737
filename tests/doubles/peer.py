"""An independent MQTT client (paho, in its own thread): what a sensor or a SCADA is to the daemon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from types import TracebackType

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

DEADLINE_S = 20.0


class Peer:
    """Connects on entry. `messages`: (topic, payload, retain) in order of arrival."""

    def __init__(self, port: int, *filters: str, client_id: str = "", username: str = "", password: str = "") -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._port = port
        self._filters = filters
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(20)
        self._client.max_queued_messages_set(0)
        if username:
            self._client.username_pw_set(username, password)
        self._client.on_connect = lambda *_: self._subscribe()
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, m: self.messages.append((m.topic, bytes(m.payload), m.retain))

    def _subscribe(self) -> None:
        if self._filters:
            self._client.subscribe([(wanted, SubscribeOptions(qos=1)) for wanted in self._filters])
        else:
            self._ready.set()

    async def publish(
        self, topic: str, payloads: Iterable[bytes], *, qos: int = 1, retain: bool = False, expiry_s: int = 0
    ) -> None:
        """Publish all and wait until the broker has acknowledged them."""
        properties = None
        if expiry_s:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        sent = [self._client.publish(topic, payload, qos, retain, properties) for payload in payloads]
        for info in sent:
            await asyncio.to_thread(info.wait_for_publish, DEADLINE_S)
        assert all(info.is_published() for info in sent), "the broker did not acknowledge the peer's messages"

    async def __aenter__(self) -> Peer:
        await asyncio.to_thread(self._client.connect, "127.0.0.1", self._port, 60)
        self._client.loop_start()
        assert await asyncio.to_thread(self._ready.wait, DEADLINE_S), "the peer did not get connected"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        # paho closes its wake-up sockets only when it is collected, which may be in the middle of another test
        self._client._reset_sockets()
