"""Samples that cannot calibrate a model are refused by their code; odd ones are named."""

from __future__ import annotations

import numpy as np
import pytest

from edged.workbench.calibration import MIN_SAMPLES, check_calibration
from edged.workbench.refusal import Unfit


def samples(count: int = 120, width: int = 6) -> np.ndarray:
    array: np.ndarray = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    return array


def code(array: np.ndarray) -> str:
    with pytest.raises(Unfit) as refused:
        check_calibration({"x": array})
    return refused.value.code


def test_one_image_of_zeros_is_refused() -> None:
    assert code(np.zeros((1, 3, 8, 8), np.float32)) == "calibration_too_few"


def test_many_images_of_zeros_are_refused() -> None:
    assert code(np.zeros((200, 3, 8, 8), np.float32)) == "calibration_all_zero"


def test_too_few_samples_are_refused() -> None:
    assert code(samples(MIN_SAMPLES - 1)) == "calibration_too_few"
    assert code(np.zeros((20, 0), np.float32)) == "calibration_too_few"


def test_a_constant_is_refused_even_with_the_last_bits_of_rounding() -> None:
    constant = np.full((50, 4), 7.25, np.float32)
    assert code(constant) == "calibration_constant"
    assert code(constant + np.float32(1e-6) * np.arange(4, dtype=np.float32)) == "calibration_constant"


def test_one_sample_many_times_is_refused() -> None:
    assert code(np.repeat(samples(3), 40, axis=0)) == "calibration_repeated"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    array = samples()
    array[3, 2] = bad
    assert code(array) == "calibration_not_finite"


def test_good_samples_say_what_they_cover() -> None:
    found = check_calibration({"x": samples(), "k": np.arange(120, dtype=np.int64).reshape(120, 1)})
    assert (found.samples, found.distinct, found.notes) == (120, 120, ())
    first, second = found.ranges
    assert (first.name, first.places, first.dead, first.dtype) == ("x", 6, 0, "float32")
    assert first.low < -2 < 2 < first.high
    assert sum(first.counts) == 720
    assert (second.low, second.high) == (0.0, 119.0)


def test_what_is_odd_is_named_and_allowed() -> None:
    array = samples(60)
    array[:, 0] = 1.0
    array[0, 1] = 500.0
    array[1] = array[2]
    words = " ".join(check_calibration({"x": array}).notes)
    assert "59 different samples" in words
    assert "1 samples repeat" in words
    assert "1 of 6 values never change" in words
    assert "outliers" in words
