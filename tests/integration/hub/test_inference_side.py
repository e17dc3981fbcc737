"""A worker that computes for gateways: over a real broker, beside the batches, and told when it cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.errors import InferenceError
from edged.infer.upstream import UpstreamAddress
from edged.infer.upstream_mqtt import MqttUpstream
from edged.sync import inference
from edged.sync.tensors import to_packed
from tests.doubles import split_models
from tests.doubles.broker import Mosquitto, running
from tests.doubles.hub_rig import Gateway, configured, running_worker, until
from tests.doubles.peer import Peer
from tests.doubles.split_models import SplitModels


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SplitModels:
    return split_models.make(tmp_path_factory.mktemp("models"))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    yield from running(tmp_path)


def tables(broker: Mosquitto, models: SplitModels) -> str:
    return (
        f'[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
        f"[inference]\nmodels_dir = {json.dumps(str(models.served))}\n"
    )


def ask(upstream: MqttUpstream, models: SplitModels, within_s: float = 20.0) -> np.ndarray:
    return upstream.ask(models.model.sha256, {"x": models.samples[:3]}, within_s)["y"]


async def test_questions_and_batches_are_answered_side_by_side_and_the_line_comes_back(
    tmp_path: Path, broker: Mosquitto, models: SplitModels
) -> None:
    config = await configured(tmp_path / "hub", tables(broker, models))
    address = UpstreamAddress("127.0.0.1", broker.port, "lyon", "gw-01", kbit_s=1_000_000)
    upstream = await asyncio.to_thread(MqttUpstream, address)
    try:
        async with running_worker(config) as rig, Gateway(broker.port) as gateway:
            await rig.healthy()
            await gateway.batch(1, 10)
            answer = await asyncio.to_thread(ask, upstream, models)
            await gateway.acked(1)
            assert answer.shape == (3, 5)
            await asyncio.to_thread(broker.kill)
            await until(
                lambda: "inference_away" in {code for code, _ in rig.worker.faults()}, "the loss is a fault", 20.0
            )
            await asyncio.to_thread(broker.start)
            await until(lambda: not rig.worker.faults(), "the worker is healthy again", 60.0)
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(answers, upstream, models):
                    await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(upstream.close)


def answers(upstream: MqttUpstream, models: SplitModels) -> bool:
    try:
        return len(ask(upstream, models, 2.0)) == 3
    except InferenceError:
        return False


async def test_a_retained_question_is_nobodys_and_one_with_qos_1_is_acknowledged(
    tmp_path: Path, broker: Mosquitto, models: SplitModels
) -> None:
    packed = to_packed("x", models.samples[:1])
    body = inference.body_of([packed])
    question = inference.Question(
        v=inference.VERSION, site="lyon", gateway="gw-01", id="ab" * 16, model=models.model.sha256,
        answer_to="edged/v1/lyon/gw-01/infer/answer/me", within_ms=30_000,
        sha256=inference.digest_of(body), tensors=(packed.header,),
    )  # fmt: skip
    payload = inference.encode(question, body)
    config = await configured(tmp_path / "hub", tables(broker, models))
    async with Peer(broker.port, "edged/v1/lyon/gw-01/infer/answer/+") as peer:
        await peer.publish("edged/v1/lyon/gw-01/infer/ask", [payload], retain=True)
        async with running_worker(config) as rig:
            await rig.healthy()
            await peer.publish("edged/v1/lyon/gw-01/infer/ask", [payload], qos=1)
            await until(lambda: peer.messages, "the answer came")
        assert len(peer.messages) == 1
    answer, _ = inference.decode_answer(peer.messages[0][1])
    assert (answer.status, answer.id) == ("ok", "ab" * 16)
