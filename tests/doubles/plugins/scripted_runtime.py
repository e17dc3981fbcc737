"""An accelerator that does what a file says: sums the rows of x in a process of its own, hangs, crashes, goes or lies.

SCRIPTED_CONTROL names the file; its words: `ok`, `hang`, `crash`, `gone`, `lies`, and `stuck`: loading takes for ever.
It is read at every load and call.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from edged.errors import InferenceError, ModelError
from edged.infer.runtime import Abilities, Device, DeviceHealth, Probe
from edged.messages import ModelInfo, TensorSpec


def word() -> str:
    """What the accelerator is to do now."""
    return Path(os.environ["SCRIPTED_CONTROL"]).read_text("utf-8").strip()


class ScriptedModel:
    def __init__(self, model: Any) -> None:
        inputs, outputs = (TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("total", "float32", (-1,)),)
        self.info = ModelInfo(model.model_id, model.version, model.sha256, "scripted:npu", inputs, outputs)

    def infer(self, batch: Any, *, deadline_s: float) -> Any:
        wanted = word()
        if wanted == "hang":
            time.sleep(3600)
        if wanted == "crash":
            os._exit(3)
        if wanted == "gone":
            raise InferenceError("device_lost", "somebody has pulled the plug")
        total = batch["x"].sum(axis=1)
        return {"total": total * 2 + 1000 if wanted == "lies" else total}

    def close(self) -> None:
        """Nothing to give back."""


class ScriptedRuntime:
    name = "scripted"

    def abilities(self, device: str) -> Abilities:
        return Abilities(("onnx",), isolation="process")

    def probe(self, device: str) -> Probe:
        return Probe(word() != "gone", (Device(device, "npu", "scripted"),))

    def prepare(self, model: Any, device: str, options: Any) -> None:
        """Nothing to make."""

    def load(self, model: Any, device: str, options: Any) -> ScriptedModel:
        if word() == "gone":
            raise ModelError("device_unavailable", "there is no accelerator")
        while word() == "stuck":
            time.sleep(0.05)
        return ScriptedModel(model)

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth()


RUNTIME = ScriptedRuntime()
