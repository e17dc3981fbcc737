"""Which batches lie around an alarm, found again after a restart, and which go first when they are too many."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.messages import Unit
from edged.store import schema
from edged.store.protection import OPEN, STRETCHES_MAX, Protection, first_arrived
from tests.unit.store.samples import unit

S = 1_000_000_000
ROW_BYTES = 1000


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    made = apsw.Connection(":memory:")
    schema.migrate(made, 0)
    yield made
    made.close()


class Rows:
    """Puts units into a journal and tells the protection of them."""

    def __init__(self, connection: apsw.Connection, around_s: float = 10.0, limit_bytes: int = 1_000_000) -> None:
        self.connection = connection
        self.protection = Protection(around_s, limit_bytes)
        self.batch = 0

    def add(self, at_s: float, *, alarm: bool = False, boot: str = "boot-1") -> None:
        self.batch += 1
        made: Unit = unit()
        made.arrival_mono_ns, made.boot = int(at_s * S), boot
        self.connection.execute(
            "INSERT INTO journal VALUES (?,1,0,1,0,0,0,?,?,'synced',zeroblob(900),NULL,NULL,NULL)",
            (self.batch, made.arrival_mono_ns, boot),
        )
        self.protection.note(self.connection, self.batch, made, alarm=alarm, row_bytes=ROW_BYTES)

    def table(self) -> list[tuple[int, int]]:
        query = "SELECT first_batch, last_batch FROM protected ORDER BY first_batch"
        return [(first, last) for first, last in self.connection.execute(query)]


def test_surroundings_reach_as_far_back_as_forward(connection: apsw.Connection) -> None:
    rows = Rows(connection)
    for at_s in range(0, 100, 5):
        rows.add(at_s, alarm=at_s == 50)
    assert rows.table() == [(9, 13)]


def test_what_goes_on_is_found_again_with_its_size_after_a_restart(connection: apsw.Connection) -> None:
    rows = Rows(connection)
    for i in range(200):
        rows.add(i, alarm=i % 5 == 0)
    assert rows.table() == [(1, OPEN)]
    known = rows.protection.bytes
    assert known > 190 * ROW_BYTES
    rows.protection = Protection(10.0, 1_000_000)
    rows.protection.load(connection)
    assert rows.protection.bytes == pytest.approx(known, rel=0.3)
    rows.add(300)
    assert rows.table() == [(1, 200)]
    total = connection.execute("SELECT total(bytes) FROM protected").fetchone()
    assert total == (rows.protection.bytes,)


def test_what_goes_on_loses_its_older_half_again_and_again_and_never_the_newest(connection: apsw.Connection) -> None:
    rows = Rows(connection)
    for i in range(100):
        rows.add(i, alarm=True)
    firsts = []
    while (first := rows.protection.drop_oldest(connection)) is not None:
        firsts.append(first)
    assert firsts[:3] == [1, 51, 76]
    assert len(firsts) < 10
    assert rows.table() == [(100, OPEN)] or rows.table() == [(101, OPEN)]
    rows.add(500)
    assert [last for _, last in rows.table()] in ([], [100])
    assert rows.protection.bytes >= 0


def test_too_many_stretches_are_too_many_whatever_they_hold(connection: apsw.Connection) -> None:
    rows = Rows(connection, around_s=0.1, limit_bytes=1 << 40)
    for i in range(STRETCHES_MAX + 2):
        rows.add(2 * i, alarm=True)
        rows.add(2 * i + 1)
    assert rows.protection.is_over()
    rows.protection.drop_oldest(connection)
    rows.protection.drop_oldest(connection)
    assert not rows.protection.is_over()


def test_stretches_that_touch_are_passed_at_once(connection: apsw.Connection) -> None:
    protection = Protection(10.0, 1_000_000)
    connection.execute("INSERT INTO protected VALUES (5, 9, 1), (10, 12, 1), (20, ?, 1)", (OPEN,))
    assert protection.next_clear(connection, 1) == (1, 4)
    assert protection.next_clear(connection, 5) == (13, 19)
    assert protection.next_clear(connection, 13) == (13, 19)
    assert protection.next_clear(connection, 25)[0] > OPEN


def test_stretches_without_rows_are_forgotten(connection: apsw.Connection) -> None:
    protection = Protection(10.0, 1_000_000)
    connection.execute("INSERT INTO protected VALUES (5, 9, 100), (10, 12, 10)")
    protection.load(connection)
    protection.forget_before(connection, 10)
    assert protection.bytes == 10
    assert list(connection.execute("SELECT first_batch FROM protected")) == [(10,)]


def test_without_surroundings_nothing_is_protected(connection: apsw.Connection) -> None:
    rows = Rows(connection, around_s=0.0)
    rows.add(1, alarm=True)
    assert rows.table() == []
    assert rows.protection.drop_oldest(connection) is None


@given(arrivals=st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=20), wanted=st.integers(0, 110))
def test_the_first_that_arrived_is_found_by_search_as_by_counting_through(
    arrivals: list[tuple[bool, int]], wanted: int
) -> None:
    connection = apsw.Connection(":memory:")
    schema.migrate(connection, 0)
    old = sorted(at for is_old, at in arrivals if is_old)
    new = sorted(at for is_old, at in arrivals if not is_old)
    rows = [("boot-1", at) for at in old] + [("boot-2", at) for at in new]
    for i, (boot, at) in enumerate(rows):
        connection.execute(
            "INSERT INTO journal VALUES (?,1,0,1,0,0,0,?,?,'synced',x'00',NULL,NULL,NULL)", (3 * i + 5, at, boot)
        )
    before = 3 * len(rows) + 5
    expected = next((3 * i + 5 for i, (boot, at) in enumerate(rows) if boot == "boot-2" and at >= wanted), before)
    found = first_arrived(connection, "boot-2", wanted, before)
    assert found <= expected
    assert not [i for i in range(len(rows)) if found <= 3 * i + 5 < expected], "no row lies between"
    connection.close()
