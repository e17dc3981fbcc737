"""Waiting for a condition, bounded in time: the tests' one way to synchronise with processes and threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN_S = 20.0


def until(condition: Callable[[], T], what: str, within_s: float = WITHIN_S, every_s: float = 0.02) -> T:
    """Poll until `condition` is true and return its value; `what` names it when it does not become true in time."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {within_s} s still not: {what}")
        time.sleep(every_s)
    return found
