"""Writes docs/reference/configuration.md from the keys: `python -m edged.config.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path as FilePath

from edged.config.keys import KeyInfo, keys_of
from edged.config.settings import Config

_HEAD = """# Configuration

<!-- Written by `python -m edged.config.reference docs/reference/configuration.md`; change the keys, not this page. -->

TOML in `/etc/edged/edged.toml` and then `/etc/edged/conf.d/*.toml` in name order: tables merge, later values win,
`[[pipeline]]` tables add up. `--config PATH` (a file, or a folder with the same layout) replaces both.
Unknown keys are errors. Paths are relative to the file that says them. Secrets never stand in the configuration: name
a file or a systemd credential. `edged check` lists every problem at once, `edged schema` prints the JSON Schema.
"""


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *_sections(Config, "", many=False)])


def _sections(table: type, path: str, *, many: bool) -> Iterator[str]:
    """One section per table, the tables below it after it."""
    keys = keys_of(table).values()
    plain = [info for info in keys if info.table is None or info.choice]
    if path:
        yield f"## `{'[[' if many else '['}{path}{']]' if many else ']'}`\n"
        yield f"{(table.__doc__ or '').strip()}\n"
    if plain:
        yield "| key | meaning | allowed | default | why the bounds |\n|---|---|---|---|---|"
        yield "\n".join(_row(info) for info in plain) + "\n"
    for info in keys:
        if info.table is not None:
            below = f"{path}.{info.name}" if path else info.name
            mapping = info.type_text.startswith("table of")
            yield from _sections(info.table, f"{below}.<name>" if mapping else below, many=info.many and not mapping)


def _row(info: KeyInfo) -> str:
    default = "required" if info.default is None else f"`{info.default}`" if info.default else ""
    cells = (f"`{info.name}`", info.key.doc, info.allowed, default, info.key.why)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(arguments: list[str]) -> None:
    """Write the page to the file given, or print it."""
    if arguments:
        FilePath(arguments[0]).write_text(reference(), encoding="utf-8")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
