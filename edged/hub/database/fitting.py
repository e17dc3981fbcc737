"""What a database can take. Pure: whole columns are looked at, single values only where a column does not fit.

PostgreSQL's limits serve for SQLite too, so that the same batch gives the same rows in both. Nothing is corrected:
what does not fit is set aside whole, with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from types import NoneType
from typing import Any

import msgspec

INT64_MAX = 2**63 - 1
SPAN_MAX = 2**61  # two of them can be added in a query without leaving 64 bits
TIME_MIN_MS = -62_135_596_800_000  # 0001-01-01
TIME_MAX_MS = 32_503_680_000_000  # 3000-01-01: whatever a correction adds or takes, a database can show it

WRONG_TYPE = "wrong_type"
RANGE = "number_range"
NOT_FINITE = "not_finite"
NUL = "text_nul"
SURROGATE = "text_surrogate"
BAD_JSON = "bad_json"

Reasons = dict[int, str]
"""Place in the column → why the value there does not fit."""

encode_json = msgspec.json.Encoder(order="deterministic").encode
_skim_json = msgspec.json.Decoder(msgspec.Raw).decode


def find(column: Sequence[Any], fits: Callable[[Sequence[Any]], bool], problem: Callable[[Any], str]) -> Reasons:
    """Nothing when the column fits as a whole, else the reason for each value that does not."""
    try:
        if fits(column):
            return {}
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # a value that cannot even be looked at: the loop below names it
    return {place: reason for place, value in enumerate(column) if (reason := problem(value))}


# --- numbers ---


def integers(column: Sequence[Any], least: int, most: int, *, optional: bool = False) -> Reasons:
    return find(
        column,
        partial(_integers_fit, least=least, most=most, optional=optional),
        partial(_integer_problem, least=least, most=most, optional=optional),
    )


def _integers_fit(column: Sequence[Any], least: int, most: int, optional: bool) -> bool:
    types = set(map(type, column))
    if optional and NoneType in types:
        column = [value for value in column if value is not None]
        types.discard(NoneType)
    return types <= {int} and (not column or (min(column) >= least and max(column) <= most))


def _integer_problem(value: Any, least: int, most: int, optional: bool) -> str:
    if value is None and optional:
        return ""
    if type(value) is not int:
        return WRONG_TYPE
    return "" if least <= value <= most else RANGE


def floats(column: Sequence[Any]) -> Reasons:
    """None is allowed; an integer is not: JSON tells 1 from 1.0, and so do rows that are published again."""
    return find(column, _floats_fit, _float_problem)


def _floats_fit(column: Sequence[Any]) -> bool:
    there = [value for value in column if value is not None]
    return set(map(type, there)) <= {float} and all(map(isfinite, there))


def _float_problem(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is not float:
        return WRONG_TYPE
    return "" if isfinite(value) else NOT_FINITE


# --- texts ---


def texts(column: Sequence[Any], *, optional: bool = False) -> Reasons:
    return find(column, partial(_texts_fit, optional=optional), partial(_text_problem, optional=optional))


def _texts_fit(column: Sequence[Any], optional: bool) -> bool:
    distinct = set(column)
    if optional:
        distinct.discard(None)
    together = "".join(distinct)
    return "\0" not in together and (together.isascii() or bool(together.encode()))


def _text_problem(value: Any, optional: bool = False) -> str:
    if value is None and optional:
        return ""
    if type(value) is not str:
        return WRONG_TYPE
    if "\0" in value:
        return NUL
    try:
        value.encode()
    except UnicodeEncodeError:
        return SURROGATE
    return ""


# --- JSON ---


def documents(column: Sequence[Any]) -> Reasons:
    """Texts of JSON, as bytes, that every reader can take apart: one `\\u0000` fails a query over the whole table."""
    return find(column, _documents_fit, _document_problem)


def _documents_fit(column: Sequence[Any]) -> bool:
    for document in column:
        _skim_json(document)  # msgspec.DecodeError is a ValueError
    together = b"".join(column)
    return b"\\u" not in together and (together.isascii() or bool(together.decode()))


def _document_problem(value: Any) -> str:
    if type(value) is not bytes:
        return WRONG_TYPE
    try:
        msgspec.json.decode(value)  # refuses half a surrogate pair
    except (ValueError, RecursionError):
        return BAD_JSON
    return NUL if b"\\u0000" in value.replace(b"\\\\", b"") else ""


def objects(column: Sequence[Any]) -> tuple[list[str | None], Reasons]:
    """Objects {name: number or numbers} as texts of JSON, None as None; and those that cannot be written as such."""
    try:
        if not set(map(type, column)) <= {dict, NoneType}:
            raise TypeError
        raw = [None if value is None else encode_json(value) for value in column]
        together = b"".join(filter(None, raw))
        # an infinity is written as null, and no reader of a number expects that
        if b"null" not in together and b"\\u0000" not in together:
            return [None if text is None else text.decode() for text in raw], {}
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # the loop below names the value
    bad = {place: reason for place, value in enumerate(column) if (reason := _object_problem(value))}
    return [None if v is None or place in bad else encode_json(v).decode() for place, v in enumerate(column)], bad


def _object_problem(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is not dict:
        return WRONG_TYPE
    names = texts(list(value))
    if names:
        return next(iter(names.values()))
    for item in value.values():
        bad = floats(item if isinstance(item, list | tuple) else [item])
        if bad or item is None or (isinstance(item, list | tuple) and None in item):
            return next(iter(bad.values()), WRONG_TYPE)
    return ""


def lists(column: Sequence[Any]) -> tuple[list[str], Reasons]:
    """Tuples of texts as texts of JSON; the few different ones of a batch are each written once."""
    bad = find(column, _lists_fit, _list_problem)
    fit = [() if place in bad else value for place, value in enumerate(column)] if bad else column
    written = {value: encode_json(value).decode() for value in set(fit)}
    return [written[value] for value in fit], bad


def _lists_fit(column: Sequence[Any]) -> bool:
    return not any(map(_list_problem, set(column)))


def _list_problem(value: Any) -> str:
    if type(value) is not tuple:
        return WRONG_TYPE
    return next(iter(texts(value).values()), "")


def as_text(row: dict[str, Any]) -> str:
    """A row as it came, in ASCII: what no column takes can be kept like this."""
    return json.dumps(row, default=_readable)


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else repr(value)
