"""State that outlives a connection."""

from __future__ import annotations

import pytest

from edged.mqtt.session import Alarms, InboundBudget, TakeoverWatch, VersionChoice


def test_reading_pauses_at_the_count_and_resumes_at_half_of_it() -> None:
    budget = InboundBudget(max_count=10, max_bytes=1_000)
    assert not budget.received(9, 9)
    assert budget.received(1, 1)
    assert budget.released(4, 4)
    assert not budget.released(1, 1)
    assert (budget.count, budget.bytes, budget.paused) == (5, 5, False)


def test_reading_pauses_at_the_bytes_and_resumes_at_half_of_them() -> None:
    budget = InboundBudget(max_count=10, max_bytes=1_000)
    assert budget.received(1, 1_000)
    assert budget.released(0, 499)
    assert not budget.released(0, 1)


def test_many_bytes_keep_it_paused_although_few_messages_are_left() -> None:
    budget = InboundBudget(max_count=10, max_bytes=1_000)
    budget.received(10, 900)
    assert budget.released(9, 100)
    assert not budget.released(1, 800)


@pytest.mark.parametrize(("count", "size", "full"), [(19, 1_999, False), (20, 0, True), (0, 2_000, True)])
def test_twice_full_counts_both(count: int, size: int, full: bool) -> None:
    budget = InboundBudget(max_count=10, max_bytes=1_000)
    budget.received(count, size)
    assert budget.twice_full is full


def test_a_takeover_named_by_the_broker_is_suspected_at_once() -> None:
    assert TakeoverWatch().ended(taken_over=True, connected_s=100.0)


def test_three_quick_drops_in_a_row_are_suspected_and_a_longer_connection_starts_anew() -> None:
    watch = TakeoverWatch()
    seen = [watch.ended(taken_over=False, connected_s=lived) for lived in (0.1, 1.9, 3.0, 0.1, 0.1, 0.1, 0.1)]
    assert seen == [False, False, False, False, False, True, True]


def test_a_refused_connection_says_nothing_about_our_client_id() -> None:
    watch = TakeoverWatch()
    assert not any(watch.ended(taken_over=False, connected_s=None) for _ in range(10))


def test_auto_starts_with_5_falls_back_at_once_and_stays_there() -> None:
    choice = VersionChoice("auto")
    versions: list[str] = [choice.version]
    assert choice.refused()
    versions.append(choice.version)
    choice.accepted()
    choice.silently_closed()
    versions.append(choice.version)
    assert versions == ["5", "3.1.1", "3.1.1"]


def test_a_broker_that_refuses_both_versions_is_not_asked_in_a_hurry() -> None:
    choice = VersionChoice("auto")
    assert choice.refused()
    assert not choice.refused()
    assert choice.version == "5"


def test_one_silent_close_is_a_restart_two_in_a_row_are_an_old_broker() -> None:
    choice = VersionChoice("auto")
    choice.silently_closed()
    versions: list[str] = [choice.version]
    choice.silently_closed()
    versions.append(choice.version)
    assert versions == ["5", "3.1.1"]


def test_a_version_the_broker_has_spoken_survives_any_number_of_silent_closes() -> None:
    choice = VersionChoice("auto")
    choice.accepted()
    for _ in range(5):
        choice.silently_closed()
    assert choice.version == "5"
    assert choice.refused()


@pytest.mark.parametrize("wanted", ["5", "3.1.1"])
def test_a_configured_version_never_changes(wanted: str) -> None:
    choice = VersionChoice(wanted)  # type: ignore[arg-type]
    assert not choice.refused()
    choice.silently_closed()
    choice.silently_closed()
    assert choice.version == wanted


def test_an_alarm_is_told_when_it_changes_and_not_again() -> None:
    told: list[tuple[str, bool, str]] = []
    alarms = Alarms(lambda code, active, detail: told.append((code, active, detail)))
    alarms.set("a", False, "never was")
    alarms.set("a", True, "first")
    alarms.set("a", True, "second")
    alarms.set("b", True, "other")
    alarms.set("a", False, "over")
    alarms.set("a", False, "still over")
    assert told == [("a", True, "first"), ("b", True, "other"), ("a", False, "over")]
