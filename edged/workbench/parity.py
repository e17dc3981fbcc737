"""How far the answers of one model are from those of another. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

MAX_SQNR_DB = 200.0  # stands for "equal": JSON knows no infinity


class Parity(NamedTuple):
    """One output over all samples. `sqnr_db`: power of the reference over power of the difference.

    per_sample_db: the same for each sample on its own. `finite`: neither model answered NaN or infinity.
    """

    output: str
    sqnr_db: float
    cosine: float
    max_abs: float
    mean_abs: float
    finite: bool
    per_sample_db: tuple[float, ...]

    @property
    def worst_sample_db(self) -> float:
        return min(self.per_sample_db, default=MAX_SQNR_DB)


def compare(reference: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> tuple[Parity, ...]:
    """Every output of `reference`; both have the same names and shapes, the first axis counts the samples."""
    return tuple(_compare(name, wanted, answers[name]) for name, wanted in reference.items())


def sqnr_db(signal: float, noise: float) -> float:
    """Decibels from two energies; capped where there is no noise."""
    if noise <= 0.0:
        return MAX_SQNR_DB
    if signal <= 0.0:
        return 0.0
    return min(10.0 * math.log10(signal / noise), MAX_SQNR_DB)


def _compare(name: str, wanted: np.ndarray, got: np.ndarray) -> Parity:
    reference = wanted.reshape(len(wanted), -1).astype(np.float64)
    answer = got.reshape(len(got), -1).astype(np.float64)
    if not (np.isfinite(reference).all() and np.isfinite(answer).all()):
        return Parity(name, 0.0, 0.0, 0.0, 0.0, False, ())
    off = answer - reference
    signal, noise = (reference**2).sum(axis=1), (off**2).sum(axis=1)
    norms = math.sqrt(float(signal.sum()) * float((answer**2).sum()))
    cosine = float((reference * answer).sum()) / norms if norms else float(not noise.any())
    return Parity(
        output=name,
        sqnr_db=sqnr_db(float(signal.sum()), float(noise.sum())),
        cosine=cosine,
        max_abs=float(np.abs(off).max(initial=0.0)),
        mean_abs=float(np.abs(off).mean()) if off.size else 0.0,
        finite=True,
        per_sample_db=tuple(sqnr_db(float(s), float(n)) for s, n in zip(signal, noise, strict=True)),
    )
