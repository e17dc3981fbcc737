"""Sets of numbers as ranges: sorted, disjoint, never adjacent, both ends inclusive. Pure functions.

What is home is remembered so (docs/adr/0015): a few hundred ranges at most, whatever the count of numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter

from edged.sync.protocol import Range

Ranges = tuple[Range, ...]

_first, _last = itemgetter(0), itemgetter(1)


def normalise(ranges: Iterable[Range]) -> Ranges:
    """The same numbers as sorted, disjoint ranges with a hole between any two; empty ranges (first > last) vanish."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def add(ranges: Ranges, first: int, last: int) -> Ranges:
    """`ranges` and first..last."""
    if first > last:
        return ranges
    begin = bisect_left(ranges, first - 1, key=_last)  # the first that touches it or lies behind it
    end = bisect_left(ranges, last + 2, lo=begin, key=_first)  # the first that lies behind it with a hole between
    if begin < end:
        first, last = min(first, ranges[begin][0]), max(last, ranges[end - 1][1])
    return (*ranges[:begin], (first, last), *ranges[end:])


def clip(ranges: Ranges, first: int, last: int) -> Ranges:
    """The part of `ranges` that lies in first..last."""
    if first > last:
        return ()
    begin = bisect_left(ranges, first, key=_last)
    end = bisect_left(ranges, last + 1, lo=begin, key=_first)
    return tuple((max(first, low), min(last, high)) for low, high in ranges[begin:end])


def missing(ranges: Ranges, first: int, last: int) -> list[Range]:
    """The parts of first..last that `ranges` does not cover."""
    holes: list[Range] = []
    for low, high in clip(ranges, first, last):
        if first < low:
            holes.append((first, low - 1))
        first = high + 1
    if first <= last:
        holes.append((first, last))
    return holes


def covers(ranges: Ranges, first: int, last: int) -> bool:
    """Whether every number of first..last is in `ranges`; nothing to cover (first > last) is covered."""
    if first > last:
        return True
    place = bisect_left(ranges, last, key=_last)
    return place < len(ranges) and ranges[place][0] <= first


def contiguous(ranges: Ranges, base: int) -> tuple[int, Ranges]:
    """(upto, what lies beyond): every number of base..upto is there, and base - 1 when `base` itself is missing.

    Ranges below `base` are left out.
    """
    beyond = ranges[bisect_left(ranges, base, key=_last) :]
    if beyond and beyond[0][0] <= base:
        return beyond[0][1], beyond[1:]
    return base - 1, beyond


def count(ranges: Ranges) -> int:
    """How many numbers there are."""
    return sum(last - first + 1 for first, last in ranges)
