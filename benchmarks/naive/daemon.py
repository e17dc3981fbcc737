"""The usual way: a callback per message that validates, infers, commits and publishes. Durable, one event at a time.

Usage: daemon.py PORT MODEL DATABASE
"""

from __future__ import annotations

import json
import sqlite3
import sys

import numpy as np
import onnxruntime
import paho.mqtt.client as mqtt
import pydantic
from paho.mqtt.enums import CallbackAPIVersion


class Event(pydantic.BaseModel):
    device_id: str
    sensor: str
    ts: int
    seq: int
    values: list[float]


def main(port: int, model: str, database: str) -> None:
    store = sqlite3.connect(database, check_same_thread=False)
    store.execute("pragma journal_mode = wal")
    store.execute("pragma synchronous = full")
    store.execute("create table event (id integer primary key, ts integer, device text, payload text, result text)")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def on_connect(client: mqtt.Client, *_: object) -> None:
        client.subscribe("in/+", qos=1)

    def on_message(client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        event = Event.model_validate_json(message.payload)
        scores = session.run(None, {"x": np.array([event.values], np.float32)})[0][0]
        answer = {**event.model_dump(exclude={"values"}), "label": int(scores.argmax()), "score": float(scores.max())}
        result = json.dumps(answer, separators=(",", ":"))
        with store:
            store.execute(
                "insert into event (ts, device, payload, result) values (?, ?, ?, ?)",
                (event.ts, event.device_id, message.payload, result),
            )
        client.publish("out" + message.topic[2:], result, qos=1)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-naive")
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
