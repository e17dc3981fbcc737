"""The plant's side of the broker: publishes every sample at QoS 1 and reports what the broker acknowledged."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.demo.broker import HOST
from edged.demo.facts import Acknowledged, Broken, Facts, Published
from edged.demo.fleet import Plant
from edged.demo.plant import FIELDS
from edged.ports import Clock

IN_FLIGHT_LIMIT = 500  # events without the broker's acknowledgement; then the plant waits
_FINISH_S = 10.0
_LATE_NS = 1_000_000_000  # a plant that fell behind this far goes on from now instead of catching up
_PUMPS_PER_LINE = 3
_LINES = "abcdefghijklmnopqrstuvwxyz"
_encode = msgspec.json.Encoder().encode


class PumpName(NamedTuple):
    """A pump's topic, and the device name that the daemon makes of it."""

    topic: str
    device: str


def pump_names(count: int) -> list[PumpName]:
    """Three pumps on each production line: plant/a/pump/1, ..."""
    places = [(_LINES[n // _PUMPS_PER_LINE % len(_LINES)], n + 1) for n in range(count)]
    return [PumpName(f"plant/{line}/pump/{number}", f"{line}-{number}") for line, number in places]


class Publisher(threading.Thread):
    """Publishes `rate_hz` events per second and pump, evenly spread, until `finish` is called.

    Uses paho's loop in this one thread, so that an acknowledgement never overtakes the note of what it acknowledges.
    """

    def __init__(self, plant: Plant, *, port: int, rate_hz: float, facts: Facts, clock: Clock) -> None:
        super().__init__(name="demo-plant", daemon=True)
        self._plant = plant
        self._pumps = pump_names(plant.count)
        self._port = port
        self._slot_ns = int(1e9 / rate_hz / plant.count)
        self._facts = facts
        self._clock = clock
        self._boot = f"plant-{clock.wall_ms():x}"
        self._finishing = threading.Event()
        self._in_flight: dict[int, tuple[str, int]] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "demo-plant", protocol=mqtt.MQTTv5)
        self._client.max_inflight_messages_set(IN_FLIGHT_LIMIT)
        self._client.on_publish = self._on_publish

    def finish(self) -> None:
        """Publish no more; the thread ends when the broker has acknowledged everything."""
        self._finishing.set()

    def run(self) -> None:
        try:
            self._client.connect(HOST, self._port)
            while not self._client.is_connected():
                self._turn(0.1)
            self._publish_until_finished()
            self._await_acknowledgements()
        except (OSError, ConnectionError) as error:
            self._facts.put(Broken(f"the plant lost the broker: {error}"))
        finally:
            self._client.disconnect()

    def _publish_until_finished(self) -> None:
        now_ns = self._clock.mono_ns
        due_ns = now_ns()
        number = 0
        values = self._plant.advance()[0]
        while not self._finishing.is_set():
            wait_ns = due_ns - now_ns()
            if wait_ns > 0 or len(self._in_flight) >= IN_FLIGHT_LIMIT:
                self._turn(min(max(wait_ns, 1_000_000) / 1e9, 0.1))
                continue
            cycle, pump = divmod(number, len(self._pumps))
            if pump == 0:
                values = self._plant.advance()[0]
            self._publish(self._pumps[pump], cycle + 1, values[pump].tolist())
            number += 1
            due_ns = due_ns + self._slot_ns if wait_ns > -_LATE_NS else now_ns()

    def _publish(self, pump: PumpName, seq: int, values: list[float]) -> None:
        ts = datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        event = {"ts": ts, "seq": seq, "boot": self._boot}
        payload = _encode(event | {name: round(value, 4) for name, value in zip(FIELDS, values, strict=True)})
        self._facts.put(Published(pump.device, seq, self._clock.mono_ns()))
        info = self._client.publish(pump.topic, payload, qos=1)
        self._in_flight[info.mid] = (pump.device, seq)

    def _await_acknowledgements(self) -> None:
        deadline_ns = self._clock.mono_ns() + int(_FINISH_S * 1e9)
        while self._in_flight and self._clock.mono_ns() < deadline_ns:
            self._turn(0.05)

    def _turn(self, timeout_s: float) -> None:
        outcome = self._client.loop(timeout_s)
        if outcome != mqtt.MQTT_ERR_SUCCESS:
            raise ConnectionError(mqtt.error_string(outcome))

    def _on_publish(
        self, _client: mqtt.Client, _userdata: object, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        device, seq = self._in_flight.pop(mid)
        if reason.is_failure:
            self._facts.put(Broken(f"the broker refused event {seq} of {device}: {reason}"))
        else:
            self._facts.put(Acknowledged(device, seq, self._clock.mono_ns()))
