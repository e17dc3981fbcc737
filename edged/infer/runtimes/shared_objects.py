"""Which shared libraries this process has loaded: two copies of one cannot live in it."""

from __future__ import annotations

from pathlib import Path


def is_loaded(part: str, maps: Path = Path("/proc/self/maps")) -> bool:
    """Whether a library with `part` in its path is mapped. False where the system does not tell."""
    try:
        return part in maps.read_text("utf-8", "replace")
    except OSError:
        return False
