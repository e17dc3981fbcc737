"""Closeness in numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edged.workbench.parity import MAX_SQNR_DB, compare, sqnr_db


def test_equal_answers_are_as_close_as_can_be() -> None:
    (found,) = compare({"y": np.ones((4, 3))}, {"y": np.ones((4, 3))})
    assert (found.sqnr_db, found.max_abs, found.finite) == (MAX_SQNR_DB, 0.0, True)
    assert found.cosine == pytest.approx(1.0)
    assert found.worst_sample_db == MAX_SQNR_DB


def test_a_tenth_of_noise_is_twenty_decibels() -> None:
    reference = np.full((2, 5), 10.0)
    (found,) = compare({"y": reference}, {"y": reference + np.array([[1.0], [-1.0]])})
    assert found.sqnr_db == pytest.approx(20.0)
    assert found.per_sample_db == pytest.approx((20.0, 20.0))
    assert (found.max_abs, found.mean_abs) == (1.0, 1.0)


def test_answers_of_zero_have_no_signal() -> None:
    (silent,) = compare({"y": np.zeros((2, 2))}, {"y": np.ones((2, 2))})
    assert (silent.sqnr_db, silent.cosine) == (0.0, 0.0)
    assert sqnr_db(0.0, 0.0) == MAX_SQNR_DB


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_not_close(bad: float) -> None:
    (found,) = compare({"y": np.ones((2, 2))}, {"y": np.array([[1.0, bad], [1.0, 1.0]])})
    assert (found.finite, found.sqnr_db, found.per_sample_db) == (False, 0.0, ())


def test_integers_are_compared_without_wrapping() -> None:
    (found,) = compare({"y": np.array([[200]], np.uint8)}, {"y": np.array([[250]], np.uint8)})
    assert found.max_abs == 50.0
