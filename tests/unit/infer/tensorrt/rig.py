"""A model made ready, and how it is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.tensorrt_model import TensorrtModel
from edged.infer.runtimes.tensorrt_native import Tensorrt


def ready(tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str = "gpu") -> TensorrtModel:
    tensorrt.prepare(file, device, options)
    return tensorrt.load(file, device, options)


def ramp(items: int) -> np.ndarray:
    return np.linspace(-3, 3, items * 4, dtype=np.float32).reshape(items, 4)


def load_refusal(tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str = "gpu") -> ModelError:
    with pytest.raises(ModelError) as caught:
        tensorrt.load(file, device, options)
    return caught.value


def prepare_refusal(tensorrt: Tensorrt, file: ModelFile, options: LoadOptions, device: str = "gpu") -> ModelError:
    with pytest.raises(ModelError) as caught:
        tensorrt.prepare(file, device, options)
    return caught.value


def call_refusal(model: TensorrtModel, x: np.ndarray | None = None) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        model.infer({"x": ramp(1) if x is None else x}, deadline_s=0.02)
    return caught.value
