"""Of the ways to write a column the smallest is chosen, and each comes back exactly: also at the ends of 64 bits."""

from __future__ import annotations

import random
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import BugError
from edged.sync import packing
from edged.sync.digits import from_digits, to_digits
from edged.sync.frame import Frame
from edged.sync.nodes import Const, Node, Runs
from edged.sync.packing import Choice
from edged.sync.unpacking import read
from tests.unit.sync.rows import exactly

LEAST, MOST = -(2**63), 2**63 - 1
NEAR_AN_END = st.sampled_from([LEAST, MOST, 0, 2**62, -(2**62), 2**62 - 1]).flatmap(
    lambda end: st.integers(max(LEAST, end - 3), min(MOST, end + 3))
)

_json = msgspec.json.Decoder(Node)


def back(choice: Choice, n: int) -> list[Any]:
    """Through the JSON, so that what is written can be read by its own rules."""
    return read(_json.decode(msgspec.json.encode(choice.make())), n, Frame(n))


@given(st.lists(NEAR_AN_END | st.integers(-5, 5), max_size=80), st.booleans())
def test_integers_at_the_ends_of_64_bits_come_back(values: list[int], recent: bool) -> None:
    assert back(packing.integers(values, recent=recent), len(values)) == values


@pytest.mark.parametrize("odd", [LEAST, -(2**62), -(2**62) - 1, MOST, 2**62])
@pytest.mark.parametrize("spread", [1, 1_000, 2**40])
def test_one_integer_far_from_all_others_comes_back(odd: int, spread: int) -> None:
    chance = random.Random(spread)
    values = [chance.randrange(-spread * 100, spread * 100) for _ in range(300)]
    values[7] = odd
    assert back(packing.integers(values), 300) == values


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("const", [5] * 100),
        ("deltas", list(range(1_000, 1_100))),
        ("deltas", [10**15 + 1_000 * place for place in range(100)]),
        ("runs", [7] * 50 + [9] * 50 + [7] * 30 + [8] * 70),
        ("words", [(0, 10**9, 10**12)[place * place % 3] for place in range(100)]),
        ("digits", [random.Random(place).randrange(4_000) for place in range(200)]),
        ("zigzag", [random.Random(place).randrange(-300, 300) for place in range(200)]),
    ],
)
def test_what_is_alike_is_written_as_what_it_has_in_common(name: str, values: list[int]) -> None:
    node = packing.integers(values).make()
    assert msgspec.to_builtins(node)[0] == name
    assert back(packing.integers(values), len(values)) == values


def test_a_value_that_comes_again_soon_is_written_once() -> None:
    chance = random.Random(1)
    fresh = [chance.randrange(2**32) for _ in range(300)]
    values = [fresh[place // 3 + place % 2] for place in range(600)]
    node = packing.integers(values, recent=True).make()
    assert msgspec.to_builtins(node)[:2] == ["recent", len({*values})]
    assert back(packing.integers(values, recent=True), 600) == values


def test_a_column_that_needs_more_than_64_bits_is_a_bug() -> None:
    for values in ([2**63, 2**63 + 1], [2**63] * 3, [LEAST - 1, 0]):
        with pytest.raises(BugError, match="64 bits"):
            packing.integers(values).make()


def test_few_integers_with_a_common_factor_are_written_without_it() -> None:
    values = [1_000 * random.Random(place).randrange(-(10**6), 10**6) for place in range(200)]
    assert len(msgspec.json.encode(packing.integers(values).make())) < 200 * 4.5
    assert back(packing.integers(values), 200) == values


@given(st.integers(1, 8).flatmap(lambda width: st.tuples(st.just(width), st.lists(st.integers(0, 64**width - 1)))))
def test_digits_are_the_integers_again(given_: tuple[int, list[int]]) -> None:
    width, values = given_
    text = to_digits(values, width)
    assert len(text) == width * len(values)
    assert from_digits(text, width, len(values)) == values


def test_the_highest_digits_of_all_come_first() -> None:
    assert to_digits([0, 1, 63, 64], 2) == "AAABAB/A"


FLOATS: dict[str, list[float]] = {
    "decimal": [20.5, 21.25, -3.0, 1e9] * 10,
    "float32": [struct.unpack("f", struct.pack("f", random.Random(place).random()))[0] for place in range(40)],
    "float64": [random.Random(place).random() for place in range(40)],
}


@pytest.mark.parametrize(("name", "values"), FLOATS.items(), ids=FLOATS)
def test_floats_are_written_as_what_they_are(name: str, values: list[float]) -> None:
    assert msgspec.to_builtins(packing.floats(values).make())[0] == name
    assert exactly(back(packing.floats(values), len(values))) == exactly(values)


@pytest.mark.parametrize(
    "odd", [float("nan"), float("inf"), -float("inf"), -0.0, 1e300, 5e-324, 0.1, 2.0**40, 1e-4, 3.4028236e38]
)
@pytest.mark.parametrize("place", [0, 30])
@pytest.mark.parametrize("name", sorted(FLOATS))
def test_one_odd_float_among_others_comes_back_to_the_bit(name: str, place: int, odd: float) -> None:
    values = list(FLOATS[name])
    values[place] = odd
    assert exactly(back(packing.floats(values), len(values))) == exactly(values)


@given(st.lists(st.floats() | st.floats(width=32) | st.integers(-(10**6), 10**6).map(lambda x: x / 1000)))
def test_any_floats_come_back_to_the_bit(values: list[float]) -> None:
    assert exactly(back(packing.floats(values), len(values))) == exactly(values)


def test_the_work_that_a_batch_may_ask_for_ends() -> None:
    frame = Frame(1)
    node: Node = Const(1)
    for _ in range(6):
        node = Runs(1_000_000, node, Const(1))
    with pytest.raises(ValueError, match="more than a batch may hold"):
        read(node, 1_000_000, frame)
