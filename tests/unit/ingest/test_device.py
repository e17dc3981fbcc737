"""Device names from templates."""

from __future__ import annotations

import pytest

from edged.errors import Refused
from edged.ingest import device
from edged.ingest.device import DeviceTemplate, checked_device


def test_text_levels_and_payload_values_are_joined_as_written() -> None:
    template = DeviceTemplate("{topic[0]}.{payload.a.b}-{topic[2]}!{payload.c}")
    assert template.payload_paths == ("a.b", "c")
    assert template.name("x/y/z", ("m", 3)) == "x.m-z!3"


def test_levels_are_counted_from_the_end_as_well() -> None:
    template = DeviceTemplate("{topic[-1]}-{topic[-2]}")
    assert template.name("x/y/z") == "z-y"
    with pytest.raises(Refused, match="level -2"):
        template.name("x")


def test_a_template_without_placeholders_names_one_device() -> None:
    assert DeviceTemplate("press").name("any/topic") == "press"


def test_an_empty_template_names_nothing() -> None:
    with pytest.raises(Refused, match="bad_device"):
        DeviceTemplate("").name("any/topic")


def test_the_number_1_and_the_text_1_are_one_device() -> None:
    template = DeviceTemplate("{payload.id}")
    assert template.name("t", (1,)) == template.name("t", ("1",)) == "1"


def test_memory_of_names_is_bounded_and_forgetting_changes_no_answer() -> None:
    template = DeviceTemplate("{topic[0]}")
    limit = device._CACHE_LIMIT
    for number in range(limit + 5):
        assert template.name(f"d{number}") == f"d{number}"
    assert len(template._known) <= limit
    assert template.name("d0") == "d0"


def test_the_limit_counts_bytes_not_characters() -> None:
    assert checked_device("ä" * 64)
    with pytest.raises(Refused, match="130 bytes"):
        checked_device("ä" * 65)


def test_a_lone_surrogate_is_refused_not_a_crash() -> None:
    with pytest.raises(Refused, match="bad_device"):
        checked_device("a\ud800")
