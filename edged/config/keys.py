"""What one configuration key means: text, bounds, unit. Written beside the field, read by validation, schema and docs.

The values are plain frozen dataclasses, so that the daemon needs no validation library in memory; `Key` tells that
library the bounds through its documented hooks.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
STRICT_TABLE: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}  # unknown keys and NaN are mistakes

_UNITS = {
    "_s": "s",
    "_per_s": "per s",
    "_ms": "ms",
    "_us": "µs",
    "_bytes": "bytes",
    "_hz": "Hz",
    "_kbit_s": "kbit/s",
    "_c": "°C",
}


@dataclass(frozen=True, slots=True)
class Key:
    """Meaning and bounds of one key; every bound comes with its reason in `why`.

    For lists, `min_items` and `max_items` bound the length, and `pattern`, `ge`, `le` each element.
    """

    doc: str
    why: str = ""
    unit: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    pattern: str = ""
    max_chars: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    is_file: bool = False  # a path, relative to the folder of the file that says it

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        schema = handler(source)
        self._bound(schema)
        return schema

    def _bound(self, schema: dict[str, Any]) -> None:
        match schema["type"]:
            case "int" | "float":
                schema.update(self._given("ge", "gt", "le"))
            case "str":
                schema.update({"min_length": 1, **self._given("pattern")})  # an empty text never means anything
                if self.max_chars is not None:
                    schema["max_length"] = self.max_chars
            case "tuple" | "dict":
                if self.min_items is not None:
                    schema["min_length"] = self.min_items
                if self.max_items is not None:
                    schema["max_length"] = self.max_items
                for item in schema.get("items_schema", ()):
                    self._bound(item)
            case "nullable":
                self._bound(schema["schema"])
            case "union":
                for choice in schema["choices"]:
                    self._bound(choice)
            case _:
                pass  # a table or a choice of words has no bounds of its own

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) not in (None, "")}

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        described = handler(schema)
        described["description"] = self.doc
        return described


class KeyInfo(NamedTuple):
    """One key as people see it.

    table: set when the value is a table (or a list or a mapping of tables) of its own. many: a list or a mapping.
    choice: a plain value is possible as well as a table. words: the words allowed. default: None when required.
    """

    name: str
    key: Key
    unit: str
    type_text: str
    allowed: str
    default: str | None
    table: type | None
    many: bool
    choice: bool
    words: tuple[str, ...]


@cache
def keys_of(table: type) -> dict[str, KeyInfo]:
    """The keys of a table in their order, by name."""
    hints = typing.get_type_hints(table, include_extras=True)
    return {field.name: _info(field, hints[field.name]) for field in dataclasses.fields(table)}


def walk(table: type, prefix: str = "") -> Iterator[tuple[str, KeyInfo]]:
    """Every key below `table` with its dotted name; lists of tables are entered like tables."""
    for name, info in keys_of(table).items():
        yield prefix + name, info
        if info.table is not None:
            yield from walk(info.table, f"{prefix}{name}.")


def unit_of(name: str) -> str:
    """The unit in a key's name, or nothing: `deadline_ms` is in ms."""
    fits = [suffix for suffix in _UNITS if name.endswith(suffix)]
    return _UNITS[max(fits, key=len)] if fits else ""


def _info(field: dataclasses.Field[Any], hint: Any) -> KeyInfo:
    key = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Key)), Key(""))
    bare = hint.__origin__ if key.doc else hint
    unit = key.unit or unit_of(field.name)
    words = _words(bare)
    return KeyInfo(
        name=field.name,
        key=key,
        unit=unit,
        type_text=_type_text(bare),
        allowed=allowed_text(key, bare, unit),
        default=_default(field),
        table=_table(bare),
        many=_is_many(bare),
        choice=len(_members(bare)) > 1,
        words=words,
    )


def _members(hint: Any) -> tuple[Any, ...]:
    """The parts of a union without None; a plain type is its own only part."""
    if get_origin(hint) in {typing.Union, types.UnionType}:
        return tuple(part for part in get_args(hint) if part is not type(None))
    return (hint,)


def _is_many(hint: Any) -> bool:
    return any(get_origin(part) is not None and get_origin(part) is not Literal for part in _members(hint))


def _table(hint: Any) -> type | None:
    for part in _members(hint):
        candidates = get_args(part) if get_origin(part) not in {None, Literal} else (part,)
        for candidate in candidates:
            if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
                return candidate
    return None


def _words(hint: Any) -> tuple[str, ...]:
    found: list[str] = []
    for part in _members(hint):
        for candidate in (part, *get_args(part)):
            if get_origin(candidate) is Literal:
                found += [str(word) for word in get_args(candidate)]
    return tuple(found)


_TYPE_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false"}


def _type_text(hint: Any) -> str:
    return " or ".join(_one_type_text(part) for part in _members(hint))


def _one_type_text(part: Any) -> str:
    origin = get_origin(part)
    if origin is Literal:
        return " | ".join(f'"{word}"' for word in get_args(part))
    if origin is tuple:
        return f"list of {_one_type_text(get_args(part)[0])}"
    if origin is not None:
        return f"table of name = {_one_type_text(get_args(part)[1])}"
    return _TYPE_WORDS.get(part, "table")


def allowed_text(key: Key, hint: Any, unit: str) -> str:
    """What may stand there, in words: type, range, unit, pattern, length."""
    text = _type_text(hint)
    bounds = _range_text(key)
    if bounds:
        text += f" {bounds}" + (f" {unit}" if unit else "")
    if key.pattern:
        text += f" matching {key.pattern}"
    if key.max_chars is not None:
        text += f" of at most {key.max_chars} characters"
    if key.min_items:
        text += f", at least {key.min_items}"
    if key.max_items is not None:
        text += f", at most {key.max_items}"
    return text


def _range_text(key: Key) -> str:
    low = (
        f"from {toml_text(key.ge)}"
        if key.ge is not None
        else f"above {toml_text(key.gt)}"
        if key.gt is not None
        else ""
    )
    return f"{low} to {toml_text(key.le)}" if key.le is not None else low


def _default(field: dataclasses.Field[Any]) -> str | None:
    """The default as TOML text; None when the key must be given, "" when absent is the default."""
    if field.default_factory is not dataclasses.MISSING:
        return ""
    if field.default is dataclasses.MISSING:
        return None
    return toml_text(field.default)


def toml_text(value: Any) -> str:
    """A default value as it would be written in TOML; None and empty values are written as nothing."""
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    if isinstance(value, int) and abs(value) >= 100_000:
        return f"{value:_}"
    return "" if dataclasses.is_dataclass(value) else str(value)
