"""What is wrong with the hub's configuration, and the one way from a raw table to values: every problem at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from edged.hub.settings import HubConfig, Table

T = TypeVar("T", bound=Table)

_SECRET_WORDS = ("password", "secret", "token", "url")  # a URL may carry a password
_LONGEST_GOT = 160
_WHERE = re.compile(r" - at `.*$")


class Problem(NamedTuple):
    """One problem, or a note that prevents nothing. `key` is dotted, "" for the file itself."""

    key: str
    message: str
    got: str = ""
    allowed: str = ""
    nearest: str = ""
    cure: str = ""
    note: bool = False

    def text(self, file: str) -> str:
        """For people: the file and the key first, one line for each thing that is known."""
        rows = [("got", self.got), ("allowed", self.allowed), ("nearest", self.nearest), ("cure", self.cure)]
        head = f"{file}: {self.key + ': ' if self.key else ''}{self.message}"
        return "\n".join([head, *(f"    {name:<8} {text}" for name, text in rows if text)])


class KeyInfo(NamedTuple):
    """One key as people see it."""

    name: str
    type: Any
    doc: str
    why: str
    is_file: bool
    required: bool
    default: Any


def keys_of(table: type[Table]) -> dict[str, KeyInfo]:
    """The keys of a table in their order, by name."""
    return {field.name: _info(field) for field in msgspec.structs.fields(table)}


def tables() -> dict[str, type[Table]]:
    """Every table of the configuration by its name."""
    found: dict[str, type[Table]] = {}
    for field in msgspec.structs.fields(HubConfig):
        kinds = [field.type, *getattr(field.type, "__args__", ())]
        found[field.name] = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Table))
    return found


def _info(field: msgspec.structs.FieldInfo) -> KeyInfo:
    meta = next(extra for extra in reversed(field.type.__metadata__) if extra.description)
    return KeyInfo(
        field.name, field.type, meta.description, meta.extra["why"], meta.extra["file"], field.required, field.default
    )


def convert(raw: Mapping[str, Any], folder: Path) -> HubConfig | list[Problem]:
    """The value of a raw configuration, or everything that is wrong with types, bounds and spelling.

    folder: paths that the configuration names are relative to it.
    """
    problems: list[Problem] = []
    known = tables()
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            problems.append(_unknown(name, list(known), value))
        elif not isinstance(value, dict):
            problems.append(Problem(name, "has the wrong type", got_text(name, value), allowed="a table"))
        else:
            values[name] = _convert_table(known[name], name, value, folder, problems)
    return problems or HubConfig(**values)


def _convert_table(table: type[T], at: str, raw: Mapping[str, Any], folder: Path, problems: list[Problem]) -> T | None:
    keys = keys_of(table)
    values: dict[str, Any] = {}
    before = len(problems)
    for name, value in raw.items():
        if name not in keys:
            problems.append(_unknown(f"{at}.{name}", list(keys), value))
            continue
        try:
            values[name] = msgspec.convert(value, keys[name].type)
        except msgspec.ValidationError as error:
            problems.append(_not_allowed(f"{at}.{name}", keys[name], value, str(error)))
        else:
            if keys[name].is_file:
                values[name] = os.path.normpath(folder / values[name])
    problems += [
        Problem(f"{at}.{key.name}", "is missing", cure=f"add it: {key.doc}")
        for key in keys.values()
        if key.required and key.name not in raw
    ]
    return table(**values) if len(problems) == before else None


def _not_allowed(at: str, key: KeyInfo, value: Any, error: str) -> Problem:
    allowed = _WHERE.sub("", error).replace("`", "")
    reason = f" ({key.why})" if key.why else ""
    return Problem(at, "is not allowed", got_text(key.name, value), allowed[:1].lower() + allowed[1:] + reason)


def _unknown(at: str, known: list[str], value: Any) -> Problem:
    prefix, _, name = at.rpartition(".")
    close = difflib.get_close_matches(name, known, n=1)
    elsewhere = "" if close else next(_elsewhere(name), "")
    nearest = close[0] if close else elsewhere
    cure = f"use {nearest}" if close else f"this key belongs to {nearest}" if elsewhere else "remove it"
    if name in {"password", "secret", "token", "tokens"}:
        nearest = next((key for key in known if name in key and key.endswith("_file")), "")
        cure = "secrets never stand in the configuration: name a file or a systemd credential"
    what = "is not a known key" if prefix else "is not a known table"
    return Problem(at, what, got_text(name, value), f"one of {', '.join(known)}", nearest, cure)


def _elsewhere(name: str) -> Iterator[str]:
    """Dotted names of keys that are spelt (almost) like `name`, in any table."""
    everywhere = {key: f"{table}.{key}" for table, kind in tables().items() for key in keys_of(kind)}
    for close in difflib.get_close_matches(name, everywhere, n=1, cutoff=0.85):
        yield everywhere[close]


def got_text(key: str, value: Any) -> str:
    """What stood there, shortened; what may be a secret is not repeated."""
    if isinstance(value, str) and any(word in key.lower() for word in _SECRET_WORDS):
        return "(not shown)"
    if isinstance(value, dict):
        text = f"a table with {', '.join(map(str, list(value)[:6]))}" if value else "an empty table"
    else:
        text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_GOT else text[: _LONGEST_GOT - 1] + "…"
