"""Columns become nodes: of the ways to write a list the one that will cost the least. Pure and deterministic.

What an alternative costs is guessed in bits after compression, from counts that Python makes without a loop of its own.
"""

from __future__ import annotations

import binascii
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, groupby
from math import gcd, inf, log2
from operator import itemgetter, ne, sub
from typing import Any, NamedTuple

from edged.errors import BugError
from edged.sync.digits import to_digits
from edged.sync.nodes import (
    DIGITS_WIDTH_MAX,
    LEAST,
    MOST,
    VALUES_MAX,
    Base64,
    Const,
    Decimal,
    Deltas,
    Dicts,
    Digits,
    Float32,
    Float64,
    Lists,
    Node,
    Plain,
    Recent,
    Runs,
    Some,
    Times,
    Tuples,
    Utf8,
    Words,
    ZigZag,
)

RECENT_MAX = 8  # how far back an equal value is looked for
_NODE_BITS = 100  # what a node costs before its first entry
_WORD_BITS = 24
_FEW = 64
_SAMPLE = 16  # entries that are looked at before all are
_DECIMAL_BELOW = 2**40
DECIMAL_PLACES = 4


class Choice(NamedTuple):
    """A way to write a list: what it will cost, and how it is made when it is chosen."""

    bits: float
    make: Callable[[], Node]


def cheapest(*choices: Choice | None) -> Choice:
    return min((choice for choice in choices if choice), key=itemgetter(0))


# --- integers ---------------------------------------------------------------------------------------------------


def integers(values: list[int], *, recent: bool = False) -> Choice:
    """recent: look for values that come again soon."""
    plain = as_they_are(values)
    if not values or min(values) == max(values) or plain.bits == inf:
        return plain
    return cheapest(plain, _runs(values), _deltas(values), _recent(values) if recent else None)


