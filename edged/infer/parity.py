"""Do two rungs of a chain compute the same model? Asked with inputs that are the same at every start.

Golden vectors of the bundle are the better judge and are used where there are some (`edged.infer.warmup`). Without them
the answers of the chain's last model rung, the processor as a rule, are what the others have to agree with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError

if TYPE_CHECKING:
    from edged.messages import TensorSpec
    from edged.ports import Model

Arrays = Mapping[str, np.ndarray]

LEAST_SQNR_DB = 20.0  # honest INT8 and FP16 stay above 25 dB; a wrong layout, scale or weight is below 10
_RTOL, _ATOL = 1e-2, 1e-3
_FREE_AXIS = 8  # stands for every free axis but the batch
FIRST_CALL_S = 60.0  # the first call of a freshly loaded model compiles, allocates, wakes the device
PROBE_S = 5.0  # a call of a loaded model that is asked whether it still answers
_SEED = 20


def parity_inputs(inputs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """Four different inputs: ramps and noise in (0, 1) and (-1, 1) for floats, all of an 8-bit range, else zeros."""
    chance = np.random.default_rng(_SEED)
    made: dict[str, np.ndarray] = {}
    for spec in inputs:
        shape = tuple(axis if axis >= 0 else _FREE_AXIS for axis in spec.shape[1:])
        dtype = np.dtype(spec.dtype)
        count = int(np.prod(shape))
        ramp = (np.arange(count) + 0.5) / max(count, 1)
        rows = np.stack([ramp, ramp[::-1], chance.random(count), chance.uniform(-1.0, 1.0, count)])
        if dtype.kind == "f":
            made[spec.name] = rows.reshape(4, *shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            spread = limits.min + np.abs(rows) * (limits.max - limits.min)
            made[spec.name] = np.rint(spread).reshape(4, *shape).astype(dtype)
        else:  # what may be an index into a table must not point behind it
            made[spec.name] = np.zeros((4, *shape), dtype)
    return made


def probe_answers(model: Model, deadline_s: float = FIRST_CALL_S) -> dict[str, np.ndarray]:
    """What `model` answers to the parity inputs, asked as one batch and one by one.

    Raises:
        ModelError: `warmup_failed` when it does not answer, `parity_failed` when a batch is answered otherwise than its
            items.
    """
    batch = parity_inputs(model.info.inputs)
    together = _ask(model, batch, deadline_s)
    for row in range(4):
        alone = _ask(model, {name: array[row : row + 1] for name, array in batch.items()}, deadline_s)
        # An output without a row for each item belongs to the whole batch: nothing to compare.
        of_batch = {name: array[row : row + 1] for name, array in together.items() if array.shape[:1] == (4,)}
        if fault := disagreement(alone, of_batch):
            what = f"{model.info.runtime}: a batch of 4 is not answered as its items"
            raise ModelError("parity_failed", f"{what}: {fault}")
    return together


def check_parity(answers: Arrays, reference: Arrays, who: str, authority: str) -> None:
    """Raise `ModelError` (`parity_failed`) unless `who` answers as `authority` did."""
    if fault := disagreement(answers, reference):
        raise ModelError(
            "parity_failed",
            f"{who} answers otherwise than {authority}: {fault}",
            hint="put golden vectors into the bundle if both are right, or take the rung out of the chain",
        )


def disagreement(answers: Arrays, reference: Arrays) -> str:
    """Which output differs by more than number formats explain, and by how much; "" when none does."""
    for name, expected in reference.items():
        got = answers.get(name)
        if got is None or got.shape != expected.shape:
            return f"output {name} has the shape {None if got is None else got.shape}, expected {expected.shape}"
        wide, right = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        if np.allclose(wide, right, rtol=_RTOL, atol=_ATOL):
            continue
        level = sqnr_db(right, wide)
        if not level >= LEAST_SQNR_DB:  # NaN is not
            return f"output {name} agrees to {level:.1f} dB, needed are {LEAST_SQNR_DB:g}"
    return ""


def sqnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    """Signal over error in dB; NaN when something is not a number."""
    error = float(np.square(expected - got).sum())
    signal = float(np.square(expected).sum())
    if not np.isfinite(error):
        return float("nan")
    return 10.0 * float(np.log10(max(signal, 1e-30) / max(error, 1e-30)))


def _ask(model: Model, batch: Arrays, deadline_s: float) -> dict[str, np.ndarray]:
    try:
        return dict(model.infer(batch, deadline_s=deadline_s))
    except InferenceError as error:
        raise ModelError("warmup_failed", f"{model.info.runtime} does not answer: {error}") from error
