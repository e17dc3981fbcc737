"""A split model end to end: head here, real broker, real hub with the tail, and the whole model when they are away."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.errors import InferenceError
from edged.infer.registry import find_runtime
from edged.infer.rung import load_rung
from edged.infer.runtime import LoadOptions
from edged.infer.upstream import UpstreamAddress
from edged.infer.upstream_mqtt import MqttUpstream
from edged.ports import Model
from edged.sync.inference import Question
from edged.sync.tensors import to_packed
from tests.doubles import split_models
from tests.doubles.broker import Mosquitto, running
from tests.doubles.hub_process import HubProcess
from tests.doubles.inference_hub import Reply, ScriptedHub, answer
from tests.doubles.split_models import CLASSES, CUT, SplitModels
from tests.doubles.waiting import until


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SplitModels:
    return split_models.make(tmp_path_factory.mktemp("models"))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    yield from running(tmp_path)


def hub_of(folder: Path, broker: Mosquitto, models: SplitModels, more: str = "", allow: str = "lyon/*") -> HubProcess:
    tables = (
        f'[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n[gateways]\nallow = ["{allow}"]\n'
        f"[inference]\nmodels_dir = {json.dumps(str(models.served))}\n{more}\n"
    )
    return HubProcess(folder / "hub", tables, measured=True)


def address(broker: Mosquitto) -> UpstreamAddress:
    return UpstreamAddress("127.0.0.1", broker.port, "lyon", "gw-01", kbit_s=1_000_000)


def split_rung(broker: Mosquitto, models: SplitModels) -> Model:
    options = LoadOptions(upstream=address(broker))
    return load_rung("split:upstream", models.model, options, find_runtime)


def whole(models: SplitModels) -> Model:
    return load_rung("onnxruntime:cpu", models.model, LoadOptions(), find_runtime)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(InferenceError) as failed:
        call()
    return failed.value.code


def answered(call: Callable[[], object]) -> bool:
    try:
        call()
    except InferenceError:
        return False
    return True


def test_head_and_hub_answer_as_the_whole_model(tmp_path: Path, broker: Mosquitto, models: SplitModels) -> None:
    with hub_of(tmp_path, broker, models) as hub:
        hub.start().healthy()
        split, reference = split_rung(broker, models), whole(models)
        for first, rows in ((0, 1), (1, 7), (8, 32)):
            batch = {"x": models.samples[first : first + rows]}
            got, wanted = split.infer(batch, deadline_s=30.0)["y"], reference.infer(batch, deadline_s=30.0)["y"]
            assert got.shape == (rows, CLASSES)
            assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()
            assert np.array_equal(got.argmax(axis=1), wanted.argmax(axis=1))
        assert split.info.runtime == "split:upstream"
        assert split.info.sha256 == models.model.sha256
        counted = {cell["outcome"]: cell["value"] for cell in _inference(hub)}
        split.close()
        assert hub.stop() == 0
    assert set(counted) == {"ok"}


def _inference(hub: HubProcess) -> list[dict[str, object]]:
    return until(lambda: hub.status()["metrics"].get("edged_hub_inference_total"), "the hub counts what it answered")


def test_the_hub_answers_whole_models_and_refuses_what_it_must(
    tmp_path: Path, broker: Mosquitto, models: SplitModels
) -> None:
    x = models.samples[:2]
    with hub_of(tmp_path, broker, models, "max_rows = 16") as hub:
        hub.start().healthy()
        upstream, foreign = MqttUpstream(address(broker)), MqttUpstream(address(broker)._replace(site="elsewhere"))
        try:
            outputs = upstream.ask(models.model.sha256, {"x": x}, 30.0)
            assert np.allclose(outputs["y"], whole(models).infer({"x": x}, deadline_s=9.0)["y"], atol=1e-5)
            refused = {
                "unknown_model": (upstream, "00" * 32, {"x": x}),
                "wrong_tensors: expected": (upstream, models.model.sha256, {"z": x}),
                "wrong_tensors: x: expected float32": (upstream, models.model.sha256, {"x": x.astype(np.float64)}),
                "x: expected float32 (-1, 1, 12, 12), got float32 (2, 12, 12)": (
                    upstream, models.model.sha256, {"x": x[:, 0]},
                ),
                "17 rows, at most 16": (upstream, models.model.sha256, {"x": models.samples[:17]}),
                "foreign_gateway": (foreign, models.model.sha256, {"x": x}),
            }  # fmt: skip
            for reason, (who, digest, tensors) in refused.items():
                with pytest.raises(InferenceError) as failed:
                    who.ask(digest, tensors, 30.0)
                assert (failed.value.code, reason in failed.value.message) == ("upstream_refused", True), failed.value
            (models.served / "broken.onnx").write_bytes(b"no model at all")
            broken = hashlib.sha256(b"no model at all").hexdigest()
            until(lambda: "model_unusable" in _message(upstream, broken, x), "the new file is found", 20.0)
            assert upstream.ask(models.model.sha256, {"x": x}, 30.0)["y"].shape == (2, CLASSES)
        finally:
            (models.served / "broken.onnx").unlink(missing_ok=True)
            upstream.close()
            foreign.close()


def _message(upstream: MqttUpstream, digest: str, x: np.ndarray) -> str:
    with pytest.raises(InferenceError) as failed:
        upstream.ask(digest, {"x": x}, 30.0)
    return failed.value.message


def test_the_hub_dies_and_returns_and_meanwhile_every_question_ends_in_time(
    tmp_path: Path, broker: Mosquitto, models: SplitModels
) -> None:
    batch = {"x": models.samples[:1]}
    with hub_of(tmp_path, broker, models) as hub:
        hub.start().healthy()
        split = split_rung(broker, models)
        split.infer(batch, deadline_s=30.0)
        hub.kill()
        begun = time.monotonic()
        assert code_of(lambda: split.infer(batch, deadline_s=0.5)) == "upstream_timeout"
        assert time.monotonic() - begun < 5.0
        hub.launch()
        until(lambda: _answers(split, batch), "the hub that came back answers", 60.0)
        broker.kill()
        until(lambda: code_of(lambda: split.infer(batch, deadline_s=0.2)) == "upstream_away", "the loss is noticed")
        split.close()


def _answers(model: Model, batch: dict[str, np.ndarray]) -> bool:
    try:
        return bool(model.infer(batch, deadline_s=2.0))
    except InferenceError:
        return False


def test_a_hub_that_computes_something_else_is_refused(broker: Mosquitto, models: SplitModels) -> None:
    wrong: dict[str, dict[str, np.ndarray]] = {
        "rows": {"y": np.zeros((3, CLASSES), np.float32)},
        "type": {"y": np.zeros((1, CLASSES), np.float64)},
        "name": {"z": np.zeros((1, CLASSES), np.float32)},
        "axes": {"y": np.zeros((1, CLASSES + 1), np.float32)},
        "rank": {"y": np.zeros((CLASSES,), np.float32)},
    }
    split = split_rung(broker, models)
    try:
        for kind, outputs in wrong.items():

            def script(asked: Question, _: object, outputs: dict[str, np.ndarray] = outputs) -> list[Reply]:
                return [Reply(answer(asked, outputs))]

            with ScriptedHub(broker.port, script):
                code = code_of(lambda: split.infer({"x": models.samples[:1]}, deadline_s=30.0))
            assert code == "upstream_refused", kind
    finally:
        split.close()


def test_a_question_out_of_time_or_to_a_full_hub_is_refused(
    tmp_path: Path, broker: Mosquitto, models: SplitModels
) -> None:
    """The hub is stopped with questions on their way: when it goes on, they are too old."""
    with hub_of(tmp_path, broker, models, "max_waiting = 1") as hub:
        hub.start().healthy()
        upstream = MqttUpstream(address(broker))
        try:
            cut = to_packed(CUT, np.zeros((1, 4, 5, 5), np.float32))
            until(lambda: answered(lambda: upstream.ask_packed(models.tail, [cut], 30.0)), "it answers")
            for pid in hub.worker_pids():
                os.kill(pid, signal.SIGSTOP)
            codes = [code_of(lambda: upstream.ask_packed(models.tail, [cut], 0.2)) for _ in range(3)]
            for pid in hub.worker_pids():
                os.kill(pid, signal.SIGCONT)
            assert set(codes) == {"upstream_timeout"}
            # With room for one question only, it may be busy refusing the old ones.
            until(lambda: answered(lambda: upstream.ask_packed(models.tail, [cut], 30.0)), "it answers again")
            until(lambda: upstream.statistics().late >= 1, "the old questions were refused, and nobody waited for it")
        finally:
            upstream.close()
