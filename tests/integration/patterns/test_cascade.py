"""The real daemon asks a larger model about what a small one is not sure of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.hub_process import HubProcess
from tests.doubles.scada import Scada
from tests.doubles.waiting import until
from tests.integration.patterns.conftest import Camera
from tests.integration.patterns.test_frames import brightness_model, picture
from tests.integration.patterns.test_frames import pipeline as pictures
from tests.unit.infer.models import save


def share_model(path: Path, gain: float, *, name: str = "x") -> Path:
    """(n, 1) → scores of low and high: high is x · gain, low what is left of 1."""
    nodes = [
        helper.make_node("Mul", [name, "gain"], ["high"]),
        helper.make_node("Sub", ["unit", "high"], ["low"]),
        helper.make_node("Concat", ["low", "high"], ["y"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([gain], np.float32), "gain"),
        numpy_helper.from_array(np.array([1], np.float32), "unit"),
    ]
    inputs, outputs = {name: (TensorProto.FLOAT, ["n", 1])}, {"y": (TensorProto.FLOAT, ["n", 2])}
    return save(path, nodes, inputs, outputs, initializer=constants)


def pipeline(small: Path, cascade: str) -> str:
    return f"""
[[pipeline]]
name = "judge"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["a"], ts_source = "arrival" }}
output = {{ kind = "classification", labels = ["low", "high"] }}
[pipeline.model]
path = {json.dumps(str(small))}
chain = ["onnxruntime:cpu"]
deadline_ms = 9000
cascade = {{ {cascade} }}
"""


def test_unsure_answers_come_from_the_larger_model_and_every_result_says_whose_it_is(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    small, large = share_model(tmp_path / "small.onnx", 1.0), share_model(tmp_path / "large.onnx", 1.5, name="other")
    cascade = f"path = {json.dumps(str(large))}, low = 0.0, high = 0.8, max_escalations_per_s = 3, deadline_ms = 5000"
    with Daemon(tmp_path, broker.port, pipeline(small, cascade)) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        for seq, value in enumerate((0.9, 0.6, 0.95)):
            camera.send("in/d", json.dumps({"a": value, "seq": seq}).encode())
        results = scada.until_results(3)
        told = daemon.status()["pipelines"]["judge"]["told"]
    whose = {
        result["input"]["seq"]: (result["model"], result["label"], round(result["score"], 3)) for result in results
    }
    assert whose == {0: ("small", "high", 0.9), 1: ("large", "high", 0.9), 2: ("small", "high", 0.95)}
    assert {result["runtime"] for result in results} == {"onnxruntime:cpu"}
    assert {result["quality"] for result in results} == {192}
    assert told == {"answered_by:large": 1}


def test_beyond_the_budget_the_small_answer_stands_and_tells_why(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    small, large = share_model(tmp_path / "small.onnx", 1.0), share_model(tmp_path / "large.onnx", 1.5)
    cascade = f"path = {json.dumps(str(large))}, high = 0.8, max_escalations_per_s = 0.01, deadline_ms = 5000"
    with Daemon(tmp_path, broker.port, pipeline(small, cascade)) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        for seq in range(3):
            camera.send("in/d", json.dumps({"a": 0.6, "seq": seq}).encode())
        results = sorted(scada.until_results(3), key=lambda result: int(result["input"]["seq"]))
        told = daemon.status()["pipelines"]["judge"]["told"]
    assert [result["model"] for result in results] == ["large", "small", "small"]
    assert [result["quality_reasons"] for result in results] == [[], ["escalation_shed"], ["escalation_shed"]]
    assert [result["quality"] for result in results] == [192, 64, 64]
    assert told == {"answered_by:large": 1, "escalation_shed": 2}


def test_a_larger_model_that_cannot_be_loaded_leaves_the_small_answers(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    small = share_model(tmp_path / "small.onnx", 1.0)
    (tmp_path / "large.onnx").write_bytes(b"nothing that could be loaded")
    cascade = f"path = {json.dumps(str(tmp_path / 'large.onnx'))}, high = 0.8"
    with Daemon(tmp_path, broker.port, pipeline(small, cascade)) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        camera.send("in/d", json.dumps({"a": 0.6, "seq": 1}).encode())
        (result,) = scada.until_results(1)
        until(lambda: "larger_model_away" in daemon.codes(), "the mode says so")
    assert (result["model"], result["label"], result["quality"]) == ("small", "high", 64)
    assert result["quality_reasons"] == ["escalation_failed"]


def test_a_cascade_sees_pictures_and_each_model_has_its_own_size(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    small, large = brightness_model(tmp_path / "small.onnx"), brightness_model(tmp_path / "large.onnx", side=16)
    source = ', policy = "latest", frame = { scale = 0.00392156862745098, pad = 0 }'
    more = f", cascade = {{ path = {json.dumps(str(large))}, high = 0.9 }}"
    table = pictures(small, chain="onnxruntime:cpu", source=source, more=more)
    with Daemon(tmp_path, broker.port, table) as daemon, Scada(broker.port) as scada:
        daemon.start().connected()
        camera.send("cam/gate/jpg", picture(160, size=(8, 8)))
        (result,) = scada.until_results(1)
    assert (result["model"], result["label"], result["quality_reasons"]) == ("large", "bright", [])


@pytest.mark.slow
def test_the_larger_model_may_be_the_hubs_and_when_it_is_away_the_small_answer_stands(
    tmp_path: Path, broker: Mosquitto, camera: Camera
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    small, large = share_model(tmp_path / "small.onnx", 1.0), share_model(served / "large.onnx", 1.5)
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    cascade = f'where = "upstream", sha256 = "{digest}", high = 0.8, max_escalations_per_s = 100, deadline_ms = 9000'
    upstream = f'[upstream]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
    tables = (
        f'[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n[gateways]\nallow = ["plant/*"]\n'
        f"[inference]\nmodels_dir = {json.dumps(str(served))}\n"
    )
    with (
        HubProcess(tmp_path / "hub", tables) as hub,
        Daemon(tmp_path, broker.port, pipeline(small, cascade), upstream) as daemon,
        Scada(broker.port) as scada,
    ):
        hub.start().healthy()
        daemon.start().connected()

        def answered_above() -> bool:
            camera.send("in/d", json.dumps({"a": 0.6}).encode())
            return any(result["model"] == "upstream" for result in list(scada.results))

        until(answered_above, "the hub has answered", every_s=0.5)
        (above,) = [result for result in scada.results if result["model"] == "upstream"][:1]
        assert (above["runtime"], above["model_sha256"], above["quality"]) == ("upstream", digest, 192)
        assert (above["label"], round(above["score"], 3)) == ("high", 0.9)
        hub.kill()
        camera.send("in/d", json.dumps({"a": 0.6, "seq": 7}).encode())
        (last,) = until(
            lambda: [result for result in list(scada.results) if result["input"]["seq"] == 7], "the small model answers"
        )
    assert (last["model"], last["label"], last["quality"]) == ("small", "high", 64)
    assert last["quality_reasons"][0] in {"escalation_late", "escalation_failed"}
