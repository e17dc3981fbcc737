"""Alarms begin and end."""

from __future__ import annotations

import msgspec
import pytest

from edged.errors import ConfigError
from edged.pipeline.alarm import TRANSITIONS, AlarmBank, AlarmChange, Seen, State
from edged.pipeline.spec import AlarmRule

BEARING = AlarmRule("bearing", label="bearing", min_score=0.8, severity="critical", clear_after=2)


def test_the_table_answers_every_state_and_everything_seen() -> None:
    assert set(TRANSITIONS) == {(state, seen) for state in State for seen in Seen}


def test_an_alarm_begins_with_the_first_hit_and_ends_after_so_many_misses_in_a_row() -> None:
    bank = AlarmBank([BEARING])
    assert bank.step("d", 1, "ok", 0.9) == []
    assert bank.step("d", 2, "bearing", 0.7) == []
    assert bank.step("d", 3, "bearing", 0.8) == [
        AlarmChange("d", "bearing", True, "critical", since_ts=3, ts=3, label="bearing", score=0.8)
    ]
    assert bank.step("d", 4, "bearing", 0.9) == []
    assert bank.step("d", 5, "ok", 0.9) == []
    assert bank.step("d", 6, "bearing", 0.9) == []  # the misses are forgotten
    assert bank.step("d", 7, "ok", 0.9) == []
    assert bank.step("d", 8, "ok", 0.9) == [
        AlarmChange("d", "bearing", False, "critical", since_ts=3, ts=8, label="ok", score=0.9)
    ]
    assert bank.step("d", 9, "ok", 0.9) == []


def test_a_result_that_cannot_be_trusted_neither_raises_nor_clears() -> None:
    bank = AlarmBank([AlarmRule("any", clear_after=1)])
    assert bank.step("d", 1, "calibrating", 99.0) == []
    assert bank.step("d", 2, "x", 0.5) != []
    assert bank.step("d", 3, None, None) == []
    assert bank.step("d", 4, "calibrating", 0.0) == []
    assert bank.step("d", 5, None, None, {"count": 0.0, "boxes": []}) != []  # nothing detected is an answer


def test_devices_and_rules_are_independent() -> None:
    bank = AlarmBank([BEARING, AlarmRule("leak", label="leak")])
    bank.step("a", 1, "bearing", 1.0)
    assert [change.device for change in bank.step("b", 2, "bearing", 1.0)] == ["b"]
    assert [change.code for change in bank.step("a", 3, "leak", 1.0)] == ["leak"]


def test_a_threshold_holds_against_the_score_or_the_first_value_of_a_regression() -> None:
    bank = AlarmBank([AlarmRule("hot", above_threshold=90.0)])
    assert bank.step("d", 1, None, None, {"temp_c": 90.0, "other": 500.0}) == []
    assert bank.step("d", 2, None, None, {"temp_c": 90.1}) != []
    assert bank.step("d", 3, "normal", 80.0) != []
    assert bank.step("d", 4, None, None, {"curve": [500.0]}) == []


def test_a_loaded_state_knows_what_is_active_and_drops_rules_that_are_gone() -> None:
    bank = AlarmBank([BEARING, AlarmRule("leak", label="leak")])
    bank.step("d", 1, "bearing", 1.0)
    bank.step("d", 2, "leak", 1.0)
    loaded = AlarmBank([BEARING, AlarmRule("new", label="new")])
    assert loaded.load(bank.dump())
    (change,) = loaded.step("d", 3, "ok", 1.0)
    assert (change.code, change.active, change.since_ts) == ("bearing", False, 1)


def test_a_state_that_cannot_be_read_changes_nothing() -> None:
    bank = AlarmBank([BEARING])
    bank.step("d", 1, "bearing", 1.0)
    for blob in (b"", b"\xc1", msgspec.msgpack.encode([99, {}])):
        assert bank.load(blob) is False
    assert bank.step("d", 2, "bearing", 1.0) == []


def test_two_rules_with_one_code_are_refused() -> None:
    with pytest.raises(ConfigError, match="each may stand once"):
        AlarmBank([BEARING, BEARING])


def test_what_is_active_can_be_asked_for_after_a_restart() -> None:
    bank = AlarmBank([BEARING])
    assert bank.active() == []
    bank.step("d", 3, "bearing", 1.0)
    bank.step("d", 4, "ok", 1.0)
    assert bank.active() == [AlarmChange("d", "bearing", True, "critical", 3, 3, "bearing", None)]
