"""A broker and a camera for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.doubles.broker import Mosquitto


class Camera:
    """Publishes at QoS 1 and waits for the acknowledgements."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "camera", protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(200)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, topic: str, *pictures: bytes) -> None:
        sent = [self._client.publish(topic, picture, qos=1) for picture in pictures]
        for message in sent:
            message.wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as started:
        yield started


@pytest.fixture
def camera(broker: Mosquitto) -> Iterator[Camera]:
    made = Camera(broker.port)
    yield made
    made.close()
