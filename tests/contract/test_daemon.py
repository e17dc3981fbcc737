"""The real daemon on a real broker: everything that arrives at a subscriber is as promised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.demo.plant import FIELDS
from edged.demo.train import MODELS
from tests.contract.promises import channel_of, channels, payload_problems, problems
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.peer import Peer

_PIPELINE = f"""
[[pipeline]]
name = "anomaly"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = {json.dumps(FIELDS)} }}
model = {{ path = "{MODELS}/anomaly.onnx" }}
[pipeline.output]
kind = "anomaly"
threshold = 0.5
alarm = {{ severity = "high", clear_after = 1 }}
"""
HEALTHY = (1.2, 27.9, 66.1, 84.8, 5.06, 0.52, 0.52)


def event(seq: int, *, factor: float = 1.0) -> bytes:
    body = {name: value * factor for name, value in zip(FIELDS, HEALTHY, strict=True)}
    return json.dumps(body | {"seq": seq, "ts": 1_760_000_000_000 + 1000 * seq}).encode()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as running:
        yield running


@pytest.mark.slow  # the heartbeat comes every ten seconds
@pytest.mark.parametrize(("protocol", "silent"), [("5", "canary"), ("3.1.1", "health")])
async def test_everything_that_reaches_a_subscriber_is_as_promised(
    tmp_path: Path, broker: Mosquitto, protocol: str, silent: str
) -> None:
    wanted = {channel.name for channel in channels()} - {silent}  # health is waited for once, not twice
    with Daemon(tmp_path, broker.port, _PIPELINE, broker=f'protocol = "{protocol}"') as daemon:
        async with Peer(broker.port, "edged/v1/#") as scada:
            await asyncio.to_thread(lambda: daemon.start().connected())
            await scada.publish("in/pump-1", [event(0), event(1, factor=50.0), b"no JSON", event(4), event(5)])
            async with asyncio.timeout(20):
                while wanted - {channel_of(topic).name for topic, _, _ in list(scada.messages)}:
                    await asyncio.sleep(0.05)
            status = await asyncio.to_thread(daemon.status)
            assert await asyncio.to_thread(daemon.stop) == 0

    assert [problem for topic, payload, _ in scada.messages for problem in payload_problems(topic, payload)] == []
    assert problems("status", status) == []
    states = [json.loads(payload)["state"] for topic, payload, _ in scada.messages if topic.endswith("/gw/state")]
    assert (states[0], states[-1]) == ("online", "offline")
