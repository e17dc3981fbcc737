"""What goes on a stick: exactly what is neither home nor on another one, alarms first, oldest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.sync import ranges
from edged.sync.protocol import Range, Stream, StreamExtent
from edged.uplink.export import ORDER, Wanted, numbers, plan, wanted

EXTENTS = (
    StreamExtent("e1", "result", 1, 31), StreamExtent("e1", "alarm", 1, 4), StreamExtent("e1", "health", 1, 1),
    StreamExtent("e2", "result", 31, 61), StreamExtent("e2", "alarm", 4, 6),
)  # fmt: skip
STREAMS: tuple[Stream, ...] = ("result", "alarm", "health")

sets = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=6).map(
    lambda pairs: ranges.normalise((first, first + length) for first, length in pairs)
)


def each(found: tuple[Range, ...]) -> set[int]:
    return {number for first, last in found for number in range(first, last + 1)}


def test_alarms_come_first_then_health_then_results_oldest_first() -> None:
    assert wanted(EXTENTS, {}, {}, STREAMS) == [
        Wanted("alarm", 1, 3), Wanted("alarm", 4, 5), Wanted("result", 1, 30), Wanted("result", 31, 60),
    ]  # fmt: skip
    assert ORDER[0] == "alarm"


def test_only_the_streams_that_go_home_are_wanted() -> None:
    assert {part.stream for part in wanted(EXTENTS, {}, {}, ("alarm",))} == {"alarm"}
    assert wanted(EXTENTS, {}, {}, ()) == []


@given(home=sets, on_sticks=sets)
def test_exactly_what_is_neither_home_nor_on_another_stick_is_wanted(
    home: tuple[Range, ...], on_sticks: tuple[Range, ...]
) -> None:
    found = wanted(EXTENTS, {"result": home}, {"e1": {"result": on_sticks}}, ("result",))
    old = set(range(1, 31)) - each(home) - each(on_sticks)
    new = set(range(31, 61)) - each(home)  # the stick's are of the former epoch: other rows
    assert each(tuple((part.first, part.last) for part in found)) == old | new
    assert numbers(found) == len(old | new)


def test_a_plan_says_how_many_are_on_their_way_and_where_the_hub_may_look_for_a_fork() -> None:
    made = plan(EXTENTS, {"result": ((1, 10), (12, 20))}, {"e1": {"result": ((5, 25),)}}, STREAMS)
    assert made.elsewhere == 1 + 5
    assert made.after_result == 10
    assert plan(EXTENTS, {}, {}, STREAMS).after_result == 0
