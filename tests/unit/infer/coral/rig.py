"""Models compiled for an Edge TPU, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile
from edged.infer.runtime import LoadOptions, Runtime
from edged.infer.runtimes.tflite_io import TfliteModel
from tests.unit.infer.tflite_models import unary

AFFINE = (0.5, 10)


def compiled(path: Path) -> Path:
    """A model of one operator for the Edge TPU, uint8, (1, 4) to (1, 4)."""
    return unary(path, "uint8", builtin=BuiltinOperator.CUSTOM, custom="edgetpu-custom-op", affine=AFFINE, rows=1)


def stored(inputs: list[int], outputs: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All inputs and all outputs of an operator that has one of each."""
    return [np.array([inputs], np.uint8)], [np.array([outputs], np.uint8)]


def refusal(runtime: Runtime, file: ModelFile, device: str = "usb") -> ModelError:
    with pytest.raises(ModelError) as caught:
        runtime.load(file, device, LoadOptions())
    return caught.value


def ask(model: TfliteModel) -> str:
    """The code of the refusal of a call."""
    with pytest.raises(InferenceError) as caught:
        model.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)
    return caught.value.code
