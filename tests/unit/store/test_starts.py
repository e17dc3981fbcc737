"""Which starts are remembered, and where a new epoch begins when histories part."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from edged.errors import StoreError
from edged.store import schema, starts

FOLLOWING = {"alarm": 1, "health": 1}


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    made = apsw.Connection(":memory:")
    schema.migrate(made, 0)
    begin(made, "first", 1)
    yield made
    made.close()


def begin(connection: apsw.Connection, epoch: str, n: int) -> None:
    """An epoch whose numbers all begin at `n`."""
    connection.execute("INSERT INTO epoch VALUES (NULL, ?, 'damage', ?, ?, ?, 0)", (epoch, n, n, n))


def start(connection: apsw.Connection, n: int, alarm: int = 1) -> None:
    starts.note(connection, (n, n, n), {"alarm": alarm, "health": 1}, "boot", "instance", 0)


def epochs(connection: apsw.Connection) -> list[tuple[str, int]]:
    return [(row.epoch, row.first_result) for row in starts.epochs(connection)]


def begun(connection: apsw.Connection) -> list[tuple[str, int]]:
    return [(row.epoch, row.first_result) for row in reversed(starts.newest(connection, 10_000))]


def test_the_newest_starts_stay_and_the_first_of_every_epoch(connection: apsw.Connection) -> None:
    for n in range(1, 20):
        start(connection, n)
    begin(connection, "second", 20)
    for n in range(20, 20 + starts.STARTS_MAX + 50):
        start(connection, n)
    kept = begun(connection)
    assert kept[:2] == [("first", 1), ("second", 20)]
    assert len(kept) == starts.STARTS_MAX + 2
    assert kept[-1] == ("second", 69 + starts.STARTS_MAX)


def test_epochs_of_a_program_that_kept_no_starts_get_one(connection: apsw.Connection) -> None:
    begin(connection, "second", 50)
    start(connection, 80)
    assert begun(connection) == [("first", 1), ("second", 50), ("second", 80)]
    begin(connection, "third", 100)
    start(connection, 120, alarm=7)
    of_third = starts.of_epoch(connection, "third")
    assert of_third is not None
    assert (of_third.first("result"), of_third.first("alarm"), of_third.boot) == (100, 7, "")


def test_a_start_that_begins_an_epoch_is_its_first(connection: apsw.Connection) -> None:
    start(connection, 1)
    begin(connection, "second", 30)
    start(connection, 30, alarm=4)
    assert begun(connection) == [("first", 1), ("second", 30)]
    assert starts.of_epoch(connection, "nobody") is None


@pytest.mark.parametrize("at", [21, 25, 29])
def test_the_new_epoch_begins_with_the_start_that_made_the_number(connection: apsw.Connection, at: int) -> None:
    for n in (1, 11, 21, 30):
        start(connection, n)
    new = starts.fork(connection, at, 5)
    assert epochs(connection) == [("first", 1), (new, 21)]
    assert begun(connection) == [("first", 1), ("first", 11), (new, 21), (new, 30)]
    assert starts.epochs(connection)[-1].reason == starts.REASON_FORK


def test_starts_that_made_nothing_go_along(connection: apsw.Connection) -> None:
    for n in (1, 11, 11, 11, 30):
        start(connection, n)
    new = starts.fork(connection, 11, 5)
    assert [epoch for epoch, _ in begun(connection)] == ["first", new, new, new, new]


def test_a_fork_inside_a_former_epoch_ends_where_the_next_one_begins(connection: apsw.Connection) -> None:
    for n in (1, 11, 21):
        start(connection, n)
    begin(connection, "second", 30)
    start(connection, 30)
    new = starts.fork(connection, 12, 5)
    assert epochs(connection) == [("first", 1), (new, 11), ("second", 30)]
    assert begun(connection) == [("first", 1), (new, 11), (new, 21), ("second", 30)]


def test_an_epoch_that_parts_from_its_first_start_on_is_replaced(connection: apsw.Connection) -> None:
    start(connection, 1)
    start(connection, 9)
    new = starts.fork(connection, 3, 5)
    assert epochs(connection) == [(new, 1)]
    assert begun(connection) == [(new, 1), (new, 9)]


def test_without_a_start_there_is_no_place_to_part(connection: apsw.Connection) -> None:
    with pytest.raises(StoreError, match="no start of the daemon is known before it"):
        starts.fork(connection, 3, 5)
    assert epochs(connection) == [("first", 1)]
