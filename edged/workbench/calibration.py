"""Whether samples can calibrate a quantised model. Pure.

The quantiser takes the range of every tensor from these samples and believes them: one image of zeros gives a model
that loads, answers, and is wrong. What the samples alone can show is refused here; the rest is for `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edged.workbench.refusal import Unfit

MIN_SAMPLES = 16
GOOD_SAMPLES = 100
_CONSTANT_RATIO = 1e-6  # of the largest magnitude: less spread than this is rounding, not signal
_OUTLIER_RATIO = 50.0
_BIN_COUNT = 40
_HINT = "take 100 or more inputs from the running plant, from every product, load and season there is"


class InputRange(NamedTuple):
    """What one input looked like over all samples. `dead`: places of the input that never change.

    counts: values per bin of equal width between low and high.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    mean: float
    std: float
    common: float
    dead: int
    places: int
    counts: tuple[int, ...]


class Calibration(NamedTuple):
    """Samples that passed. `notes`: what is odd and allowed."""

    samples: int
    distinct: int
    ranges: tuple[InputRange, ...]
    notes: tuple[str, ...]


def check_calibration(inputs: Mapping[str, np.ndarray]) -> Calibration:
    """Look at the samples of every input; the first axis counts them.

    Raises:
        Unfit: `calibration_too_few`, `calibration_not_finite`, `calibration_all_zero`, `calibration_constant`,
            `calibration_repeated`.
    """
    samples = min(len(array) for array in inputs.values())
    if samples < MIN_SAMPLES:
        raise Unfit("calibration_too_few", f"expected {MIN_SAMPLES} samples or more, got {samples}", hint=_HINT)
    for name, array in inputs.items():
        _refuse_useless(name, array)
    distinct = len({_fingerprint(inputs, at) for at in range(samples)})
    if distinct < MIN_SAMPLES:
        raise Unfit(
            "calibration_repeated",
            f"expected {MIN_SAMPLES} different samples or more, got {distinct} among {samples}",
            hint=_HINT,
        )
    ranges = tuple(describe_input(name, array) for name, array in inputs.items())
    return Calibration(samples, distinct, ranges, tuple(_notes(samples, distinct, ranges)))


def describe_input(name: str, array: np.ndarray) -> InputRange:
    flat = array.reshape(len(array), -1)
    values = flat.astype(np.float64, copy=False)
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, bins=_BIN_COUNT, range=(low, high) if high > low else (low - 0.5, low + 0.5))
    return InputRange(
        name=name,
        shape=array.shape,
        dtype=str(array.dtype),
        low=low,
        high=high,
        mean=float(values.mean()),
        std=float(values.std()),
        common=float(np.percentile(np.abs(values), 99)),
        dead=int((flat.min(axis=0) == flat.max(axis=0)).sum()),
        places=flat.shape[1],
        counts=tuple(int(count) for count in counts),
    )


def _refuse_useless(name: str, array: np.ndarray) -> None:
    if array.size == 0:
        raise Unfit("calibration_too_few", f"input {name}: {array.shape} holds no values", hint=_HINT)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise Unfit("calibration_not_finite", f"input {name}: {bad} of {array.size} values are NaN or infinite")
    if not array.any():
        raise Unfit("calibration_all_zero", f"input {name}: every value is zero", hint=_HINT)
    low, high = float(array.min()), float(array.max())
    if high - low <= _CONSTANT_RATIO * max(abs(low), abs(high)):
        raise Unfit("calibration_constant", f"input {name}: every value is {low:g}", hint=_HINT)


def _fingerprint(inputs: Mapping[str, np.ndarray], at: int) -> int:
    return hash(tuple(array[at].tobytes() for array in inputs.values()))


def _notes(samples: int, distinct: int, ranges: tuple[InputRange, ...]) -> list[str]:
    notes = []
    if distinct < GOOD_SAMPLES:
        notes.append(f"{distinct} different samples: {GOOD_SAMPLES} or more cover more of what the plant does")
    if distinct < samples:
        notes.append(f"{samples - distinct} samples repeat another one")
    for found in ranges:
        if found.dead:
            notes.append(f"input {found.name}: {found.dead} of {found.places} values never change")
        largest = max(abs(found.low), abs(found.high))
        if found.common and largest > _OUTLIER_RATIO * found.common:
            notes.append(
                f"input {found.name}: the largest magnitude is {largest / found.common:.0f} times that of 99 % of the"
                " values; such outliers take the steps away from the rest"
            )
    return notes
