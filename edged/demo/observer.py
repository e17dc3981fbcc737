"""SCADA's side of the broker: subscribes to everything below the gateway's root and reports what it hears."""

from __future__ import annotations

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.demo.broker import HOST
from edged.demo.facts import Facts, Heard
from edged.ports import Clock


class Observer:
    """A second client that listens in a thread of paho's. The `with` block connects and disconnects it."""

    def __init__(self, root: str, *, port: int, facts: Facts, clock: Clock) -> None:
        self._filter = f"{root}/#"
        self._port = port
        self._facts = facts
        self._clock = clock
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "demo-scada", protocol=mqtt.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message

    def __enter__(self) -> Observer:
        self._client.connect(HOST, self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self,
        client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        client.subscribe(self._filter, options=SubscribeOptions(qos=1))

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        at_ns = self._clock.mono_ns()
        self._facts.put(Heard(message.topic, bytes(message.payload), message.retain, at_ns))
