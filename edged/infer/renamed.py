"""Two forms of one model may give other names to their inputs and outputs; order, shapes and types are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import ModelError

if TYPE_CHECKING:
    from edged.messages import ModelInfo, TensorSpec
    from edged.ports import Model

Specs = tuple["TensorSpec", ...]


def like(model: Model, wanted: ModelInfo) -> Model:
    """`model`, called with the names of `wanted`. Names that are the same stay; others are matched by position.

    Raises:
        ModelError: `incompatible` when number, types or shapes differ.
    """
    own = model.info
    inputs = _names(own.inputs, wanted.inputs, f"inputs of {own.runtime}")
    outputs = _names(own.outputs, wanted.outputs, f"outputs of {own.runtime}")
    if all(name == theirs for name, theirs in (inputs | outputs).items()):
        return model
    return _Renamed(model, wanted, inputs, outputs)


def _names(own: Specs, wanted: Specs, what: str) -> dict[str, str]:
    """Name in `wanted` -> name in `own`."""
    by_name = {spec.name: spec for spec in own}
    same = by_name.keys() == {spec.name for spec in wanted}
    pairs = [(by_name[spec.name], spec) for spec in wanted] if same else list(zip(own, wanted, strict=False))
    if len(own) != len(wanted) or not all(_alike(mine, theirs) for mine, theirs in pairs):
        shown = [[f"{spec.dtype}{list(spec.shape)}" for spec in specs] for specs in (wanted, own)]
        raise ModelError("incompatible", f"{what}: expected {', '.join(shown[0])}, got {', '.join(shown[1])}")
    return {theirs.name: mine.name for mine, theirs in pairs}


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    return (
        one.dtype == other.dtype
        and len(one.shape) == len(other.shape)
        and all(left == right or -1 in (left, right) for left, right in zip(one.shape, other.shape, strict=True))
    )


class _Renamed:
    def __init__(self, model: Model, wanted: ModelInfo, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        self._model = model
        self._inputs = inputs
        self._outputs = {theirs: name for name, theirs in outputs.items()}
        own = model.info
        shapes = {spec.name: spec for spec in (*own.inputs, *own.outputs)}
        self.info = own._replace(
            inputs=tuple(shapes[inputs[spec.name]]._replace(name=spec.name) for spec in wanted.inputs),
            outputs=tuple(shapes[outputs[spec.name]]._replace(name=spec.name) for spec in wanted.outputs),
        )

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        renamed = {self._inputs.get(name, name): array for name, array in batch.items()}
        answers = self._model.infer(renamed, deadline_s=deadline_s)
        return {self._outputs.get(name, name): array for name, array in answers.items()}

    def close(self) -> None:
        self._model.close()
