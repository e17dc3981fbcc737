"""Real numbers as integers and back: real = (integer − zero point) × scale, one pair for a whole tensor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Affine(NamedTuple):
    """How a quantised tensor stores real numbers. `dtype`: its integers (`int8`, `uint8`, `int16`)."""

    dtype: str
    scale: float
    zero_point: int

    def quantise(self, reals: np.ndarray) -> np.ndarray:
        """Float32 as the nearest integers; what lies outside their range becomes its end, as on the training side.

        Raises:
            ValueError: NaN, which has no integer.
        """
        limits = np.iinfo(self.dtype)
        steps = np.divide(reals, np.float32(self.scale))
        np.rint(steps, out=steps)
        steps += np.float32(self.zero_point)
        if np.isnan(steps).any():
            raise ValueError("NaN has no integer")
        integers: np.ndarray = np.clip(steps, limits.min, limits.max, out=steps).astype(self.dtype)
        return integers

    def dequantise(self, integers: np.ndarray) -> np.ndarray:
        """The integers of a model as float32."""
        reals: np.ndarray = (integers.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return reals
