"""The whole daemon under pressure, with real models and files for a hot box: it steps back, says so, and returns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edged.app import build
from edged.config import Config, load
from edged.demo.plant import FIELDS
from edged.demo.train import MODELS
from edged.ops.logs import Log
from edged.policy.governor import SAMPLE_INTERVAL_S
from tests.contract.app_rig import AppRig
from tests.doubles.clock import FakeClock
from tests.doubles.sysfs import Box

_CONFIG = """\
[gateway]
site = "lyon"
id = "gw"
state_dir = "{folder}/state"
[broker]
url = "mqtt://127.0.0.1:1883"
[security]
allow_unsigned = true
[hardware.limits]
p99_ms = 60_000
[[pipeline]]
name = "anomaly"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = {fields}, may_slow = true }}
output = {{ kind = "anomaly", threshold = 0.5 }}
[pipeline.model]
path = "{models}/anomaly.onnx"
chain = ["onnxruntime:cpu"]
commit = "together"
version = "whole"
[pipeline.model.smaller]
path = "{smaller}"
version = "small"
"""


def configuration(folder: Path, smaller: Path) -> Config:
    path = folder / "edged.toml"
    path.write_text(_CONFIG.format(folder=folder, models=MODELS, fields=json.dumps(FIELDS), smaller=smaller))
    return load([path])


@asynccontextmanager
async def running(folder: Path, smaller: Path = MODELS / "anomaly.onnx") -> AsyncIterator[tuple[AppRig, Box]]:
    config = await asyncio.to_thread(configuration, folder, smaller)
    clock = FakeClock()
    box = Box(folder / "box")
    lines: list[str] = []
    log = Log(clock, write=lines.append, journal=False)
    app = await build(config, clock=clock, log=log, sensors_root=box.root)
    try:
        rig = AppRig(app, clock)
        rig.link.up()
        assert any("smaller_model_unusable" in line for line in lines) == (smaller.parent != MODELS)
        yield rig, box
    finally:
        await app.close()


async def samples(rig: AppRig, count: int) -> None:
    for _ in range(count):
        await rig.look_at_devices()
        await rig.tick(SAMPLE_INTERVAL_S)


def versions(rig: AppRig) -> list[str]:
    said = [json.loads(item.payload) for item in rig.link.published if b"/result/" in item.topic]
    return [result["model_version"] for result in said]


async def test_a_throttled_box_uses_the_smaller_model_for_half_of_the_windows_and_returns_to_all(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (rig, box):
        await rig.events(2)
        assert versions(rig) == ["whole"] * 2
        box.cooling(0, "Processor", 3)
        await samples(rig, 5)
        await rig.events(4, first=2)
        assert versions(rig) == ["whole"] * 2 + ["small"] * 2
        status = rig.app.report.status()
        assert status["mode"] == "degraded"
        assert "throttled" in status["reasons"][0]["code"]  # type: ignore[index]
        assert status["pressure"]["level"] == "smaller_model"  # type: ignore[index]
        assert status["ledger"]["left_out"] == {"anomaly": {"slowed": 2}}  # type: ignore[index]
        assert status["ledger"]["balanced"]  # type: ignore[index]
        retained = [json.loads(item.payload) for item in rig.link.published if item.topic.endswith(b"/mode")]
        assert retained[-1]["mode"] == "degraded"

        box.cooling(0, "Processor", 0)
        await samples(rig, 200)
        await rig.events(2, first=6)
        assert versions(rig)[4:] == ["whole"] * 2
        assert rig.app.report.status()["mode"] == "normal"


async def test_a_smaller_model_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(b"no model")
    async with running(tmp_path, tmp_path / "small.onnx") as (rig, box):
        box.cooling(0, "Processor", 3)
        await samples(rig, 5)
        await rig.events(2)
        assert versions(rig) == ["whole"]  # of two, because it may be slowed
