"""Batches through a broker: the same MQTT client as for the plant, a second connection with an identity of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edged.messages import Outbound
from edged.mqtt.configured import password_of, tls_settings
from edged.mqtt.link import MqttLink
from edged.mqtt.settings import LinkSettings
from edged.sync.dispatch import PAYLOAD_MAX_BYTES
from edged.sync.protocol import Stream

if TYPE_CHECKING:
    from edged.ports import Clock, SessionInfo
    from edged.uplink.carrier import CarrierListener
    from edged.uplink.lines import Start

TOPIC_BYTES = 512  # topic and properties around a payload
HELLO_EXPIRY_S = 60  # said again anyway; a hub that was away must not find hours of them
BATCH_EXPIRY_S = 300
KEEP_ALIVE_S = 30  # a slow line with losses is silent for long without being dead
ACK_TIMEOUT_S = 90.0
PATIENCE_MOST = 8.0  # over a radio in a valley it is better to wait for minutes than to begin anew for ever


class MqttCarrier:
    """Implements `edged.uplink.carrier.Carrier`, and `edged.ports.LinkListener` towards the link."""

    def __init__(self, start: Start, listener: CarrierListener, clock: Clock, chance: Callable[[], float]) -> None:
        self._listener = listener
        self._root = f"edged/v1/{start.site}/{start.gateway}/sync"
        self._waiting: dict[int, Outbound] = {}  # no more than the window and a hello
        self._link = MqttLink(_settings(start, f"{self._root}/+/ack"), self, clock, chance)

    # --- Carrier ---

    async def run(self) -> None:
        await self._link.run()

    async def close(self) -> None:
        await self._link.close(drain_s=0.0)

    def hello(self, key: int, payload: bytes) -> None:
        topic = f"{self._root}/hello".encode()
        self._waiting[key] = Outbound(topic, payload, key, expiry_s=HELLO_EXPIRY_S)
        self._flush()

    def batch(self, key: int, stream: Stream, payload: bytes) -> None:
        topic = f"{self._root}/{stream}/batch".encode()
        self._waiting[key] = Outbound(topic, payload, key, expiry_s=BATCH_EXPIRY_S)
        self._flush()

    def _flush(self) -> None:
        if self._waiting:
            keys = list(self._waiting)
            for key in keys[: self._link.send(list(self._waiting.values()))]:
                del self._waiting[key]

    # --- LinkListener ---

    def on_inbox(self) -> None:
        generation, messages = self._link.take(100)
        for message in messages:
            _packet_id, topic, payload, _retain = message
            if topic == f"{self._root}/hello/ack":
                self._listener.on_hello_answer(payload)
            else:
                self._listener.on_answer(payload)
        self._link.send(
            (),
            [message[0] for message in messages if message[0]],
            generation=generation,
            released_count=len(messages),
            released_bytes=sum(len(message[2]) for message in messages),
        )

    def on_up(self, session: SessionInfo) -> None:
        self._waiting.clear()
        largest = session.max_packet_bytes - TOPIC_BYTES
        self._listener.on_up(min(PAYLOAD_MAX_BYTES, largest) if session.max_packet_bytes else PAYLOAD_MAX_BYTES)

    def on_down(self, code: str, detail: str) -> None:
        self._waiting.clear()
        self._listener.on_down(f"{code}: {detail}")

    def on_settled(self, acknowledged: Sequence[int], refused: Sequence[tuple[int, str]]) -> None:
        for key in acknowledged:
            self._listener.on_carried(key)
        for key, reason in refused:
            self._listener.on_refused(key, reason)
        self._flush()

    def on_alarm(self, code: str, active: bool, detail: str) -> None:
        self._listener.on_trouble(code, active, detail)


def _settings(start: Start, answers: str) -> LinkSettings:
    upstream = start.upstream
    return LinkSettings(
        host=upstream.host,
        port=upstream.port,
        client_id=upstream.client_id,
        tls=tls_settings(upstream),
        username=upstream.username,
        password=password_of(upstream),
        protocol=upstream.protocol,
        keep_alive_s=KEEP_ALIVE_S,
        session_expiry_s=0,  # an answer that was missed is in the answer to the next hello
        max_inflight_out=upstream.window + 2,
        filters=(answers,),
        max_publish_bytes=PAYLOAD_MAX_BYTES + TOPIC_BYTES,
        max_packet_bytes=1_000_000,
        max_write_buffer_bytes=(upstream.window + 1) * (PAYLOAD_MAX_BYTES + TOPIC_BYTES),
        ack_timeout_s=ACK_TIMEOUT_S,
        patience_most=PATIENCE_MOST,
    )
