"""The first calls of a loaded model: finite and repeatable answers, its golden vectors, and how fast it is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.loading import MAX_GOLDEN_BYTES, GoldenFile, read_bounded
from edged.policy.batching import TYPICAL_BATCH_COUNT, Cost, fit_cost

if TYPE_CHECKING:
    from edged.messages import TensorSpec
    from edged.ports import Clock, Model

_DEADLINE_S = 60.0
_MEASURE_BUDGET_US = 200_000.0  # a slow model is not called 32 times over just to learn that it is slow
_FREE_AXIS = 8  # stands for every free axis but the batch
_REPEATS = 3
_REPEAT_RTOL = 1e-5


def warm_up(model: Model, clock: Clock, golden: GoldenFile | None = None) -> Cost:
    """Prove that `model` answers and measure it.

    Raises:
        ModelError: `warmup_failed`, `not_finite`, `not_repeatable`, `golden_mismatch`, `bad_golden`.
    """
    one = probe_inputs(model.info.inputs, 1)
    first, again = _run(model, one), _run(model, one)
    for name, array in first.items():
        if not np.isfinite(array).all():
            raise ModelError("not_finite", f"{model.info.model}: output {name} has NaN or infinity for a plain input")
        if not np.allclose(array, again[name], rtol=_REPEAT_RTOL, atol=1e-6):
            raise ModelError("not_repeatable", f"{model.info.model}: output {name} differs for the same input")
    if golden is not None:
        check_golden(model, golden)
    return _measure(model, clock, one)


def probe_inputs(inputs: tuple[TensorSpec, ...], items: int) -> dict[str, np.ndarray]:
    """Inputs that any model should answer: a ramp in (0, 1) for floats, zeros for the rest; the same every time."""
    made: dict[str, np.ndarray] = {}
    for spec in inputs:
        shape = (items, *(axis if axis >= 0 else _FREE_AXIS for axis in spec.shape[1:]))
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            count = int(np.prod(shape[1:]))
            row = ((np.arange(count) + 0.5) / max(count, 1)).astype(dtype)
            made[spec.name] = np.broadcast_to(row.reshape(shape[1:]), shape).copy()
        else:
            made[spec.name] = np.zeros(shape, dtype)
    return made


def check_golden(model: Model, golden: GoldenFile) -> None:
    """Compare the model's answers with the stored ones. Raises `ModelError` (`golden_mismatch`, `bad_golden`)."""
    inputs, expected = _read_golden(golden)
    inputs = _named_like(inputs, model.info.inputs)
    expected = _named_like(expected, model.info.outputs)
    answers = _run(model, inputs)
    right: np.ndarray | None = None  # rows of which every output agrees
    for name, array in expected.items():
        answer = answers.get(name)
        if answer is None or answer.shape != array.shape:
            got = "none" if answer is None else answer.shape
            raise ModelError("golden_mismatch", f"{model.info.model}: output {name}: expected {array.shape}, got {got}")
        close = np.isclose(answer, array, rtol=golden.rtol, atol=golden.atol).reshape(len(array), -1).all(axis=1)
        right = close if right is None else right & close
        if right.mean() < golden.min_pass:
            worst = float(np.max(np.abs(answer.astype(np.float64) - array.astype(np.float64))))
            raise ModelError(
                "golden_mismatch",
                f"{model.info.model} on {model.info.runtime}: {right.mean():.0%} of the rows agree, needed are "
                f"{golden.min_pass:.0%}; output {name} is off by up to {worst:.6g}, "
                f"allowed rtol {golden.rtol:g} atol {golden.atol:g}",
                hint="the model file, the runtime or the device computes something else than was tested",
            )


def _named_like(arrays: dict[str, np.ndarray], specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """Arrays by the names of the model; other names are matched by position: another form of the same model."""
    names = [spec.name for spec in specs]
    if len(arrays) != len(names) or not set(names).isdisjoint(arrays):
        return arrays
    return dict(zip(names, arrays.values(), strict=True))


def _read_golden(golden: GoldenFile) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    data = read_bounded(golden.path, golden.sha256, MAX_GOLDEN_BYTES)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError("bad_golden", f"Cannot read the golden vectors {golden.path}: {error}") from error
    inputs = {name[3:]: array for name, array in arrays.items() if name.startswith("in.")}
    expected = {name[4:]: array for name, array in arrays.items() if name.startswith("out.")}
    if not inputs or not expected:
        raise ModelError("bad_golden", f"{golden.path}: expected arrays in.<name> and out.<name>, got {sorted(arrays)}")
    lengths = {len(array) if array.ndim else 0 for array in expected.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ModelError("bad_golden", f"{golden.path}: expected as many rows in every output, got {sorted(lengths)}")
    return inputs, expected


def _run(model: Model, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    try:
        return model.infer(batch, deadline_s=_DEADLINE_S)
    except InferenceError as error:
        raise ModelError("warmup_failed", f"{model.info.model} does not answer: {error}") from error


def _measure(model: Model, clock: Clock, one: Mapping[str, np.ndarray]) -> Cost:
    """Best of three, for one item and for as many as the budget allows, up to 32."""
    one_us = _best_us(model, clock, one)
    many = int(min(TYPICAL_BATCH_COUNT, _MEASURE_BUDGET_US / max(one_us, 1.0)))
    if many < 2:
        return Cost(0.0, one_us)
    return fit_cost(one_us, _best_us(model, clock, probe_inputs(model.info.inputs, many)), many)


def _best_us(model: Model, clock: Clock, batch: Mapping[str, np.ndarray]) -> float:
    best_ns: int | None = None
    for _ in range(_REPEATS):
        started_ns = clock.mono_ns()
        _run(model, batch)
        taken_ns = clock.mono_ns() - started_ns
        best_ns = taken_ns if best_ns is None else min(best_ns, taken_ns)
    return (best_ns or 0) / 1000
