"""A model file, and processes that are ended with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.infer.hosting.devices import Devices
from edged.infer.hosting.limits import WorkerLimits
from edged.infer.loading import ModelFile, open_model
from edged.ops.clock import SystemClock
from tests.doubles.worker_runtimes import scripted_command
from tests.unit.infer.models import sum_model

MakeDevices = Callable[..., Devices]


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(sum_model(tmp_path / "sum.onnx"), allow_unsigned=True)


@pytest.fixture
def make_devices(tmp_path: Path) -> Iterator[MakeDevices]:
    """Makes `Devices` whose children find the scripted runtimes; keywords are those of `Devices` and `WorkerLimits`."""
    made: list[Devices] = []

    def make(**given: Any) -> Devices:
        limits = {name: given.pop(name) for name in tuple(given) if name in WorkerLimits._fields}
        given.setdefault("command", scripted_command(tmp_path / "site"))
        devices = Devices(SystemClock(), WorkerLimits(**{"grace_s": 0.2, **limits}), **given)
        made.append(devices)
        return devices

    yield make
    for devices in made:
        devices.close(10)


@pytest.fixture
def devices(make_devices: MakeDevices) -> Devices:
    return make_devices()
