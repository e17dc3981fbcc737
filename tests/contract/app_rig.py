"""The whole daemon in this process, with a real store and real models, around a link that needs no broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from edged.app import App, build
from edged.config import Config, load
from edged.demo.plant import FIELDS
from edged.demo.train import MODELS
from edged.ops.logs import Log
from edged.ops.sensors.report import read_devices
from tests.doubles.clock import FakeClock
from tests.doubles.link import LoopLink
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
[[pipeline]]
name = "anomaly"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = [{fields}] }}
model = {{ path = "{models}/anomaly.onnx", chain = ["onnxruntime:cpu"], commit = "together" }}
output = {{ kind = "anomaly", threshold = {{ calibrate_events = 10 }} }}
"""
_BROKEN = """\
[[pipeline]]
name = "broken"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["accel_rms"] }}
model = {{ path = "{models}/condition.onnx" }}
output = {{ kind = "classification", labels = ["a"] }}
"""
_HOMEWARD = '[upstream]\nurl = "mqtt://127.0.0.1:1883"\n'  # the uplink's process is not started here


def configuration(folder: Path, *, broken: bool = False, homeward: bool = False) -> Config:
    """One pipeline that learns its threshold, and if wanted one whose model does not fit it, and a hub. Blocks."""
    path = folder / "edged.toml"
    text = _CONFIG + (_BROKEN if broken else "") + (_HOMEWARD if homeward else "")
    path.write_text(text.format(folder=folder, models=MODELS, fields=", ".join(f'"{name}"' for name in FIELDS)))
    return load([path])


class AppRig:
    """`link` plays the broker; time moves only when told to."""

    def __init__(self, app: App, clock: FakeClock) -> None:
        self.app = app
        self.clock = clock
        self.link = LoopLink(app.engine)
        app.engine.attach(self.link)

    async def events(self, count: int, *, first: int = 0, device: str = "pump-1") -> None:
        for seq in range(first, first + count):
            body = dict.fromkeys(FIELDS, 1.0 + seq % 3) | {"seq": seq, "ts": 1_700_000_000_000 + 1000 * seq}
            self.link.arrive(f"in/{device}", msgspec.json.encode(body))
        await self.app.engine.settled()

    async def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and what is due happen."""
        self.clock.advance_s(seconds)
        self.app.upkeep.tick()
        await self.app.engine.settled()

    async def look_at_devices(self) -> None:
        """Let the governor take one sample of the box, which has one thermal zone."""
        self.app.governing.take(await asyncio.to_thread(read_devices, self.app.sensors_root))

    async def look_at_host(self) -> None:
        """Let the daemon read what it tells about its host and its store, once."""
        tasks = dict(self.app.tasks())
        looking = asyncio.create_task(tasks.pop("host"))
        for other in tasks.values():
            other.close()
        async with asyncio.timeout(10):
            while not self.app.report.status()["store"]:
                await asyncio.sleep(0.01)
        looking.cancel()


@asynccontextmanager
async def running(folder: Path, *, broken: bool = False, homeward: bool = False) -> AsyncIterator[AppRig]:
    """With the `configuration` above, connected to a broker that grants everything."""
    config = await asyncio.to_thread(configuration, folder, broken=broken, homeward=homeward)
    clock = FakeClock()
    box = Box(folder / "box").zone(0, "cpu", 45, ("passive", 85), ("critical", 100))
    app = await build(
        config, clock=clock, log=Log(clock, write=lambda _line: None, journal=False), sensors_root=box.root
    )
    try:
        rig = AppRig(app, clock)
        rig.link.up()
        yield rig
    finally:
        await app.close()
