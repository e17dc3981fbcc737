"""Whose turn it is, what came damaged, who came back."""

from __future__ import annotations

import asyncio

import pytest

from edged.hub.decisions import Sender
from edged.hub.memory import RETURNED_MAX, SUSPECTS_MAX, Returned, StreamTurns, Suspects
from edged.sync.envelope import read_header
from edged.sync.protocol import BatchHeader
from tests.doubles.hub_rig import payload


def header(first: int) -> BatchHeader:
    return read_header(payload(first, first))[0]


async def test_turns_of_one_stream_are_taken_in_order_and_others_do_not_wait() -> None:
    turns, order, gate = StreamTurns(), list[str](), asyncio.Event()

    async def take(key: str, name: str) -> None:
        async with turns.turn((key,)):
            if name == "a1":
                await gate.wait()
            order.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name in ("a1", "a2", "a3"):
            tasks.create_task(take("a", name))
        await asyncio.sleep(0)
        await take("b", "b1")
        gate.set()
    assert order == ["b1", "a1", "a2", "a3"]
    assert len(turns) == 0


async def test_a_turn_that_is_given_up_does_not_keep_others_waiting() -> None:
    turns = StreamTurns()
    async with turns.turn(("a",)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), turns.turn(("a",)):
                raise AssertionError("it is not our turn")
    async with turns.turn(("a",)):
        assert len(turns) == 1
    assert len(turns) == 0


def test_a_damaged_batch_is_asked_for_once_more() -> None:
    suspects = Suspects()
    assert [suspects.first_time(header(1)), suspects.first_time(header(2)), suspects.first_time(header(1))] == [
        True,
        True,
        False,
    ]


def test_suspects_are_forgotten_when_there_are_too_many() -> None:
    suspects, one = Suspects(), header(1)
    assert suspects.first_time(one)
    for first in range(2, SUSPECTS_MAX + 2):
        suspects.first_time(header(first))
    assert suspects.first_time(one)


def test_only_gateways_of_the_last_minute_count_each_once() -> None:
    returned = Returned()
    a, b = Sender("lyon", "a"), Sender("lyon", "b")
    assert [returned.count(a, 0), returned.count(a, 10**9), returned.count(b, 2 * 10**9)] == [1, 1, 2]
    assert returned.count(b, 62 * 10**9) == 1


def test_the_memory_of_who_returned_is_bounded() -> None:
    returned, count = Returned(), 0
    for number in range(RETURNED_MAX + 5):
        count = returned.count(Sender("lyon", f"g{number}"), number)
    assert count == RETURNED_MAX