def as_they_are(values: list[int]) -> Choice:
    """The integers, with nothing looked for between them."""
    n = len(values)
    low, high = (min(values), max(values)) if values else (0, 0)
    if low < LEAST or high > MOST:
        return Choice(inf, _impossible)
    if low == high:
        return Choice(_NODE_BITS, lambda: Const(low))
    span = high - low
    plain = Choice(_NODE_BITS + n * span.bit_length(), lambda: _digits(values, low, high))
    distinct = set(values)
    if len(distinct) <= _FEW:
        bits = _NODE_BITS + _entropy(values)
        if span < _FEW:
            return Choice(bits, plain.make)
        return Choice(bits + _WORD_BITS * len(distinct), lambda: _words(values))
    if (factor := _common_factor(values)) > 1:
        inner = as_they_are([value // factor for value in values])
        return Choice(inner.bits, lambda: Times(factor, inner.make()))
    if low >= 0:
        return cheapest(plain, Choice(_NODE_BITS + _magnitudes(values), lambda: _digits(values, 0, high)))
    if max(-low, high) <= MOST // 2:  # the sign takes a bit
        return cheapest(plain, Choice(_NODE_BITS + n + _magnitudes(values), lambda: _zigzag(values)))
    return plain


def _impossible() -> Node:
    raise BugError("a column holds an integer of more than 64 bits")


def _entropy(values: Sequence[Any]) -> float:
    n = len(values)
    return n * log2(n) - sum(count * log2(count) for count in Counter(values).values())


def _magnitudes(values: list[int]) -> float:
    """Bits when small integers are many and large ones few."""
    n = len(values)
    sizes = Counter(map(int.bit_length, values))
    return sum(count * (max(size - 1, 0) + log2(n / count)) for size, count in sizes.items())


def _common_factor(values: list[int]) -> int:
    factor = gcd(*values[:_SAMPLE])
    return factor if factor == 1 else gcd(*values)


def _digits(values: list[int], low: int, high: int) -> Node:
    width = max(1, -(-(high - low).bit_length() // 6))
    if width > DIGITS_WIDTH_MAX:
        return Plain(list(values))
    return Digits(low, width, to_digits([value - low for value in values] if low else values, width))


def _words(values: list[int]) -> Node:
    table = [value for value, _ in Counter(values).most_common()]
    return Words(list(table), _digits(coded(values, table), 0, len(table) - 1))


def _zigzag(values: list[int]) -> Node:
    return ZigZag(as_they_are([2 * value if value >= 0 else -2 * value - 1 for value in values]).make())


def _deltas(values: list[int]) -> Choice | None:
    rest = as_they_are(list(map(sub, values[1:], values)))
    return Choice(rest.bits + _NODE_BITS, lambda: Deltas(values[0], rest.make()))


def changes(values: Sequence[Any]) -> int:
    """How often an entry differs from the one before."""
    return sum(map(ne, values[1:], values))


def _runs(values: list[int]) -> Choice | None:
    count = changes(values) + 1
    if 3 * count > len(values):
        return None
    heads, lengths = run_lengths(values)
    head, length = as_they_are(heads), as_they_are(lengths)
    return Choice(head.bits + length.bits, lambda: Runs(count, head.make(), length.make()))


def run_lengths(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    heads, lengths = [], []
    for head, run in groupby(values):
        heads.append(head)
        lengths.append(len(list(run)))
    return heads, lengths


def _recent(values: list[int]) -> Choice | None:
    codes, fresh = [], []
    seen: dict[int, int] = {}
    for place, value in enumerate(values):
        distance = place - seen.get(value, -RECENT_MAX - 1)
        if distance <= RECENT_MAX:
            codes.append(distance)
        else:
            codes.append(0)
            fresh.append(value)
        seen[value] = place
    if len(fresh) == len(values):
        return None
    code, value_choice = as_they_are(codes), as_they_are(fresh)
    return Choice(code.bits + value_choice.bits, lambda: Recent(len(fresh), code.make(), value_choice.make()))


def coded(values: Sequence[Any], table: Sequence[Any]) -> list[int]:
    """The place of each value in the table."""
    return list(map({value: place for place, value in enumerate(table)}.__getitem__, values))


# --- floats -----------------------------------------------------------------------------------------------------


def floats(values: list[float]) -> Choice:
    """Exact to the bit, with what JSON has no words for (NaN, infinities, minus zero)."""
    if set(map(type, values)) - {float}:
        raise BugError(f"a column of floats holds {set(map(type, values))}")
    exact = struct.pack(f"<{len(values)}d", *values)
    if (decimal := _decimal(values, exact)) is not None:
        return decimal
    if (bits := _single(values, exact)) is not None:
        inner = integers(bits, recent=True)
        return Choice(inner.bits, lambda: Float32(inner.make()))
    halves = struct.unpack(f"<{2 * len(values)}I", exact)
    high, low = integers(list(halves[1::2])), integers(list(halves[0::2]))
    return Choice(high.bits + low.bits, lambda: Float64(high.make(), low.make()))


def _single(values: list[float], exact: bytes) -> list[int] | None:
    n = len(values)
    try:
        packed = struct.pack(f"<{n}f", *values)
    except OverflowError:
        return None
    if struct.pack(f"<{n}d", *struct.unpack(f"<{n}f", packed)) != exact:
        return None
    return list(struct.unpack(f"<{n}I", packed))


def _decimal(values: list[float], exact: bytes) -> Choice | None:
    places = next((places for places in range(DECIMAL_PLACES) if _has_places(values[:_SAMPLE], places)), None)
    if places is None or not all(abs(value) < _DECIMAL_BELOW for value in values):
        return None
    scale = 10**places
    whole = [round(value * scale) for value in values]
    if struct.pack(f"<{len(values)}d", *[value / scale for value in whole]) != exact:
        return None
    inner = integers(whole, recent=True)
    return Choice(inner.bits, lambda: Decimal(places, inner.make()))


def _has_places(values: list[float], places: int) -> bool:
    scale = 10**places
    return all(abs(value) < _DECIMAL_BELOW and round(value * scale) / scale == value for value in values)


# --- what is not a number ---------------------------------------------------------------------------------------


def optional(values: list[Any], write: Callable[[list[Any]], Choice]) -> Choice:
    """write: how those that are not None are written."""
    if None not in values:
        return write(values)
    there = [value for value in values if value is not None]
    if not there:
        return Choice(_NODE_BITS, lambda: Const(None))
    mask, inner = integers([0 if value is None else 1 for value in values]), write(there)
    return Choice(mask.bits + inner.bits, lambda: Some(len(there), mask.make(), inner.make()))


def texts(values: list[Any]) -> Choice:
    """Texts or None, or any other scalars that are few."""
    table = list(dict.fromkeys(values))
    if len(table) <= 1:
        return Choice(_NODE_BITS, lambda: Const(table[0] if table else None))
    if 2 * len(table) > len(values):
        return Choice(_text_bits(values), lambda: Plain(values))
    codes = integers(coded(values, table))
    return Choice(_text_bits(table) + codes.bits, lambda: Words(list(table), codes.make()))


def _text_bits(values: list[Any]) -> float:
    return _NODE_BITS + 8 * (len("".join(map(str, values))) + len(values))


def tuples(values: list[tuple[str, ...]]) -> Choice:
    table = list(dict.fromkeys(values))
    codes = integers(coded(values, table))
    words = [word for each in table for word in each]
    return Choice(codes.bits + _text_bits(words), lambda: Tuples(list(map(len, table)), words, codes.make()))


def blobs(values: list[bytes]) -> Choice:
    try:
        decoded = [value.decode() for value in values]
    except UnicodeDecodeError:
        armoured = texts([binascii.b2a_base64(value, newline=False).decode() for value in values])
        return Choice(armoured.bits, lambda: Base64(armoured.make()))
    inner = texts(decoded)
    return Choice(inner.bits, lambda: Utf8(inner.make()))


def objects(values: list[Any]) -> Choice:
    """Objects of floats and of lists of floats, or None. Raises `ValueError` for too many numbers."""
    shapes = [None if value is None else (*value, *map(type, value.values())) for value in values]
    table = list(dict.fromkeys(shapes))
    codes = integers(coded(shapes, table))
    keys, names, cells = [], [], list[Node | Lists]()
    count = 0
    for shape in table:
        of_shape = [value for value, its in zip(values, shapes, strict=True) if its == shape]
        width = -1 if shape is None else len(shape) // 2
        keys.append(width)
        for name in shape[:width] if shape else ():
            names.append(name)
            column = [value[name] for value in of_shape]
            is_list = type(column[0]) is list
            count += len(column) + (sum(map(len, column)) if is_list else 0)
            if count > VALUES_MAX:
                raise ValueError(f"more than {VALUES_MAX} numbers in `values`")
            cells.append(_lists(column) if is_list else floats(column).make())
    return Choice(codes.bits, lambda: Dicts(keys, names, codes.make(), cells))


def _lists(values: list[list[float]]) -> Lists:
    flat = list(chain.from_iterable(values))
    return Lists(len(flat), integers(list(map(len, values))).make(), floats(flat).make())
