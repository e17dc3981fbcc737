"""A runtime plug-in that computes with onnxruntime and then takes its time: STAND_IN_MS for each window of a call."""

from __future__ import annotations

import os
import time
from typing import Any


def load(model: Any, _device: str, options: Any) -> Any:
    from edged.infer.runtimes.onnxruntime_runtime import load as load_real

    return _Slow(load_real(model, "cpu", options), float(os.environ.get("STAND_IN_MS", "20")) / 1000)


class _Slow:
    def __init__(self, model: Any, item_s: float) -> None:
        self._model = model
        self._item_s = item_s
        self.info = model.info._replace(runtime="stand_in:cpu")

    def infer(self, batch: Any, *, deadline_s: float) -> Any:
        answer = self._model.infer(batch, deadline_s=deadline_s)
        time.sleep(self._item_s * len(next(iter(batch.values()))))
        return answer

    def close(self) -> None:
        self._model.close()
