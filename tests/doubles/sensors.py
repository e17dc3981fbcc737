"""Sensors that count: numbered events at QoS 1, and the exact list of those the broker has acknowledged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.doubles.waiting import until

EPOCH_MS = 1_760_000_000_000
STEP_MS = 10


class Event(NamedTuple):
    device: str
    seq: int


def a_of(seq: int) -> float:
    """A reading that a float32 holds exactly, also summed over a window."""
    return (seq % 4096) * 0.25


def b_of(device: str) -> float:
    return float(device.rpartition("-")[2])


def payload(event: Event, **more: object) -> bytes:
    """ts: a clock of the sensor's own, ten milliseconds per event."""
    body = {"ts": EPOCH_MS + event.seq * STEP_MS, "seq": event.seq, "a": a_of(event.seq), "b": b_of(event.device)}
    return json.dumps(body | more).encode()


def total(device: str, seqs: Iterable[int]) -> float:
    """What the models answer for a window of these events."""
    return sum(a_of(seq) + b_of(device) for seq in seqs)


def devices(count: int, first: int = 0) -> list[str]:
    return [f"dev-{number}" for number in range(first, first + count)]


class Sensors:
    """One MQTT client for several devices; it reconnects and repeats by itself, so that nothing it accepted is lost.

    acknowledged: events whose PUBACK came. sent: the newest seq of each device, counted from 1.
    """

    def __init__(self, port: int, names: Sequence[str], *, topic: str = "in", inflight: int = 200) -> None:
        self.names = list(names)
        self.sent = dict.fromkeys(self.names, 0)
        self.acknowledged: set[Event] = set()
        self._topic = topic
        self._port = port
        self._lock = threading.Lock()
        self._waiting: dict[int, Event | None] = {}
        self._early: set[int] = set()  # acknowledged before `publish` has told us the message id
        self._stopping = threading.Event()
        self._room = threading.BoundedSemaphore(inflight)
        self._thread: threading.Thread | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(inflight)
        self._client.max_queued_messages_set(0)
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]  # fractions work
        self._client.on_publish = self._on_publish

    def _on_publish(self, _client: object, _data: object, mid: int, reason: ReasonCode, _properties: object) -> None:
        if reason.is_failure:
            return
        with self._lock:
            if mid in self._waiting:
                self._landed(self._waiting.pop(mid))
            else:
                self._early.add(mid)

    def _landed(self, event: Event | None) -> None:
        if event is not None:
            self.acknowledged.add(event)
        self._room.release()

    def publish(self, device: str, *, skip: int = 0, **more: object) -> Event:
        """The next event of a device; `skip` numbers before it are never sent. Waits while too many are in flight."""
        self.sent[device] += 1 + skip
        event = Event(device, self.sent[device])
        self.raw(f"{self._topic}/{device}", payload(event, **more), event)
        return event

    def raw(self, topic: str, body: bytes, event: Event | None = None) -> None:
        """Any message; `event` is what it is booked as."""
        self._room.acquire()
        info = self._client.publish(topic, body, qos=1)
        with self._lock:
            if info.mid in self._early:
                self._early.discard(info.mid)
                self._landed(event)
            else:
                self._waiting[info.mid] = event

    def round(self, times: int = 1) -> None:
        """So many events of every device."""
        for _ in range(times):
            for device in self.names:
                self.publish(device)

    def stream(self) -> Sensors:
        """Go on in the background, as fast as the broker takes them, until `pause`."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._stream, daemon=True)
        self._thread.start()
        return self

    def _stream(self) -> None:
        while not self._stopping.is_set():
            self.round()

    def trickle(self, every_s: float) -> Sensors:
        """Go on in the background at a calm pace, until `pause`."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._trickle, args=(every_s,), daemon=True)
        self._thread.start()
        return self

    def _trickle(self, every_s: float) -> None:
        while not self._stopping.wait(every_s):
            self.round()

    def pause(self, within_s: float = 30.0) -> int:
        """Stop streaming and wait until everything is acknowledged; returns how many events are."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(within_s)
            assert not self._thread.is_alive(), "the sensors still stream"
            self._thread = None
        until(lambda: not self._waiting, "the broker acknowledged every event", within_s)
        return len(self.acknowledged)

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def __enter__(self) -> Sensors:
        self._client.connect("127.0.0.1", self._port, 60)
        self._client.loop_start()
        until(self._client.is_connected, "the sensors are connected")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # else paho closes them when it is collected, in the middle of another test


def seqs_of(events: Iterable[Event], device: str) -> list[int]:
    return sorted(event.seq for event in events if event.device == device)


Result = dict[str, Any]
