"""A hub that answers questions as a script says: late, twice, with garbage, in another's name, or never."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.sync import inference
from edged.sync.inference import Question
from edged.sync.tensors import to_arrays, to_packed

READY_S = 20.0


class Reply(NamedTuple):
    """correlation None: that of the question."""

    payload: bytes
    correlation: bytes | None = None


Arrays = dict[str, np.ndarray]
Script = Callable[[Question, Arrays], Sequence[Reply]]


def answer(question: Question, outputs: Arrays, **changes: Any) -> bytes:
    """A right answer, but for `changes` of its first line."""
    packed = [to_packed(name, array) for name, array in outputs.items()]
    body = inference.body_of(packed)
    fields: dict[str, Any] = {
        "v": inference.VERSION,
        "id": question.id,
        "model": question.model,
        "status": "ok",
        "sha256": inference.digest_of(body),
        "tensors": tuple(each.header for each in packed),
    }
    return inference.encode(inference.Answer(**fields | changes), body)


class ScriptedHub:
    """Subscribes to every question on the broker at `port`. asked: the questions, in order."""

    def __init__(self, port: int, script: Script) -> None:
        self.script = script
        self.asked: list[Question] = []
        self.properties: list[Any] = []
        self._port = port
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._arrived

    def _connected(self, *_: object) -> None:
        self._client.subscribe("edged/v1/+/+/infer/ask")

    def _arrived(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        question, tensors = inference.decode_question(bytes(message.payload))
        self.asked.append(question)
        self.properties.append(message.properties)
        for reply in self.script(question, to_arrays(tensors)):
            self.send(question, reply)

    def send(self, question: Question, reply: Reply) -> None:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = bytes.fromhex(question.id) if reply.correlation is None else reply.correlation
        self._client.publish(question.answer_to, reply.payload, properties=properties)

    def __enter__(self) -> ScriptedHub:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._ready.wait(READY_S), "the scripted hub did not get connected"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None
