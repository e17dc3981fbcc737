"""Raw table → frozen value, or every violation of type, bound and spelling as findings. The only user of pydantic."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edged.config.keys import KeyInfo, keys_of, walk
from edged.config.problems import MISSING, Finding, Path
from edged.config.settings import Config

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")

_SHOWN_KEYS = 16


@cache
def adapter(table: type) -> TypeAdapter[Any]:
    """The validator of a table; pydantic is imported here and not before, since it costs 20 MB."""
    from pydantic import TypeAdapter

    return TypeAdapter(table)


def validate(table: type[T], raw: Any) -> T | list[Finding]:
    """The value of `raw`, or what is wrong with it (paths relative to the table)."""
    from pydantic import ValidationError

    text = json.dumps(raw, default=str)  # JSON is strict about types where TOML is, and lenient about tuples
    try:
        value: T = adapter(cast("type", table)).validate_json(text, strict=True)
        return value
    except ValidationError as error:
        details = error.errors(include_url=False)
    found: dict[Path, Finding] = {}
    for detail in details:
        finding = _finding(table, raw, detail)
        if finding is not None:
            found.setdefault(finding.path, finding)  # a union complains once per member
    inner = {path[:length] for path in found for length in range(len(path))}
    return [finding for path, finding in found.items() if path not in inner]  # a list with a bad item counts as short


def _finding(table: type, raw: Any, detail: ErrorDetails) -> Finding | None:
    place = _place(table, raw, detail["loc"])
    if place is None:
        return None
    path, owner, info, value = place
    if detail["type"] == "unexpected_keyword_argument":
        return _unknown(path, owner, value)
    if info is None:
        return Finding(path, "has the wrong type", value, allowed="table")
    if detail["type"] == "missing":
        return Finding(path, "is missing", allowed=info.allowed, unit=info.unit, cure=f"add it: {info.key.doc}")
    return Finding(
        path,
        "is not allowed",
        value,
        allowed=_allowed(info, value),
        unit=info.unit,
        nearest=_nearest_word(value, info.words),
        cure=_cure(path, info, value),
    )


def _place(table: type, raw: Any, loc: Path) -> tuple[Path, type, KeyInfo | None, Any] | None:
    """Follow pydantic's location down to (path, owning table, key, value); None: a union member that does not apply."""
    owner: type | None = table
    last = table
    info: KeyInfo | None = None
    path: Path = ()
    value = raw
    for step in loc:
        if owner is not None and isinstance(value, dict) and (step in value or step in keys_of(owner)):
            info = keys_of(owner).get(str(step))
            path, last, owner = (*path, step), owner, None if info is None else info.table
            value = value.get(step, MISSING)
            if info is not None and (info.many or info.choice):
                owner = None
        elif isinstance(step, int) and isinstance(value, list):
            path, value = (*path, step), value[step]
            owner = None if info is None else info.table
        elif info is not None and info.many and isinstance(value, dict) and step in value:
            path, value = (*path, step), value[step]
            owner = info.table
        elif info is not None and info.choice and info.table is not None:
            if isinstance(value, dict) != (step == info.table.__name__):
                return None
            owner = info.table
    return path, last, info, value


def _unknown(path: Path, owner: type, value: Any) -> Finding:
    name = str(path[-1])
    known = list(keys_of(owner))
    close = difflib.get_close_matches(name, known, n=1)
    elsewhere = "" if close else next(_elsewhere(name), "")
    nearest = close[0] if close else elsewhere
    cure = f"use {nearest}" if close else f"this key belongs to {nearest}" if elsewhere else "remove it"
    if name in {"password", "secret", "token"}:
        nearest, cure = "password_file", "secrets never stand in the configuration: name a file or a systemd credential"
    shown = ", ".join(known[:_SHOWN_KEYS]) + (", …" if len(known) > _SHOWN_KEYS else "")
    return Finding(path, "is not a known key", value, allowed=f"one of {shown}", nearest=nearest, cure=cure)


def _elsewhere(name: str) -> Iterator[str]:
    """Dotted names of keys that are spelt (almost) like `name`, anywhere."""
    everywhere: dict[str, str] = {}
    for dotted, info in walk(Config):
        everywhere.setdefault(info.name, dotted)
    for close in difflib.get_close_matches(name, everywhere, n=1, cutoff=0.85):
        yield everywhere[close]


def _allowed(info: KeyInfo, value: Any) -> str:
    reason = f" ({info.key.why})" if info.key.why and isinstance(value, int | float | str) else ""
    return info.allowed + reason


def _nearest_word(value: Any, words: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(value, words, n=1, cutoff=0.5) if isinstance(value, str) else []
    return close[0] if close else ""


def _cure(path: Path, info: KeyInfo, value: Any) -> str:
    if info.name == "pipeline" and isinstance(value, dict):
        return "write [[pipeline]] with two brackets: there may be several"
    if isinstance(value, str) and info.type_text in {"integer", "number", "true or false"}:
        return "write it without quotes"
    return ""
