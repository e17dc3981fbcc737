"""Any number of inputs for a model that was exported with a fixed batch: called piece by piece, the last one padded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError

if TYPE_CHECKING:
    from edged.messages import ModelInfo, TensorSpec
    from edged.ports import Model


def free_batch(model: Model) -> Model:
    """`model`, or a wrapper that frees its batch axis.

    Raises:
        ModelError: `incompatible` when inputs and outputs do not share a first axis that can be the batch.
    """
    info = model.info
    scalars = [spec.name for spec in (*info.inputs, *info.outputs) if not spec.shape]
    if scalars or not info.inputs or not info.outputs:
        raise ModelError("incompatible", f"{info.model}: expected a batch axis everywhere, none in {scalars}")
    sizes = {spec.shape[0] for spec in info.inputs}
    if sizes == {-1}:
        return model
    fixed = {spec.shape[0] for spec in (*info.inputs, *info.outputs)} - {-1}
    if len(sizes) != 1 or len(fixed) != 1:
        raise ModelError(
            "incompatible", f"{info.model}: expected one batch size on the first axes, got {sorted(fixed)}"
        )
    return FixedBatch(model, fixed.pop())


class FixedBatch:
    """A model whose every call takes exactly `size` inputs, made to look like one with a free batch axis."""

    def __init__(self, model: Model, size: int) -> None:
        self._model = model
        self._size = size
        self._info = model.info._replace(inputs=_freed(model.info.inputs), outputs=_freed(model.info.outputs))

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        lengths = {len(array) for array in batch.values() if array.ndim}
        if len(lengths) != 1:
            raise InferenceError("invalid_input", f"{self._info.model}: inputs of different lengths {sorted(lengths)}")
        length = lengths.pop()
        if not length:
            raise InferenceError("invalid_input", f"{self._info.model}: an empty batch")
        pieces: dict[str, list[np.ndarray]] = {spec.name: [] for spec in self._info.outputs}
        for first in range(0, length, self._size):
            outputs = self._model.infer(self._piece(batch, first), deadline_s=deadline_s)
            for name, array in outputs.items():
                if array.ndim == 0 or len(array) != self._size:
                    raise InferenceError(
                        "infer_failed",
                        f"{self._info.model}: output {name} has the shape {array.shape}, expected {self._size} rows",
                    )
                pieces[name].append(array)
        return {name: np.concatenate(arrays)[:length] for name, arrays in pieces.items()}

    def close(self) -> None:
        self._model.close()

    def _piece(self, batch: Mapping[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
        piece = {name: array[first : first + self._size] for name, array in batch.items()}
        for name, array in piece.items():
            missing = self._size - len(array)
            if missing:
                piece[name] = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        return piece


def _freed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec._replace(shape=(-1, *spec.shape[1:])) for spec in specs)
