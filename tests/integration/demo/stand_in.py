"""A stand-in for the daemon: answers every event over MQTT without looking at it, and misbehaves when told to.

Run as `python stand_in.py WAY run --config FILE`. WAY: honest, forgetful (loses every 50th result), doubtful (a second
result with another id for every 50th), mute (never says online), mortal (ends by itself after 50 events).
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROOT = "edged/v1/demo/gw-01"
WINDOW, STRIDE, FAULT_EVERY = 32, 8, 50


class StandIn:
    """Acknowledges an event when the broker has its results, so that a kill loses nothing."""

    def __init__(self, way: str, port: int) -> None:
        self.way = way
        self.port = port
        self.awaited: dict[int, tuple[int, int, set[int]]] = {}
        self.seen = 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, "stand-in", protocol=mqtt.MQTTv5, manual_ack=True)
        self.client.reconnect_delay_set(1, 1)
        self.client.will_set(f"{ROOT}/state", json.dumps({"state": "offline"}), qos=1, retain=True)
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.on_publish = self.on_publish

    def run(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 600
        self.client.connect("127.0.0.1", self.port, clean_start=False, properties=properties)
        self.client.loop_forever()

    def on_connect(self, client, _userdata, _flags, _reason, _properties) -> None:  # type: ignore[no-untyped-def]
        self.awaited.clear()
        client.subscribe("plant/+/pump/+", qos=1)
        if self.way != "mute":
            client.publish(f"{ROOT}/state", json.dumps({"state": "online"}), qos=1, retain=True)
            client.publish(f"{ROOT}/mode", json.dumps({"mode": "normal", "reasons": []}), qos=1, retain=True)

    def on_message(self, _client, _userdata, message) -> None:  # type: ignore[no-untyped-def]
        self.seen += 1
        if self.way == "mortal" and self.seen == FAULT_EVERY:
            print("that is enough", flush=True)
            os._exit(75)
        _, line, _, number = message.topic.split("/")
        device, seq = f"{line}-{number}", json.loads(message.payload)["seq"]
        waiting: set[int] = set()
        if not (self.way == "forgetful" and self.seen % FAULT_EVERY == 0):
            waiting.add(self.answer("anomaly", device, seq, f"a/{device}/{seq}"))
        if self.way == "doubtful" and self.seen % FAULT_EVERY == 0:
            waiting.add(self.answer("anomaly", device, seq, f"again/{device}/{seq}"))
        if seq >= WINDOW and (seq - WINDOW) % STRIDE == 0:
            waiting.add(self.answer("condition", device, seq, f"c/{device}/{seq}"))
        for mid in waiting:
            self.awaited[mid] = (message.mid, message.qos, waiting)
        if not waiting:
            self.client.ack(message.mid, message.qos)

    def answer(self, pipeline: str, device: str, seq: int, result_id: str) -> int:
        body: dict[str, object] = {"v": "edged.result/1", "id": result_id, "device": device, "pipeline": pipeline}
        body |= {"input": {"seq": seq}, "label": "ok", "score": 0.5, "quality": 192}
        return self.client.publish(f"{ROOT}/result/{device}/{pipeline}", json.dumps(body), qos=1).mid

    def on_publish(self, _client, _userdata, mid, _reason, _properties) -> None:  # type: ignore[no-untyped-def]
        message_mid, qos, waiting = self.awaited.pop(mid, (0, 0, set()))
        waiting.discard(mid)
        if message_mid and not waiting:
            self.client.ack(message_mid, qos)


if __name__ == "__main__":
    if sys.argv[2] == "status":
        if sys.argv[1] == "doubtful":
            sys.exit(1)
        print(json.dumps({"ledger": {"inputs": {"all": {"received": 7, "stored": 7}}, "balanced": True}}))
        sys.exit(0)
    settings = tomllib.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    StandIn(sys.argv[1], urlsplit(settings["broker"]["url"]).port or 0).run()
