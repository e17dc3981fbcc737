"""Skips are counted when what came before them is answered, and never twice."""

from __future__ import annotations

from edged.engine.runner_parts import Ready
from edged.engine.skips import Skips


def window(device: str, seq: int, frame: bytes = b"") -> Ready:
    return (device, 0, frame, seq, "t", None, 0, seq)


def test_only_the_newest_window_of_each_device_stays_in_the_order_of_the_events() -> None:
    skips = Skips()
    kept = skips.newest([window("a", 1), window("b", 2), window("a", 3), window("b", 4), window("c", 5)])
    assert [each[-1] for each in kept] == [3, 4, 5]
    books: dict[str, int] = {}
    skips.enter(books, 1)
    assert (books, len(skips)) == ({"superseded": 1}, 1)
    skips.enter(books, 5)
    skips.enter(books, 9)
    assert (books, len(skips)) == ({"superseded": 2}, 0)


def test_where_nothing_is_older_or_too_large_everything_stays() -> None:
    skips, ready = Skips(), [window("a", 1, b"123"), window("b", 2, b"4")]
    assert skips.newest(ready) is ready
    assert skips.within(ready, 4) is ready
    assert len(skips) == 0


def test_the_oldest_frames_make_room() -> None:
    skips = Skips()
    kept = skips.within([window("a", 1, b"123"), window("b", 2, b"45"), window("c", 3, b"6")], 3)
    assert [each[-1] for each in kept] == [2, 3]
    skips.add(9, "restart")
    books: dict[str, int] = {}
    skips.enter(books, 9)
    assert books == {"memory": 1, "restart": 1}
