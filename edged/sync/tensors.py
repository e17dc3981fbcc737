"""Arrays as tensors of `edged-infer/1`, and back: one byte a number, by one scale and zero point. Pure; numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edged.sync.envelope import Refusal
from edged.sync.inference import FLOATS, ITEM_BYTES, Packed, pack, unpack

_STEPS = 255
_LEAST_SCALE = 1e-250  # below it 1 / scale is no number any more


class Range(NamedTuple):
    """How reals become bytes: real = (byte − zero_point) × scale. Zero is always exact: padding stays padding."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        return (_STEPS - self.zero_point) * self.scale


def range_of(low: float, high: float) -> Range:
    """The finest range from `low` to `high` that has zero on a step."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / _STEPS
    if scale < _LEAST_SCALE or not np.isfinite(scale):
        return Range(1.0, 0)  # nothing but zeros, or numbers that no line of bytes can hold apart
    return Range(scale, int(np.clip(round(-low / scale), 0, _STEPS)))


def quantise(array: np.ndarray, known: Range | None = None) -> tuple[np.ndarray, Range]:
    """Bytes of a float array, and their range: `known` where it holds every value, else the array's own.

    So nothing is ever clipped by more than a step: an input unlike all samples costs precision, not truth.

    Raises:
        ValueError: NaN or infinity, which no byte can say.
    """
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("NaN or infinity cannot be quantised")
    fits = known is not None and low >= known.low - known.scale and high <= known.high + known.scale
    chosen = known if known is not None and fits else range_of(low, high)
    steps = np.rint(array * np.float64(1.0 / chosen.scale)) + chosen.zero_point
    return np.clip(steps, 0, _STEPS).astype(np.uint8), chosen


def dequantise(array: np.ndarray, found: Range, dtype: str) -> np.ndarray:
    """The reals that the bytes stand for."""
    wide = "float64" if dtype == "float64" else "float32"
    reals: np.ndarray = array.astype(wide)
    reals -= found.zero_point
    reals *= found.scale
    return reals.astype(dtype, copy=False)


def to_packed(name: str, array: np.ndarray, *, u8: bool = False, known: Range | None = None) -> Packed:
    """An array ready to travel. u8: floats as one byte each; other types always travel as they are.

    Raises:
        ValueError: a type that does not travel; NaN or infinity with u8.
    """
    dtype = str(array.dtype)
    if dtype not in ITEM_BYTES:
        raise ValueError(f"{name}: {dtype} does not travel")
    if u8 and dtype in FLOATS:
        coded, found = quantise(array, known)
        return pack(name, dtype, array.shape, coded.tobytes(), (found.scale, found.zero_point))
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return pack(name, dtype, array.shape, little.tobytes())


def to_array(tensor: Packed) -> np.ndarray:
    """The array of a tensor that came. Raises `Refusal` (`bad_message`)."""
    header, data = tensor.header, unpack(tensor)
    if header.coding == "u8":
        coded = np.frombuffer(data, np.uint8).reshape(header.shape)
        return dequantise(coded, Range(header.scale, header.zero_point), header.dtype)
    if header.dtype == "bool" and data.strip(b"\0\1"):
        raise Refusal("bad_message", f"tensor {header.name}: a truth value is 0 or 1")
    return np.frombuffer(data, np.dtype(header.dtype).newbyteorder("<")).reshape(header.shape).astype(header.dtype)


def to_arrays(tensors: Sequence[Packed]) -> dict[str, np.ndarray]:
    return {tensor.header.name: to_array(tensor) for tensor in tensors}
