"""Topic names and filters as MQTT defines them, and levels made safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.mqtt.topics import TopicCache, filter_problem, matches, safe_level, text_problem, topic_problem


@pytest.mark.parametrize(
    ("topic_filter", "topic", "selected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b/c", True),
        ("#", "/", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/uptime", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+/c", "a/b", False),
        ("a/+/#", "a", False),
        ("A", "a", False),
        ("$share/group/plant/+", "plant/1", True),
        ("$share/group/plant/+", "plant/1/2", False),
    ],
)
def test_a_filter_selects_what_the_specification_says(topic_filter: str, topic: str, selected: bool) -> None:
    assert matches(topic_filter, topic) is selected


@pytest.mark.parametrize(
    "topic_filter", ["a", "/", "a//b", "+", "#", "a/#", "+/tennis/#", "$SYS/#", "$share/g/a/#", "ä"]
)
def test_valid_filters_have_no_problem(topic_filter: str) -> None:
    assert filter_problem(topic_filter) == ""


@pytest.mark.parametrize(
    ("topic_filter", "problem"),
    [
        ("", "empty"),
        ("a\0b", "U+0000"),
        ("\ud800", "surrogate"),
        ("a" * 65_536, "65536 bytes"),
        ("sport/tennis#", "#"),
        ("sport/tennis/#/ranking", "#"),
        ("sport+", "+"),
        ("$share", "$share/NAME/FILTER"),
        ("$share/g", "$share/NAME/FILTER"),
        ("$share//a", "$share/NAME/FILTER"),
        ("$share/+/a", "$share/NAME/FILTER"),
        ("$share/g/", "$share/NAME/FILTER"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_reason(topic_filter: str, problem: str) -> None:
    assert problem in filter_problem(topic_filter)


@pytest.mark.parametrize(
    ("topic", "problem"), [("a/+", "wildcard"), ("#", "wildcard"), ("", "empty"), ("a\0", "U+0000")]
)
def test_nobody_may_publish_to_an_invalid_topic(topic: str, problem: str) -> None:
    assert problem in topic_problem(topic)


@given(st.text(max_size=300))
def test_a_safe_level_is_never_empty_and_holds_no_separator_or_wildcard(text: str) -> None:
    level = safe_level(text)
    assert 1 <= len(level) <= 128
    assert not topic_problem(level)
    assert "/" not in level
    assert safe_level(level) == level


@given(st.text(alphabet="ab/+#$", min_size=1, max_size=8))
def test_every_valid_topic_selects_itself(topic: str) -> None:
    if not topic_problem(topic) and not topic.startswith("$share"):
        assert matches(topic, topic)
        assert matches("#", topic) is not topic.startswith("$")


def test_a_cache_asks_once_per_topic_and_forgets_all_when_it_is_full() -> None:
    asked: list[str] = []

    def decide(topic: str) -> int:
        asked.append(topic)
        return len(topic)

    cache = TopicCache(decide, limit=2)
    assert [cache["a"], cache["a"], cache["bb"], cache["bb"]] == [1, 1, 2, 2]
    assert asked == ["a", "bb"]
    assert cache["ccc"] == 3
    assert list(cache) == ["ccc"]


def test_text_of_any_kind_but_the_forbidden_is_allowed() -> None:
    assert text_problem("Pumpe Süd/äöü 漢字") == ""
