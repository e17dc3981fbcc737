"""Declared thresholds instead of a model: what answers when no model can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edged.errors import InferenceError
from edged.messages import ModelInfo, TensorSpec

RUNTIME = "rules"
INPUT = "input"
OUTPUT_RULE = "rule"
NO_RULE = -1


class Rule(NamedTuple):
    """`label` holds when the newest value of input field `column` is above or below its threshold (None: no limit)."""

    label: str
    column: int
    above: float | None = None
    below: float | None = None


class RulesModel:
    """Looks like a model: input float32 (batch, window, fields) or (batch, fields), output `rule` int32 (batch,).

    The output is the index of the first rule that holds, or -1; `rules[index].label` names it.
    """

    def __init__(self, rules: tuple[Rule, ...], pipeline: str = "") -> None:
        self.rules = rules
        self._info = ModelInfo(
            model=f"rules-{pipeline}" if pipeline else "rules",
            version="0",
            sha256="",
            runtime=RUNTIME,
            inputs=(TensorSpec(INPUT, "float32", (-1, -1, -1)),),
            outputs=(TensorSpec(OUTPUT_RULE, "int32", (-1,)),),
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        if len(batch) != 1:
            raise InferenceError("invalid_input", f"rules take one input, got {sorted(batch)}")
        (values,) = batch.values()
        if values.ndim not in (2, 3):
            raise InferenceError(
                "invalid_input", f"rules take (batch, fields) or (batch, window, fields), got {values.shape}"
            )
        newest = values[:, -1, :] if values.ndim == 3 else values
        first = np.full(len(newest), NO_RULE, np.int32)
        for index, rule in reversed(list(enumerate(self.rules))):
            if rule.column >= newest.shape[1]:
                raise InferenceError(
                    "invalid_input", f"rule {rule.label!r} reads field {rule.column}, the input has {newest.shape[1]}"
                )
            column = newest[:, rule.column]
            holds = np.zeros(len(newest), np.bool_)
            if rule.above is not None:
                holds |= column > rule.above
            if rule.below is not None:
                holds |= column < rule.below
            first[holds] = index
        return {OUTPUT_RULE: first}

    def close(self) -> None:
        """Nothing to give back."""
