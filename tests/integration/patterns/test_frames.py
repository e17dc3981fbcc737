"""The real daemon sees: pictures on a topic of a real broker, answered by a real model."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import onnx
import paho.mqtt.client as paho
import pytest
from onnx import TensorProto, helper
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image

from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.scada import Scada
from tests.doubles.waiting import until


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


def pipeline(model: Path, *, chain: str, source: str = "", labels: str = '["dark", "bright"]', more: str = "") -> str:
    return f"""
[[pipeline]]
name = "see"
topics = ["cam/+/jpg"]
device = "{{topic[1]}}"
codec = "image"
input = {{ ts_source = "arrival"{source} }}
model = {{ path = {json.dumps(str(model))}, chain = ["{chain}"], deadline_ms = 5000{more} }}
output = {{ kind = "classification", labels = {labels} }}
"""


def brightness_model(path: Path) -> Path:
    """Scores of dark and bright from the mean of a picture of 8 × 8 pixels, (n, 3, 8, 8) in 0 to 1."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["bright"]),
        helper.make_node("Sub", ["unit", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["y"], axis=1),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("unit", TensorProto.FLOAT, [1], [1.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    return path


def picture(level: int, *, kind: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.realdata
def test_a_photo_of_a_parrot_is_called_a_macaw(
    tmp_path: Path, broker: Mosquitto, camera: Camera, shared_data: Path
) -> None:
    coral = shared_data / "coral"
    names = (coral / "imagenet_labels.txt").read_text("utf-8").splitlines()
    numbered = json.dumps([f"{number} {name}" for number, name in enumerate(names)])  # some stand there twice
    # The quantised model takes (pixel − 128) / 128, and fills its whole input.
    source = ', policy = "latest", frame = { resize = "stretch", scale = 0.0078125, mean = [1.0] }'
    table = pipeline(coral / "mobilenet_v2_1.0_224_quant.tflite", chain="litert:cpu", source=source, labels=numbered)
    with Daemon(tmp_path, broker.port, table) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        camera.send("cam/gate/jpg", (coral / "parrot.jpg").read_bytes())
        (result,) = scada.until_results(1)
    assert result["label"].endswith(" macaw")
    assert result["score"] > 0.95
    assert (result["device"], result["runtime"], result["quality"]) == ("gate", "litert:cpu", 192)


def test_of_a_burst_the_newest_is_answered_and_the_books_say_what_was_skipped(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    model = brightness_model(tmp_path / "brightness.onnx")
    source = ', policy = "latest", frame = { scale = 0.00392156862745098, pad = 0 }'
    with (
        Daemon(tmp_path, broker.port, pipeline(model, chain="onnxruntime:cpu", source=source)) as daemon,
        Scada(broker.port) as scada,
    ):
        daemon.start().connected()
        dark = [picture(level % 50, size=(1600, 1200)) for level in range(120)]
        camera.send("cam/gate/jpg", *dark, picture(255, kind="PNG", size=(8, 8)))
        until(lambda: any(r["label"] == "bright" for r in list(scada.results)), "the newest is answered")

        def settled() -> bool:
            books = daemon.status()["ledger"]
            answered = books["results"]["result"]["stored"]
            skipped: int = sum(books["left_out"].get("see", {}).values())
            return bool(books["inputs"]["see"]["stored"] == 121 == answered + skipped)

        until(settled, "every frame is answered or skipped")
        status = daemon.status()
    skipped = status["ledger"]["left_out"]["see"]
    assert set(skipped) == {"superseded"}
    assert skipped["superseded"] > 0
    assert status["pipelines"]["see"]["skipped"] == skipped["superseded"]
    assert status["ledger"]["balanced"]
    assert scada.results[-1]["label"] == "bright"


def test_every_picture_of_policy_queue_is_answered_though_the_daemon_is_killed(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    model = brightness_model(tmp_path / "brightness.onnx")
    source = ", frame = { scale = 0.00392156862745098, pad = 0, seq_level = 1 }"
    table = pipeline(model, chain="onnxruntime:cpu", source=source).replace("topic[1]", "topic[0]")
    with Daemon(tmp_path, broker.port, table) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        for number in range(40):
            camera.send(f"cam/{number}/jpg", picture(255 * (number % 2), size=(8, 8)))
            if number == 20:
                daemon.kill()
                daemon.start()
        results = scada.until_results(40)
    answers = {result["input"]["seq"]: result["label"] for result in results}
    assert answers == {number: ("dark", "bright")[number % 2] for number in range(40)}


def test_what_is_no_picture_is_refused_and_what_only_looks_like_one_has_a_bad_answer(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    model = brightness_model(tmp_path / "brightness.onnx")
    whole = picture(255, kind="PNG")
    broken = bytearray(whole)
    broken[41:60] = bytes(19)  # inside the compressed pixels
    bomb = bytearray(whole)
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    source = ', policy = "latest", frame = { scale = 0.00392156862745098, pad = 0 }'
    with (
        Daemon(tmp_path, broker.port, pipeline(model, chain="onnxruntime:cpu", source=source)) as daemon,
        Scada(broker.port) as scada,
    ):
        daemon.start().connected()
        camera.send("cam/a/jpg", bytes(broken))
        (result,) = scada.until_results(1)
        assert (result["label"], result["quality"], result["quality_reasons"]) == (None, 0, ["bad_image"])
        until(lambda: len(scada.letters) == 1, "its letter comes, too")
        assert scada.letters[0]["sha256"] == hashlib.sha256(bytes(broken)).hexdigest()
        camera.send("cam/a/jpg", bytes(bomb))
        camera.send("cam/a/jpg", b"no picture")
        camera.send("cam/a/jpg", whole)
        until(lambda: scada.results[-1]["label"] == "bright", "the next picture is answered")
        books = daemon.status()["ledger"]
    assert {letter["reason"] for letter in scada.letters} == {"bad_image", "too_large"}
    assert books["inputs"]["see"]["refused"] == {"bad_image": 1, "too_large": 1}
    assert books["balanced"]
