"""Topic names and filters: validity, matching, and safe levels. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

MAX_TOPIC_BYTES = 65_535  # the length field has 16 bits (MQTT 5, 1.5.4)
CACHE_LIMIT = 10_000  # topics; a publisher that invents topics must not grow the daemon

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def text_problem(text: str) -> str:
    """Why `text` cannot be an MQTT string with at least one character, or "" when it can (MQTT 5, 1.5.4 and 4.7.3)."""
    if not text:
        return "is empty"
    if "\0" in text:
        return "contains U+0000"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "contains a lone surrogate, which UTF-8 cannot express"
    if size > MAX_TOPIC_BYTES:
        return f"is {size} bytes long, allowed are {MAX_TOPIC_BYTES}"
    return ""


def topic_problem(topic: str) -> str:
    """Why `topic` cannot be published to, or "" when it can."""
    if "+" in topic or "#" in topic:
        return "contains a wildcard (+ or #)"
    return text_problem(topic)


def filter_problem(topic_filter: str) -> str:
    """Why `topic_filter` cannot be subscribed to, or "" when it can."""
    problem = text_problem(topic_filter)
    if problem:
        return problem
    levels = topic_filter.split("/")
    if levels[0] == "$share":
        if len(levels) < 3 or not levels[1] or "+" in levels[1] or "#" in levels[1] or not "/".join(levels[2:]):
            return "is not of the form $share/NAME/FILTER"
        levels = levels[2:]
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != len(levels) - 1):
            return "has # elsewhere than alone in the last level"
        if "+" in level and level != "+":
            return "has + beside other characters in a level"
    return ""


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter selects a valid topic name.

    Wildcards in the first level do not select topics that begin with `$` (MQTT 5, 4.7.2).
    """
    wanted = topic_filter.split("/")
    if wanted[0] == "$share":
        wanted = wanted[2:]
    given = topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True  # "a/#" selects "a" as well: every level before was equal
        if position == len(given) or level not in ("+", given[position]):
            return False
    return len(given) == len(wanted)


def safe_level(text: str, *, max_chars: int = 128) -> str:
    """Make any text usable as one topic level: `[A-Za-z0-9_-]`, never empty, at most `max_chars`."""
    return _UNSAFE.sub("_", text)[:max_chars] or "_"


class TopicCache(dict[str, Value]):
    """Remembers what was decided about a topic: `cache[topic]` calls `decide` once per topic.

    Emptied when it holds `limit` topics: cheaper than keeping an order, and a plant has far fewer.
    """

    def __init__(self, decide: Callable[[str], Value], *, limit: int = CACHE_LIMIT) -> None:
        super().__init__()
        self._decide = decide
        self._limit = limit

    def __missing__(self, topic: str) -> Value:
        value = self._decide(topic)
        if len(self) >= self._limit:
            self.clear()
        self[topic] = value
        return value
