"""Topics find their sources."""

from __future__ import annotations

import pytest

from edged.errors import ConfigError
from edged.ingest import routes
from edged.ingest.routes import Routes, matches, parse_filter


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+/c", "a/b/c", True),
        ("+", "a", True),
        ("+", "/a", False),
        ("/+", "/a", True),
        ("#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("$share/workers/a/+", "a/b", True),
        ("$share/workers/a/+", "workers/a/b", False),
    ],
)
def test_filters_match_as_mqtt_says(pattern: str, topic: str, expected: bool) -> None:
    assert matches(parse_filter(pattern), tuple(topic.split("/"))) is expected


@pytest.mark.parametrize("text", ["", "a/#/b", "a#", "a/b+", "+a", "$share", "$share/g", "$share/g/", "a\x00"])
def test_what_is_no_filter_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="filter"):
        Routes([(text, "s")])


def test_a_topic_finds_every_source_once_in_the_order_declared() -> None:
    found = Routes([("plant/+/pump/+", "pump"), ("plant/#", "all"), ("plant/lyon/#", "pump")])
    assert found.sources("plant/lyon/pump/1") == ("pump", "all")
    assert found.sources("plant/lyon") == found.sources("plant/lyon") == ("all", "pump")
    assert found.sources("office") == ()


def test_memory_of_topics_is_bounded_and_forgetting_changes_no_answer() -> None:
    found = Routes([("a/+", "s")])
    for number in range(routes._CACHE_LIMIT + 5):
        assert found.sources(f"a/{number}") == ("s",)
    assert len(found._known) <= routes._CACHE_LIMIT
    assert found.sources("a/0") == ("s",)
