"""How much is in hand is counted, and bounded in three ways."""

from __future__ import annotations

import threading

from edged.hub.decisions import Sender
from edged.hub.door import Door, Room

A, B = Sender("lyon", "a"), Sender("lyon", "b")


def test_batches_are_bounded() -> None:
    door = Door(Room(2, 1000, 10))
    assert [door.enter(A, 1), door.enter(B, 1), door.enter(B, 1)] == [True, True, False]
    door.leave(A, 1)
    assert door.enter(B, 1)


def test_bytes_are_bounded_but_one_alone_always_gets_in() -> None:
    door = Door(Room(10, 100, 10))
    assert door.enter(A, 500)
    assert not door.enter(B, 1)
    door.leave(A, 500)
    assert [door.enter(A, 60), door.enter(B, 41), door.enter(B, 40)] == [True, False, True]
    assert (door.highest_batches, door.highest_bytes) == (2, 500)


def test_one_gateway_cannot_take_all_the_room() -> None:
    door = Door(Room(10, 1000, 2))
    assert [door.enter(A, 1), door.enter(A, 1), door.enter(A, 1), door.enter(B, 1)] == [True, True, False, True]


def test_the_count_is_right_whoever_comes_from_whichever_thread() -> None:
    door = Door(Room(1000, 10**9, 1000))

    def come_and_go() -> None:
        for _ in range(2_000):
            assert door.enter(A, 3)
            door.leave(A, 3)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (door.batches, door.size_bytes) == (0, 0)
