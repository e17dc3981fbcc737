"""Ranges behave like the sets of numbers that they stand for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edged.sync.protocol import Range
from edged.sync.ranges import Ranges, add, clip, contiguous, count, covers, missing, normalise

NUMBERS = st.integers(-3, 30)
PAIRS = st.tuples(NUMBERS, NUMBERS)  # also backwards: an empty range
RANGES = st.lists(PAIRS, max_size=12).map(normalise)


def numbers(ranges: Ranges | list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def is_normal(ranges: Ranges | list[Range]) -> bool:
    ordered = all(first <= last for first, last in ranges)
    return ordered and all(left[1] + 1 < right[0] for left, right in pairwise(ranges))


@given(st.lists(PAIRS, max_size=12))
def test_normalising_keeps_the_numbers_and_leaves_a_hole_between_any_two_ranges(pairs: list[Range]) -> None:
    ranges = normalise(pairs)
    assert is_normal(ranges)
    assert numbers(ranges) == numbers(pairs)


@given(RANGES, PAIRS)
def test_adding_is_the_union(ranges: Ranges, pair: Range) -> None:
    grown = add(ranges, *pair)
    assert is_normal(grown)
    assert numbers(grown) == numbers(ranges) | numbers([pair])


@given(RANGES, PAIRS)
def test_clipping_is_the_intersection(ranges: Ranges, pair: Range) -> None:
    part = clip(ranges, *pair)
    assert is_normal(part)
    assert numbers(part) == numbers(ranges) & numbers([pair])


@given(RANGES, PAIRS)
def test_missing_is_the_difference_in_order(ranges: Ranges, pair: Range) -> None:
    holes = missing(ranges, *pair)
    assert is_normal(holes)
    assert numbers(holes) == numbers([pair]) - numbers(ranges)


@given(RANGES, PAIRS)
def test_covered_means_that_nothing_is_missing(ranges: Ranges, pair: Range) -> None:
    assert covers(ranges, *pair) == (not missing(ranges, *pair))


@given(RANGES, NUMBERS)
def test_the_contiguous_part_ends_before_the_first_missing_number(ranges: Ranges, base: int) -> None:
    upto, beyond = contiguous(ranges, base)
    assert is_normal(beyond)
    assert upto + 1 not in numbers(ranges)
    assert set(range(base, upto + 1)) | numbers(beyond) == {n for n in numbers(ranges) if n >= base}
    assert upto >= base - 1


@given(RANGES)
def test_the_count_is_that_of_the_numbers(ranges: Ranges) -> None:
    assert count(ranges) == len(numbers(ranges))


def test_neighbours_become_one_range() -> None:
    assert add(((1, 3), (5, 9)), 4, 4) == ((1, 9),)
    assert normalise([(5, 9), (1, 4)]) == ((1, 9),)


def test_the_numbers_of_a_year_cost_nothing() -> None:
    assert count(add(((1, 2**52),), 2**52 + 1, 2**53)) == 2**53
