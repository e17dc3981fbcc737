"""What is wrong with a configuration, in one shape for people and machines."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from edged.errors import ConfigError

Path = tuple[str | int, ...]

_LONGEST_GOT = 160  # a path is of use only when it is whole
_SECRET_WORDS = ("password", "passwd", "secret", "token", "credential")
MISSING = object()  # nothing stood there: an empty text would be something


class Finding(NamedTuple):
    """A problem before its file is known.

    path: from the root of the merged configuration, or of the table that is looked at. uses: other keys of the same
    table that led to it; when one of those is mistyped, this may be a mere consequence. note: no reason to refuse.
    """

    path: Path
    message: str
    got: Any = MISSING
    allowed: str = ""
    unit: str = ""
    nearest: str = ""
    cure: str = ""
    uses: tuple[str, ...] = ()
    note: bool = False

    def below(self, *prefix: str | int) -> Finding:
        """The same finding in a table further down."""
        return self._replace(path=(*prefix, *self.path))


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem as it is shown: where, what stands there, what may stand there, how to cure it."""

    file: str
    key: str
    message: str
    got: str = ""
    allowed: str = ""
    unit: str = ""
    nearest: str = ""
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        """For --json: every field, empty where it does not apply."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("got", self.got), ("allowed", self.allowed), ("nearest", self.nearest), ("cure", self.cure)]
        head = f"{self.file}: {self.key + ': ' if self.key else ''}{self.message}"
        return "\n".join([head, *(f"    {name:<8} {text}" for name, text in rows if text)])


class InvalidConfig(ConfigError):
    """Raised with every problem found; `details` is the machine-readable form of `problems`."""

    def __init__(self, details: tuple[Problem, ...]) -> None:
        count = len(details)
        super().__init__(
            f"the configuration has {count} problem{'s' if count != 1 else ''}",
            tuple(str(detail) for detail in details),
            hint="edged check shows them all; edged schema prints what is allowed",
        )
        self.details = details


def got_text(key: str, value: Any) -> str:
    """A value as TOML would write it, shortened; what may be a secret is not repeated into logs."""
    if value is MISSING:
        return ""
    if any(word in key.lower() for word in _SECRET_WORDS):
        return "(not shown)"
    text = _toml(value)
    return text if len(text) <= _LONGEST_GOT else text[: _LONGEST_GOT - 1] + "…"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + value[: _LONGEST_GOT + 1].translate(_ESCAPES) + '"'
        case dict():
            return f"a table with {', '.join(map(str, list(value)[:6]))}" if value else "an empty table"
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value[:8]) + (", …]" if len(value) > 8 else "]")
        case int() if value.bit_length() > 256:
            return "an integer of more than 77 digits"
        case datetime.date() | datetime.time():
            return value.isoformat()
    return str(value)


_ESCAPES = {code: f"\\u{code:04x}" for code in [*range(32), 127]} | {ord('"'): '\\"', ord("\\"): "\\\\"}
