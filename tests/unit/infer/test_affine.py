"""Real numbers as a model's integers and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edged.infer.affine import Affine

DTYPES = st.sampled_from(["int8", "uint8", "int16"])


@given(DTYPES, st.floats(2**-20, 1024, width=32), st.integers(-128, 127), st.data())
def test_every_integer_survives_the_way_out_and_back(dtype: str, scale: float, zero: int, data: st.DataObject) -> None:
    affine = Affine(dtype, scale, zero + (128 if dtype == "uint8" else 0))
    integers = data.draw(arrays.arrays(dtype, 16))
    reals = affine.dequantise(integers)
    assert reals.dtype == np.float32
    np.testing.assert_array_equal(affine.quantise(reals), integers)


def test_the_nearest_integer_is_taken_and_the_range_has_ends() -> None:
    affine = Affine("int8", 0.5, 3)
    reals = np.array([0, 0.24, 0.26, -1, 1e9, -1e9, np.inf, -np.inf], np.float32)
    assert affine.quantise(reals).tolist() == [3, 3, 4, 1, 127, -128, 127, -128]
    assert reals[1] == np.float32(0.24), "the caller's array is left alone"


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Affine("uint8", 0.5, 0).quantise(np.array([1, np.nan], np.float32))
