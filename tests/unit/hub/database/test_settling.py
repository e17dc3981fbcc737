"""What a batch changes in the books of its stream, and what a gateway is told that comes back."""

from __future__ import annotations

import pytest

from edged.hub.database import settling
from edged.hub.database.settling import Standing
from edged.sync.protocol import BatchHeader, Fork, StreamExtent
from tests.integration.hub_database.samples import EPOCH, header, hello


def test_books_read_back_as_they_were_written() -> None:
    books = Standing(5, 9, ((12, 12), (20, 30)))

    assert settling.standing(5, 9, settling.beyond_text(books)) == books
    assert books.home == ((5, 9), (12, 12), (20, 30))
    assert books.newest == 30


def test_nothing_home_has_no_ranges_and_its_newest_is_before_the_base() -> None:
    assert Standing(5, 4, ()).home == ()
    assert Standing(5, 4, ()).newest == 4
    assert Standing(5, 4, ((7, 8),)).home == ((7, 8),)


def test_what_closes_a_hole_becomes_contiguous() -> None:
    assert settling.added(Standing(1, 3, ((6, 9),)), 4, 5) == Standing(1, 9, ())
    assert settling.added(Standing(1, 0, ()), 4, 5) == Standing(1, 0, ((4, 5),))


def test_a_smaller_base_makes_more_missing_and_a_larger_one_hides_nothing() -> None:
    books = Standing(5, 9, ((12, 13),))

    assert settling.rebased(books, 3) == Standing(3, 2, ((5, 9), (12, 13)))
    assert settling.rebased(books, 7) == books


def test_more_ranges_than_are_kept_are_too_many() -> None:
    assert not settling.scattered(Standing(1, 0, tuple((i, i) for i in range(2, 514, 2))))
    assert settling.scattered(Standing(1, 0, tuple((i, i) for i in range(2, 516, 2))))


@pytest.mark.parametrize(
    ("said", "rows", "reason"),
    [
        (header(1, 5), 5, ""),
        (header(1, 2**53), None, ""),
        (header(1, 5), 4, "bad_body"),
        (header(4, 5, base=5), 2, "before_base"),
        (header(1, 5, base=0), 5, "bad_header"),
        (header(1, 2**53 + 1), None, "bad_header"),
        (header(3, 2), 0, "bad_header"),
        (header(1, 5, site=""), 5, "bad_header"),
        (header(1, 5, epoch="\ud800"), 5, "bad_header"),
        (header(1, 5, gateway="a" * 129), 5, "bad_header"),
    ],
)
def test_what_can_never_be_committed_has_its_reason(said: BatchHeader, rows: int | None, reason: str) -> None:
    assert settling.unusable(said, rows) == reason


def test_forks_are_the_first_number_of_each_epoch_where_histories_part() -> None:
    said = hello(StreamExtent(EPOCH, "health", 1, 5), StreamExtent(EPOCH, "result", 1, 30))

    behind = {(EPOCH, "health"): 5, (EPOCH, "result"): 20}
    assert settling.forks(said, behind, [("e0", 9), ("e0", 3), (EPOCH, 40)]) == (Fork("e0", 3), Fork(EPOCH, 30))
    assert settling.forks(said, behind, [(EPOCH, 7)]) == (Fork(EPOCH, 7),)
    assert settling.forks(said, {(EPOCH, "health"): 4}, []) == ()


def test_a_gateway_that_says_nothing_of_results_parts_where_the_stream_does() -> None:
    said = hello(StreamExtent(EPOCH, "health", 1, 5))

    assert settling.forks(said, {(EPOCH, "health"): 9}, []) == (Fork(EPOCH, 5),)
