"""A naive Python daemon: paho, pydantic, one inference and one SQLite commit per message."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from benchmarks.contestants.contestant import Contestant
from benchmarks.native import NotMeasured
from benchmarks.plan import HERE, SATURATED, STEADY_50

NEEDS = {"paho": "paho-mqtt", "pydantic": "pydantic", "onnxruntime": "onnxruntime", "numpy": "numpy"}


class NaivePython(Contestant):
    name = "naive_python"
    title = "naive Python daemon"
    durable = True
    loads = (SATURATED, STEADY_50)
    window = 100  # it answers a few hundred per second: more outstanding only makes the end of the run longer

    def __init__(self, model_folder: Path) -> None:
        self._model_folder = model_folder

    def prepare(self) -> None:
        missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
        if missing:
            raise NotMeasured(f"missing: pip install {' '.join(missing)}")

    def command(self, port: int, workdir: Path) -> list[str]:
        script, model = HERE / "naive" / "daemon.py", self._model_folder / "mlp.onnx"
        return [sys.executable, str(script), str(port), str(model), str(workdir / "naive.db")]
