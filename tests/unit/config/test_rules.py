"""The small decisions behind the rules: filters, layouts, roots."""

from __future__ import annotations

import pytest

from edged.config.rules_pipeline import is_path, layout_fault
from edged.config.rules_topics import filter_fault, meets_root


@pytest.mark.parametrize("topic", ["a", "/", "a//b", "+", "+/+", "#", "a/#", "a/+/#", "$SYS/#", "ä/☃"])
def test_a_filter_that_mqtt_allows_has_no_fault(topic: str) -> None:
    assert filter_fault(topic) == ""


@pytest.mark.parametrize("topic", ["", "a\0", "a" * 65_536, "#/a", "a#", "a/#b", "a+", "a/+b", "$share/g/a", "$share"])
def test_a_filter_that_mqtt_refuses_or_that_splits_devices_has_a_fault(topic: str) -> None:
    assert filter_fault(topic)


@pytest.mark.parametrize(
    ("topic", "meets"),
    [
        ("#", True),
        ("+/#", True),
        ("edged/#", True),
        ("edged/v1/+/+/#", True),
        ("edged/v1/lyon/gw-01/result/a/b", True),
        ("+/+/+/+/+", True),
        ("+/+/+/+/state", True),
        ("+/+/+/+/temp", False),
        ("edged/v1/lyon/gw-01", False),
        ("edged/v2/#", False),
        ("edged", False),
        ("+", False),
        ("plant/#", False),
    ],
)
def test_a_filter_meets_the_root_when_it_matches_something_published(topic: str, meets: bool) -> None:
    assert meets_root(topic) is meets


@pytest.mark.parametrize("path", ["a", "motor.temp_c", "Volume Flow RateRMS", "motor 1.temp c", "ä.☃", "$"])
def test_names_joined_by_dots_are_a_path_also_with_spaces_inside(path: str) -> None:
    assert is_path(path)


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", " a", "a ", "a .b", "a. b", "\t", "a\n", 'a"b', "a\\b", "a\x1fb"]
)
def test_empty_names_spaces_around_a_name_and_what_json_escapes_are_no_path(path: str) -> None:
    assert not is_path(path)


@pytest.mark.parametrize(
    ("layout", "window"),
    [
        ("auto", 32),
        ("batch,fields", 1),
        ("batch,window,fields", 32),
        ("batch, fields, window", 32),
        ("batch,1,fields,window", 32),
        ("batch,1,28,28", 1),
    ],
)
def test_a_layout_that_holds_every_value_has_no_fault(layout: str, window: int) -> None:
    assert layout_fault(layout, window) == ""


@pytest.mark.parametrize(
    ("layout", "window", "fault"),
    [
        ("", 1, "begin with batch"),
        ("batch", 1, "begin with batch"),
        ("fields,batch", 1, "begin with batch"),
        ("batch,fields,fields", 1, "twice"),
        ("batch,fields,colour", 1, "other than"),
        ("batch,fields,3", 1, "sizes other than 1"),
        ("batch,window", 32, "no axis for the fields"),
        ("batch,fields", 32, "no axis for the window"),
        ("batch,0,28", 1, "impossible"),
        ("batch,1,1,1,1,1,1,1,1,1", 1, "too many"),
    ],
)
def test_a_layout_that_loses_values_has_a_fault(layout: str, window: int, fault: str) -> None:
    assert fault in layout_fault(layout, window)
