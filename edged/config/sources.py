"""Files → one raw table: reading, merging in name order, and which file said what."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from edged.config.problems import Finding, Path, Problem

DEFAULT_FILE = FilePath("/etc/edged/edged.toml")
MAX_FILE_BYTES = 4_000_000  # no hand-written configuration is longer, and parsing is not free
MAX_DEPTH = 16  # ours has 6 levels; hostile nesting would exhaust the stack

Table = dict[str, Any]


class Origin(NamedTuple):
    """Where something was said: the file, and for a pipeline its number within that file, from 0."""

    file: str
    number: int = 0


@dataclass(slots=True)
class Merged:
    """The merged raw table and who said what. `origins` holds leaves and tables; look up with `origin`."""

    data: Table = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    main_file: str = str(DEFAULT_FILE)
    files: frozenset[str] = frozenset()

    def origin(self, path: Path) -> Origin:
        """The file that said the nearest known part of `path`."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return Origin(self.main_file)


def find_files(paths: Sequence[str | FilePath] = (), *, default: FilePath = DEFAULT_FILE) -> list[FilePath]:
    """The files to read, in order: those given, or the default one and its conf.d. A folder means its edged.toml."""
    found: list[FilePath] = []
    for path in map(FilePath, paths or (default,)):
        main = path / "edged.toml" if path.is_dir() else path
        found.append(main)
        if path.is_dir() or not paths:
            found += sorted((main.parent / "conf.d").glob("*.toml"))
    return found


def read_merged(files: Sequence[FilePath]) -> Merged:
    """Read and merge; files that cannot be read or parsed are problems, the others are still merged."""
    merged = Merged(main_file=str(files[0]), files=frozenset(map(str, files)))
    for file in files:
        table = read_table(file, merged.problems)
        if table is not None:
            merge(merged, table, str(file))
    return merged


def read_table(file: FilePath, problems: list[Problem]) -> Table | None:
    """Parse one file; on failure append the problem and return None."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            problems.append(Problem(str(file), "", "the file is too long", allowed=f"up to {MAX_FILE_BYTES} bytes"))
            return None
        table = tomllib.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        cure = "give --config FILE, or start from one of the examples in configs/"
        problems.append(Problem(str(file), "", "the file does not exist", cure=cure))
    except OSError as error:
        problems.append(
            Problem(str(file), "", f"the file cannot be read: {error.strerror}", cure="check its permissions")
        )
    except UnicodeDecodeError as error:
        problems.append(Problem(str(file), "", f"byte {error.start} is not UTF-8", allowed="UTF-8 text"))
    except RecursionError:
        problems.append(_too_deep(file))
    except ValueError as error:  # TOMLDecodeError, and Python's own refusal of integers with thousands of digits
        problems.append(Problem(str(file), "", f"not TOML: {error}", allowed="TOML 1.0"))
    else:
        if _depth_within(table, MAX_DEPTH):
            return table
        problems.append(_too_deep(file))
    return None


def merge(merged: Merged, table: Table, file: str) -> None:
    """Lay `table` over what is there: tables merge, [[pipeline]] appends, everything else is replaced."""
    _lay_over(merged, merged.data, table, (), file)


def _lay_over(merged: Merged, into: Table, table: Table, at: Path, file: str) -> None:
    for name, value in table.items():
        here = (*at, name)
        old = into.get(name)
        if name in into and isinstance(old, dict) != isinstance(value, dict):
            allowed = "a table" if isinstance(old, dict) else "no table"
            said = merged.origin(here).file
            merged.origins[here] = Origin(file)
            merged.findings.append(Finding(here, f"contradicts {said}", value, allowed=allowed))
        elif here == ("pipeline",) and isinstance(value, list) and isinstance(old, list | None):
            merged.origins.setdefault(here, Origin(file))
            pipelines = into.setdefault(name, [])
            for index, pipeline in enumerate(value):
                merged.origins["pipeline", len(pipelines)] = Origin(file, index)
                pipelines.append(pipeline)
        elif isinstance(value, dict):
            merged.origins.setdefault(here, Origin(file))
            _lay_over(merged, into.setdefault(name, {}), value, here, file)
        else:
            merged.origins[here] = Origin(file)
            into[name] = value


def _depth_within(value: Any, limit: int) -> bool:
    """True when nesting stays within `limit`; a loop, since recursion is what is being prevented."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def _too_deep(file: FilePath) -> Problem:
    return Problem(str(file), "", "tables or lists are nested too deeply", allowed=f"up to {MAX_DEPTH} levels")
