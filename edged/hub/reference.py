"""Writes the keys into docs/reference/hub.md: `python -m edged.hub.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from edged.hub.problems import KeyInfo, keys_of, tables

BEGIN = "<!-- keys: written by `python -m edged.hub.reference docs/reference/hub.md` -->"
END = "<!-- end of keys -->"


def key_tables() -> str:
    """Every table and key as Markdown."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    for name, table in tables().items():
        yield f"### `[{name}]`\n\n{(table.__doc__ or '').strip()}\n"
        yield "| key | meaning | allowed | default | why the bounds |\n|---|---|---|---|---|"
        yield "\n".join(_row(key) for key in keys_of(table).values()) + "\n"


def _row(key: KeyInfo) -> str:
    default = "required" if key.required else _toml(key.default)
    cells = (f"`{key.name}`", key.doc, _allowed(key.type), default, key.why)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _toml(value: Any) -> str:
    match value:
        case "" | ():
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
        case str():
            return f'`"{value}"`'
    return f"`{value:_}`" if value >= 100_000 else f"`{value}`"


def _allowed(kind: Any) -> str:
    plain, meta = kind.__origin__, kind.__metadata__
    if get_origin(plain) is Literal:
        return " | ".join(f'"{word}"' for word in get_args(plain))
    if get_origin(plain) is tuple:
        return "list of text"
    words = {str: "text", int: "integer", bool: "true or false"}[plain]
    for bound in meta:
        if bound.ge is not None:
            words += f" from {bound.ge:_} to {bound.le:_}" if bound.ge >= 100_000 else f" from {bound.ge} to {bound.le}"
        if bound.pattern is not None:
            words += f" matching `{bound.pattern}`"
    return words


def page_with_keys(page: str) -> str:
    """The page with its keys as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{key_tables()}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Write the keys into the page given, or print them."""
    if arguments:
        page = Path(arguments[0])
        page.write_text(page_with_keys(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(key_tables())


if __name__ == "__main__":
    main(sys.argv[1:])
