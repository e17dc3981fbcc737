"""Topic filters → the sources that want their messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from edged.errors import ConfigError

_CACHE_LIMIT = 20_000  # topics remembered with their answer; beyond it the memory starts anew

Source = TypeVar("Source")


class Routes(Generic[Source]):
    """Finds the sources of a topic. Raises `ConfigError` when a filter is not valid MQTT."""

    def __init__(self, filters: Iterable[tuple[str, Source]]) -> None:
        self._filters = [(parse_filter(text), source) for text, source in filters]
        self._known: dict[str, tuple[Source, ...]] = {}

    def sources(self, topic: str) -> tuple[Source, ...]:
        """Every source with a matching filter, once each, in the order given; none: refuse it as `no_route`."""
        found = self._known.get(topic)
        if found is None:
            levels = tuple(topic.split("/"))
            found = tuple(dict.fromkeys(source for pattern, source in self._filters if matches(pattern, levels)))
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[topic] = found
        return found


def parse_filter(text: str) -> tuple[str, ...]:
    """The levels of a topic filter; of a shared subscription (`$share/group/filter`) those of the filter.

    Raises:
        ConfigError: not a topic filter.
    """
    levels = tuple(text.split("/"))
    if levels[0] == "$share":
        levels = levels[2:]
    wild_inside = any(("#" in level or "+" in level) and len(level) > 1 for level in levels)
    if levels in {(), ("",)} or wild_inside or "#" in levels[:-1] or "\x00" in text:
        raise ConfigError(
            f"topic filter {text!r} is not valid",
            hint="+ stands for one whole level, # for all remaining ones and only at the end",
        )
    return levels


def matches(pattern: tuple[str, ...], levels: tuple[str, ...]) -> bool:
    """Whether a topic (as levels) matches a parsed filter. A wildcard never matches `$SYS` and its like first."""
    if levels[0].startswith("$") and pattern[0] in {"+", "#"}:
        return False
    if pattern[-1] == "#":
        pattern = pattern[:-1]  # `a/#` also matches `a` itself
        levels = levels[: len(pattern)]
    return len(pattern) == len(levels) and all(
        want in {"+", level} for want, level in zip(pattern, levels, strict=True)
    )
