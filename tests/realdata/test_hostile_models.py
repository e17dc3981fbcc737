"""Broken model files, one pipeline each, beside one that is whole: the daemon starts, says why, and serves the rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import pytest

from tests.doubles.daemon import EDGED
from tests.doubles.waiting import until
from tests.realdata.replay import Plant, Result, plant, table

pytestmark = pytest.mark.realdata

# Why each file is refused, as docs/how-to/runtimes-onnxruntime.md explains the codes.
REFUSALS = {
    "kws_as_other.onnx": "wrong_format",
    "kws_empty.tflite": "empty",
    "kws_head0.tflite": "corrupt",
    "kws_trunc50.tflite": "incompatible",  # cut in the middle, but no runtime of the chain reads tflite anyway
    "lfs_pointer_mnist-12.onnx": "lfs_pointer",
    "mnist_8_as_other.tflite": "wrong_format",
    "mnist_8_empty.onnx": "empty",
    "mnist_8_head0.onnx": "corrupt",
    "mnist_8_trunc50.onnx": "corrupt",
    "mnist_opset1_cntk.onnx": "unsupported",
}
PIXELS = 'layout = "batch,1,28,28"'
EVENTS = 20


class Refused(NamedTuple):
    plant: Plant
    names: dict[str, str]  # pipeline → code
    results: list[Result]


def pipeline_of(file: str) -> str:
    return file.replace(".", "-")


@pytest.fixture(scope="module")
def refused(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refused]:
    folder = tmp_path_factory.mktemp("models")
    models = sorted((shared_data / "hostile" / "models").iterdir())
    assert {path.name for path in models} == set(REFUSALS)
    whole = shared_data / "onnx" / "mnist_8" / "model.onnx"
    tables = [
        table(name, "camera/+", path, '{ kind = "tensor" }', fields=["image"], more=PIXELS)
        for name, path in [("whole", whole), *((pipeline_of(path.name), path) for path in models)]
    ]
    names = {pipeline_of(file): code for file, code in REFUSALS.items()}
    messages = [("camera/one", json.dumps({"ts": n, "seq": n, "image": [n] * 784}).encode()) for n in range(EVENTS)]
    with plant(folder, *tables) as running:
        results = running.replay(messages, EVENTS * (1 + len(names)))
        yield Refused(running, names, results)


def codes(reasons: list[dict[str, Any]]) -> dict[str, str]:
    """The code in the detail of each pipeline that has no usable model."""
    return {
        reason["subject"]: reason["detail"].split(": ")[1] for reason in reasons if reason["code"] == "model_unusable"
    }


def test_the_status_names_each_broken_model_with_its_code(refused: Refused) -> None:
    asked = subprocess.run(
        [EDGED, "status", "--json", "--config", refused.plant.daemon.config], capture_output=True, check=True
    )
    status = json.loads(asked.stdout)
    assert codes(status["reasons"]) == refused.names
    assert status["mode"] == "safe"
    served = {name: pipeline["runtime"] for name, pipeline in status["pipelines"].items()}
    assert served == {"whole": "onnxruntime:cpu", **dict.fromkeys(refused.names, "none")}


def test_the_retained_mode_names_each_broken_model_with_its_code(refused: Refused) -> None:
    modes = refused.plant.scada.modes
    until(lambda: codes(modes[-1]["reasons"]) == refused.names, "the mode names every model")
    assert modes[-1]["mode"] == "safe"


def test_events_of_a_pipeline_without_a_model_are_answered_with_quality_0_and_no_value(refused: Refused) -> None:
    for name in refused.names:
        answers = [result for result in refused.results if result["pipeline"] == name]
        assert sorted(answer["input"]["seq"] for answer in answers) == list(range(EVENTS))
        for answer in answers:
            assert (answer["quality"], answer["quality_reasons"]) == (0, ["model_unusable"])
            assert answer["label"] is answer["score"] is answer["values"] is None


def test_the_whole_model_beside_them_answers_every_event_well(refused: Refused) -> None:
    answers = [result for result in refused.results if result["pipeline"] == "whole"]
    assert sorted(answer["input"]["seq"] for answer in answers) == list(range(EVENTS))
    assert {answer["quality"] for answer in answers} == {192}
    assert all(len(next(iter(answer["values"].values()))) == 10 for answer in answers)


def test_the_daemon_lives_on_and_leaves_no_traceback(refused: Refused) -> None:
    refused.plant.quiet()
    assert refused.plant.daemon.ended is None


def test_the_library_refuses_the_old_model_as_the_manifest_says(shared_data: Path) -> None:
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):  # the class is private to the library
        onnxruntime.InferenceSession(shared_data / "hostile" / "models" / "mnist_opset1_cntk.onnx")
