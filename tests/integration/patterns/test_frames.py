"""The real daemon sees: pictures on a topic of a real broker, answered by a real model."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.contract.promises import problems
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.scada import Scada
from tests.doubles.waiting import until
from tests.integration.patterns.conftest import Camera
from tests.unit.infer.models import save


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


def brightness_model(path: Path, side: int = 8) -> Path:
    """Scores of dark and bright from the mean of a picture, (n, 3, side, side) in 0 to 1."""
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
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", 3, side, side])}, {"y": (TensorProto.FLOAT, ["n", 2])}
    return save(path, nodes, inputs, outputs, initializer=constants)


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
    assert problems("status", status) == []
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


def corner_detector(path: Path) -> Path:
    """(n, 3, 8, 8) → a YOLO-like (n, 6, 2): two nearly equal boxes of class 1, as sure as the picture is bright."""
    place = numpy_helper.from_array(np.array([[[4, 4], [4, 4], [4, 4], [4, 4.2], [0, 0], [0, 0]]], np.float32), "place")
    gain = numpy_helper.from_array(np.array([[[0], [0], [0], [0], [0], [1]]], np.float32), "gain")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["mean"], ["one"], axes=[1], keepdims=1),
        helper.make_node("Unsqueeze", ["one", "last"], ["bright"]),
        helper.make_node("Mul", ["bright", "gain"], ["sure"]),
        helper.make_node("Add", ["sure", "place"], ["y"]),
    ]
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, {"y": (TensorProto.FLOAT, ["n", 6, 2])}
    return save(path, nodes, inputs, outputs, initializer=[place, gain, last])


def test_detections_are_in_pixels_of_the_frame_and_none_stands_there_twice(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    model = corner_detector(tmp_path / "corner.onnx")
    source = ", frame = { scale = 0.00392156862745098, pad = 255 }"
    table = pipeline(model, chain="onnxruntime:cpu", source=source, labels='["cat", "dog"]')
    table = table.replace("classification", "detection")
    with Daemon(tmp_path, broker.port, table) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        camera.send("cam/gate/jpg", picture(255, size=(160, 80)))
        (result,) = scada.until_results(1)
    assert problems("result", result) == []
    assert (result["label"], result["score"]) == ("dog", pytest.approx(1.0))
    # The input of 8 × 8 shows the frame at 1/20 between bars of 2: (2, 2) to (6, 6) there is (40, 0) to (120, 80) here.
    assert result["values"] == {
        "count": 1, "boxes": pytest.approx([40, 0, 120, 80]), "scores": [pytest.approx(1.0)], "classes": [1],
    }  # fmt: skip
