"""What would be lost, and what nobody needs any more."""

from __future__ import annotations

import pytest

from edged.store.cursors import Cursors, first_new, table_stream


def test_without_a_receiver_only_what_the_plant_has_not_had_would_be_lost() -> None:
    cursors = Cursors(results=10, events=5)
    assert cursors.lost_results(1, 10) == ()
    assert cursors.lost_results(8, 12) == ((11, 12),)
    assert cursors.lost_events(4, 7) == ((6, 7),)
    assert cursors.is_home("result", 1, 100)
    assert cursors.not_home("event", 1, 100) == []


def test_with_a_receiver_what_is_not_home_would_be_lost_too() -> None:
    cursors = Cursors(
        results=20,
        events=20,
        home={"result": ((1, 5), (9, 10)), "event": ((1, 3),)},
        outward=frozenset(("result",)),
    )
    assert cursors.lost_results(4, 12) == ((6, 8), (11, 12))
    assert cursors.lost_results(19, 22) == ((19, 22),)
    assert cursors.lost_events(1, 20) == (), "the events were not to go home"
    assert not cursors.is_home("result", 5, 9)
    assert cursors.is_home("result", 9, 10)
    assert cursors.next_home("result", 5) == 9
    assert cursors.next_home("result", 9) is None
    assert cursors.next_home("event", 3) is None


def test_events_are_settled_when_they_are_answered_and_folded() -> None:
    assert Cursors(events=7, folded=3).settled_events == 3
    assert Cursors(events=2, folded=3).settled_events == 2


def test_a_look_at_the_cursors_does_not_change_with_them() -> None:
    cursors = Cursors(results=1)
    seen = cursors.seen()
    cursors.home = {"result": ((1, 1),)}
    assert seen != cursors.seen()
    assert seen.home == {}


@pytest.mark.parametrize(
    ("before", "now", "first"),
    [
        ((), (), None),
        ((), ((5, 9),), 5),
        (((1, 4),), ((1, 4),), None),
        (((1, 4),), ((1, 6), (9, 9)), 5),
        (((1, 4), (9, 9)), ((1, 9),), 5),
        (((1, 9),), ((1, 4),), None),
    ],
)
def test_the_first_number_that_has_come_home_since(
    before: tuple[tuple[int, int], ...], now: tuple[tuple[int, int], ...], first: int | None
) -> None:
    assert first_new(before, now) == first


def test_telemetry_is_the_stream_of_events_in_the_tables() -> None:
    assert [table_stream(stream) for stream in ("telemetry", "result", "alarm")] == ["event", "result", "alarm"]
