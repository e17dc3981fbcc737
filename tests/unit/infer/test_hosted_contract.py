"""A runtime in a process of its own keeps the same contract: who calls the model cannot tell the difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.infer.contract import CHECKS, Check, Subject
from edged.infer.hosting.devices import Devices
from edged.infer.loading import ModelFile
from edged.infer.registry import find_runtime
from edged.infer.runtime import Abilities, DeviceHealth, LoadOptions, Probe
from edged.ops.clock import SystemClock
from edged.ports import Model
from tests.unit.infer.models import sum_model


class Hosted:
    """`edged.infer.runtime.Runtime`, whose models and probes are those of the processes of `devices`."""

    def __init__(self, name: str, devices: Devices) -> None:
        self.name = name
        self._devices = devices

    def abilities(self, device: str) -> Abilities:
        return find_runtime(self.name).abilities(device)

    def probe(self, device: str) -> Probe:
        return self._devices.probe(f"{self.name}:{device}")

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        self._devices.prepare(f"{self.name}:{device}", model, options, timeout_s=60)

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> Model:
        return self._devices.load(f"{self.name}:{device}", model, options)

    def health(self, device: str) -> DeviceHealth:
        return find_runtime(self.name).health(device)


@pytest.fixture(scope="module")
def devices() -> Iterator[Devices]:
    made = Devices(SystemClock())
    yield made
    made.close(10)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_onnxruntime_in_a_process_keeps_the_contract(check: Check, devices: Devices, tmp_path: Path) -> None:
    check(Subject(Hosted("onnxruntime", devices), "cpu", sum_model(tmp_path / "sum.onnx"), tmp_path))
