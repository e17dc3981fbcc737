"""Small files of /sys and /proc as text and numbers; what is missing, unreadable or implausible is None."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

MOST_BYTES = 4096  # a sysfs attribute is at most a page
_MOST_ENTRIES = 4096  # of a folder that is searched
_PLAUSIBLE_C = (-60.0, 200.0)  # sensors that sleep or are not connected report values far outside
_LEAST_LIMIT_C = 40.0  # below it a limit is a placeholder or firmware nonsense, no box is slowed there
_DIGITS = re.compile(r"(\d+)")


def text(path: Path) -> str | None:
    """The first page of a file, stripped of blanks and NULs; None when it cannot be read or is no UTF-8.

    Opened without blocking, so that a pipe or a device that stands there by accident cannot keep us waiting. A driver
    that does not answer still can: call it from a thread.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, MOST_BYTES).decode("utf-8").strip(" \t\r\n\0")
        finally:
            os.close(descriptor)
    except (OSError, ValueError):  # absent, asleep, forbidden, not text
        return None


def whole(path: Path, base: int = 10) -> int | None:
    """A file that holds one whole number, which may be negative."""
    found = text(path)
    try:
        return None if found is None else int(found, base)
    except ValueError:
        return None


def count(path: Path, base: int = 10) -> int | None:
    """A file that holds a number of things: below zero is None."""
    found = whole(path, base)
    return found if found is not None and found >= 0 else None


def plausible_c(celsius: float | None) -> float | None:
    """A temperature that a running box can have, or None."""
    lowest, highest = _PLAUSIBLE_C
    return celsius if celsius is not None and lowest <= celsius <= highest else None


def limit_c(celsius: float | None) -> float | None:
    """A temperature at which a box can be meant to slow down or stop, or None: 0 and -274 °C mean that none is set."""
    found = plausible_c(celsius)
    return found if found is not None and found >= _LEAST_LIMIT_C else None


def millidegrees(path: Path) -> float | None:
    """A file in thousandths of a degree, as plausible °C."""
    found = whole(path)
    return None if found is None else plausible_c(found / 1000)


def limit_millidegrees(path: Path) -> float | None:
    """A limit in thousandths of a degree, as plausible °C."""
    found = whole(path)
    return None if found is None else limit_c(found / 1000)


def entries(folder: Path, pattern: str, most: int) -> list[Path]:
    """At most `most` entries of a folder whose names match, in natural order (cpu2 before cpu10); none when absent."""
    found: list[str] = []
    try:
        with os.scandir(folder) as scan:
            for _, entry in zip(range(_MOST_ENTRIES), scan, strict=False):
                if fnmatchcase(entry.name, pattern):
                    found.append(entry.name)
    except OSError:  # this box has no such class of devices
        return []
    return [folder / name for name in sorted(found, key=_natural)[:most]]


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by value, the rest by spelling."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in _DIGITS.split(name)]
