"""A column is judged as its values are; what fits is written so that it reads back the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.hub.database import fitting
from edged.hub.database.fitting import BAD_JSON, NOT_FINITE, NUL, RANGE, SURROGATE, WRONG_TYPE
from edged.messages import ResultContext

ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers())
TEXTS = st.text(alphabet=st.characters()) | st.text() | st.none()
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)

JUDGES: dict[str, Callable[[list[Any]], fitting.Reasons]] = {
    "integers": lambda column: fitting.integers(column, -5, 5),
    "optional integers": lambda column: fitting.integers(column, -5, 5, optional=True),
    "floats": fitting.floats,
    "texts": fitting.texts,
    "optional texts": lambda column: fitting.texts(column, optional=True),
    "documents": fitting.documents,
    "objects": lambda column: fitting.objects(column)[1],
    "lists": lambda column: fitting.lists(column)[1],
}


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES.keys())
@given(column=st.lists(ANYTHING | st.integers(-9, 9) | TEXTS | st.tuples(TEXTS), max_size=6))
def test_a_value_is_judged_the_same_alone_and_among_others(
    judge: Callable[[list[Any]], fitting.Reasons], column: list[Any]
) -> None:
    alone = {place: reason for place, value in enumerate(column) for reason in judge([value]).values()}

    assert judge(column) == alone


@pytest.mark.parametrize(
    ("judge", "value", "reason"),
    [
        ("integers", 5, None),
        ("integers", 6, RANGE),
        ("integers", None, WRONG_TYPE),
        ("integers", True, WRONG_TYPE),
        ("optional integers", None, None),
        ("optional integers", -6, RANGE),
        ("floats", 0.5, None),
        ("floats", None, None),
        ("floats", 1, WRONG_TYPE),
        ("floats", float("nan"), NOT_FINITE),
        ("texts", "ä", None),
        ("texts", "", None),
        ("texts", None, WRONG_TYPE),
        ("texts", "a\0", NUL),
        ("texts", "\ud800", SURROGATE),
        ("optional texts", None, None),
        ("documents", b'{"a":1e999}', None),
        ("documents", b'{"a":"\\u00e4"}', None),
        ("documents", b'{"a":"\\u0000"}', NUL),
        ("documents", b'{"a":"\\\\u0000"}', None),
        ("documents", b'{"a":"\\\\\\u0000"}', NUL),
        ("documents", b"{", BAD_JSON),
        ("documents", b'"\xff"', BAD_JSON),
        ("documents", "{}", WRONG_TYPE),
        ("documents", b"[" * 100_000 + b"]" * 100_000, BAD_JSON),
        ("objects", {"a": 0.5, "b": [0.5, 1e300]}, None),
        ("objects", {"null": 0.5}, None),
        ("objects", None, None),
        ("objects", {"a": float("inf")}, NOT_FINITE),
        ("objects", {"a": [0.5, float("nan")]}, NOT_FINITE),
        ("objects", {"a": [0.5, None]}, WRONG_TYPE),
        ("objects", {"a\0": 0.5}, NUL),
        ("objects", {"\ud800": 0.5}, SURROGATE),
        ("objects", {1: 0.5}, WRONG_TYPE),
        ("objects", [0.5], WRONG_TYPE),
        ("lists", (), None),
        ("lists", ("a", "b"), None),
        ("lists", ("a\0",), NUL),
        ("lists", (1,), WRONG_TYPE),
        ("lists", "ab", WRONG_TYPE),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_each_kind_of_value_has_its_reason(judge: str, value: Any, reason: str | None) -> None:
    assert JUDGES[judge]([value]) == ({} if reason is None else {0: reason})


@given(st.lists(st.none() | st.dictionaries(NAMES, NUMBERS | st.lists(NUMBERS))))
def test_objects_read_back_to_the_bit(column: list[Any]) -> None:
    texts, bad = fitting.objects(column)

    assert bad == {}
    assert [None if text is None else json.loads(text) for text in texts] == column


def test_lists_are_written_in_place_of_bad_ones_as_empty() -> None:
    assert fitting.lists([("a",), ["b"], ("a", "c")]) == (['["a"]', "[]", '["a","c"]'], {1: WRONG_TYPE})


def test_whatever_a_row_holds_can_be_kept_as_text() -> None:
    context = ResultContext("p", "m", "1", "", "rules", "normal", False, "synced", "b\0")
    row = {"a": b"\xff\x00", "b": float("inf"), "c": "\ud800", "d": context, "e": object(), "f": 2**80}

    kept = fitting.as_text(row)

    assert kept.isascii()
    assert json.loads(kept)["d"] == msgspec.to_builtins(context)
    assert json.loads(kept)["f"] == 2**80
