"""Finding hardware class files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path as FilePath

from edged.config.keys import NAME_PATTERN
from edged.config.problems import Finding, Problem
from edged.config.sources import Merged, Origin, Table, read_table

_PACKAGE = FilePath(__file__).parent

# An operator's own classes win, then the packaged ones, then the checkout's, then those inside the wheel.
CLASS_FOLDERS = (
    FilePath("/etc/edged/classes"),
    FilePath("/usr/share/edged/classes"),
    _PACKAGE.parent.parent / "configs" / "classes",
    _PACKAGE / "class_files",
)


def known_classes(folders: Sequence[FilePath] = CLASS_FOLDERS) -> dict[str, FilePath]:
    """File of each class by its name."""
    found: dict[str, FilePath] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.toml")):
            found.setdefault(file.stem, file)
    return found


def underlay_class(merged: Merged, folders: Sequence[FilePath] = CLASS_FOLDERS) -> None:
    """Lay the class file under the configuration's own [hardware] table."""
    gateway = merged.data.get("gateway")
    name = gateway.get("hardware_class", "cpu") if isinstance(gateway, dict) else "cpu"
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        return  # reported as a wrong type or spelling
    classes = known_classes(folders)
    file = classes.get(name)
    if file is None:
        near = difflib.get_close_matches(name, classes, n=1)
        merged.findings.append(
            Finding(
                ("gateway", "hardware_class"),
                "is not a known hardware class",
                name,
                allowed=f"one of {', '.join(classes) or 'none: no class files are installed'}",
                nearest=near[0] if near else "",
                cure="add a class file to /etc/edged/classes, or use a known one",
            )
        )
        return
    problems: list[Problem] = []
    table = read_table(file, problems)
    merged.problems.extend(problems)
    own = merged.data.get("hardware", {})
    if table is not None and isinstance(own, dict):
        merged.data["hardware"] = _under(merged, own, table, ("hardware",), str(file))


def _under(merged: Merged, over: Table, under: Table, at: tuple[str, ...], file: str) -> Table:
    """`over` completed by `under`; what `under` says gets its file as origin."""
    result = dict(under) | over
    for name, value in under.items():
        here = (*at, name)
        if name not in over:
            merged.origins[here] = Origin(file)
        elif isinstance(value, dict) and isinstance(over[name], dict):
            result[name] = _under(merged, over[name], value, here, file)
    return result
