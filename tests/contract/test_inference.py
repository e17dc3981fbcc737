"""What gateway and hub say to each other about models is as documented: on a real broker, by the real programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.errors import InferenceError
from edged.infer.upstream import UpstreamAddress
from edged.infer.upstream_mqtt import MqttUpstream
from edged.sync.inference import REFUSALS
from tests.contract.promises import REFERENCE, UPSTREAM, Json, channel_of, channels, problems, schemas
from tests.doubles import split_models
from tests.doubles.broker import Mosquitto
from tests.doubles.hub_process import HubProcess
from tests.doubles.peer import Peer
from tests.doubles.split_models import SplitModels


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as running_broker:
        yield running_broker


def exchange(broker: Mosquitto, models: SplitModels) -> None:
    """A question that is answered and one that is refused."""
    upstream = MqttUpstream(UpstreamAddress("127.0.0.1", broker.port, "lyon", "gw-01", kbit_s=1_000_000))
    try:
        upstream.ask(models.model.sha256, {"x": models.samples[:2]}, 30.0)
        with pytest.raises(InferenceError, match="unknown_model"):
            upstream.ask("0" * 64, {"x": models.samples[:2]}, 30.0)
    finally:
        upstream.close()


async def test_questions_and_answers_are_as_documented(tmp_path: Path, broker: Mosquitto) -> None:
    models = await asyncio.to_thread(split_models.make, tmp_path / "models")
    tables = (
        f'[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
        f"[inference]\nmodels_dir = {json.dumps(str(models.served))}\n"
    )
    async with Peer(broker.port, "edged/v1/#") as listener:
        with HubProcess(tmp_path / "hub", tables) as hub:
            await asyncio.to_thread(lambda: hub.start().healthy())
            await asyncio.to_thread(exchange, broker, models)
            async with asyncio.timeout(20):
                while len(listener.messages) < 4:
                    await asyncio.sleep(0.02)

    assert not any(retained for _, _, retained in listener.messages)
    lines = [(topic, _line(payload)) for topic, payload, _ in listener.messages if "/infer/" in topic]
    wanted = {channel.name for channel in channels(UPSTREAM) if "/infer/" in channel.address}
    assert {channel_of(topic, UPSTREAM).name for topic, _ in lines} == wanted
    assert {line["status"] for _, line in lines if "status" in line} == {"ok", "refused"}
    for topic, line in lines:
        schema = channel_of(topic, UPSTREAM).schema
        assert problems(schema, line) == []
        for field in schemas()[schema]["required"]:
            assert problems(schema, {key: value for key, value in line.items() if key != field}), field
            assert problems(schema, line | {field: {"no": "such value"}}), field
        assert problems(schema, line | {"a_field_of_tomorrow": 1}) == []


def _line(payload: bytes) -> Json:
    line: Json = json.loads(payload.partition(b"\n")[0])
    return line


def test_the_page_explains_every_refusal() -> None:
    page = (REFERENCE / "split.md").read_text("utf-8")

    for code, meaning in REFUSALS.items():
        assert f"| `{code}` | {meaning} |" in page
