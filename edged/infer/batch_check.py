"""Does a batch fit a model? Asked before native code sees it, whose answers to a misfit mislead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError

if TYPE_CHECKING:
    from edged.messages import ModelInfo


class BatchCheck:
    """Names, types and fixed axes of the inputs of one model."""

    def __init__(self, info: ModelInfo) -> None:
        self._model = info.model
        self._specs = {spec.name: (np.dtype(spec.dtype), spec.shape) for spec in info.inputs}

    def __call__(self, batch: Mapping[str, np.ndarray]) -> None:
        """Raise InferenceError (`invalid_input`) unless every input is there and fits."""
        if batch.keys() != self._specs.keys():
            raise self._misfit(f"expected inputs {sorted(self._specs)}, got {sorted(batch)}")
        for name, array in batch.items():
            dtype, shape = self._specs[name]
            if array.dtype != dtype or not _fits(array.shape, shape):
                raise self._misfit(f"input {name} expects {dtype} {shape}, got {array.dtype} {array.shape}")

    def _misfit(self, what: str) -> InferenceError:
        return InferenceError("invalid_input", f"{self._model}: {what}")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(axis in (-1, got) for got, axis in zip(shape, wanted, strict=True))
