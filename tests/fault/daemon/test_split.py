"""A pipeline whose tail is computed at the hub: without hub or line the whole model answers, and nothing is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.doubles import split_models
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.hub_process import HubProcess
from tests.doubles.peer import Peer
from tests.doubles.split_models import CLASSES, SplitModels
from tests.doubles.waiting import until

SPLIT, WHOLE = "split:upstream", "onnxruntime:cpu"
QUICK = """gap_grace_ms = 200
[hardware.fallback]
retry_first_s = 0.2
restarts = 1000
return_probes = 2
probe_every_s = 0.1
return_after_s = 0.2
"""
LABELS = [f"bar-{place}" for place in range(CLASSES)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SplitModels:
    return split_models.make(tmp_path_factory.mktemp("models"))


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "centre"
    folder.mkdir()
    with Mosquitto(folder) as broker:
        yield broker


def tables(model: Path, centre: Mosquitto) -> tuple[str, str]:
    upstream = f'[upstream]\nurl = "mqtt://127.0.0.1:{centre.port}"\ninfer_limit_kbit_s = 1000000\n'
    pipeline = f"""
[[pipeline]]
name = "bars"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["image"], layout = "batch,1,12,12" }}
[pipeline.model]
path = {json.dumps(str(model))}
chain = ["{SPLIT}", "{WHOLE}"]
deadline_ms = 500
[pipeline.output]
kind = "classification"
labels = {json.dumps(LABELS)}
"""
    return upstream, pipeline


class Camera:
    """Sends pictures one by one and knows what each shows."""

    def __init__(self, peer: Peer, models: SplitModels) -> None:
        self._peer = peer
        self._models = models
        self.shown: list[str] = []

    async def show(self) -> None:
        picture = self._models.samples[len(self.shown) % len(self._models.samples)]
        place = int(picture[0].sum(axis=0).reshape(12)[1:11].reshape(CLASSES, 2).sum(axis=1).argmax())
        self.shown.append(LABELS[place])
        event = {"seq": len(self.shown) - 1, "image": picture.ravel().tolist()}
        await self._peer.publish("in/camera", [json.dumps(event).encode()])

    def results(self) -> list[dict[str, Any]]:
        found = [json.loads(payload) for topic, payload, _ in self._peer.messages if "/result/" in topic]
        return list({result["id"]: result for result in found}.values())

    async def until_served_by(self, runtime: str, within: int = 400) -> None:
        """Show pictures until one is answered by `runtime`; each picture waits for its answer."""
        for _ in range(within):
            await self.show()
            await asyncio.to_thread(until, lambda: len(self.results()) == len(self.shown), "the picture is answered")
            if self.results()[-1]["runtime"] == runtime:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"after {within} pictures none was answered by {runtime}: {self.results()[-1]}")


@pytest.mark.timeout(180)
async def test_hub_and_line_go_and_come_back_and_every_picture_is_answered_rightly(
    tmp_path: Path, broker: Mosquitto, centre: Mosquitto, models: SplitModels
) -> None:
    served = (
        f'[broker]\nurl = "mqtt://127.0.0.1:{centre.port}"\n'
        f"[inference]\nmodels_dir = {json.dumps(str(models.served))}\n"
    )
    with (
        HubProcess(tmp_path / "hub", served) as hub,
        Daemon(tmp_path, broker.port, *tables(models.model.path, centre), limits=QUICK) as daemon,
    ):
        async with Peer(broker.port, "edged/v1/#") as peer:
            await asyncio.to_thread(lambda: hub.start().healthy())
            await asyncio.to_thread(lambda: daemon.start().connected())
            camera = Camera(peer, models)
            await camera.until_served_by(SPLIT)
            hub.kill()
            await camera.until_served_by(WHOLE)
            degraded = camera.results()[-1]
            hub.launch()
            await camera.until_served_by(SPLIT)
            await asyncio.to_thread(centre.kill)
            await camera.until_served_by(WHOLE)
            await asyncio.to_thread(centre.start)
            await camera.until_served_by(SPLIT)
            ledger = await asyncio.to_thread(lambda: daemon.status()["ledger"]["balanced"])
            assert await asyncio.to_thread(daemon.stop) == 0

    assert degraded["degraded"]
    results = sorted(camera.results(), key=lambda result: result["input"]["seq"])
    assert [result["input"]["seq"] for result in results] == list(range(len(camera.shown)))
    assert [result["label"] for result in results] == camera.shown
    assert {result["model_sha256"] for result in results} == {models.model.sha256}
    assert ledger


def test_the_pictures_show_what_the_model_sees(models: SplitModels) -> None:
    """Else the test above would check nothing."""
    places = [int(picture[0].sum(axis=0)[1:11].reshape(CLASSES, 2).sum(axis=1).argmax()) for picture in models.samples]

    assert len(set(places)) == CLASSES
    assert np.isfinite(models.samples).all()
