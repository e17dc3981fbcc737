"""Declared scaling: one line per field, applied to all samples of a batch at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edged.errors import ConfigError
from edged.pipeline.spec import Scaling

Floats = NDArray[np.float64]


class Scaler:
    """y = x · factor + shift per field.

    Raises:
        ConfigError: neither one number nor one per field, or numbers that cannot be computed with.
    """

    def __init__(self, scaling: Scaling, fields: int) -> None:
        scale = _per_field("scale", scaling.scale, 1.0, fields)
        offset = _per_field("offset", scaling.offset, 0.0, fields)
        mean = _per_field("mean", scaling.mean, 0.0, fields)
        std = _per_field("std", scaling.std, 1.0, fields)
        if not (std > 0).all():
            raise ConfigError(f"scaling: std = {list(scaling.std)} divides, so each must be above 0")
        self._factor = scale / std
        self._shift = (offset - mean) / std

    def __call__(self, samples: Floats) -> Floats:
        """Scale (..., fields)."""
        return samples * self._factor + self._shift


def _per_field(name: str, numbers: tuple[float, ...], absent: float, fields: int) -> Floats:
    if len(numbers) not in {0, 1, fields}:
        raise ConfigError(f"scaling: {name} has {len(numbers)} numbers; give one, or one for each of {fields} fields")
    array = np.broadcast_to(np.array(numbers or (absent,)), (fields,))
    if not np.isfinite(array).all():
        raise ConfigError(f"scaling: {name} = {list(numbers)} has a number that is not finite")
    return array
