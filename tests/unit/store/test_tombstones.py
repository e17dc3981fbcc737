"""Tombstones: each number has one at most, neighbours merge, and what may be on its way is left as it is."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from edged.store import schema, tombstones
from edged.store.cursors import Cursors
from edged.store.segment import Packer, Unpacker
from edged.store.summary import HOUR_S, Summary
from edged.store.tombstones import GROWS_BYTES, ON_THE_WAY, TOMBSTONES_MAX, Graveyard
from tests.unit.store.samples import results

BUDGET = 10_000_000
FAR = {"result": 1 << 40, "event": 1 << 40}


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    made = apsw.Connection(":memory:")
    schema.migrate(made, 0)
    made.execute("INSERT INTO epoch VALUES (1, 'e', 'new', 1, 1, 1, 0)")
    yield made
    made.close()


def graveyard(connection: apsw.Connection, cursors: Cursors | None = None, budget_bytes: int = BUDGET) -> Graveyard:
    made = Graveyard(cursors or Cursors(outward=frozenset(("result",))), Packer(), Unpacker(), budget_bytes)
    made.load(connection)
    return made


def summary(first: int, last: int, device: str = "p1") -> Summary:
    columns = results(first, last - first + 1)
    columns.device = [device] * len(columns.context)
    columns.ts = [seq * 1000 for seq in range(first, last + 1)]
    made = Summary()
    made.add_results(columns, 0, len(columns.context))
    return made


def bury(graves: Graveyard, connection: apsw.Connection, first: int, last: int, reason: str = "budget") -> None:
    graves.bury(connection, "result", first, last, reason, 0, summary(first, last))


def ranges(connection: apsw.Connection, stream: str = "result") -> list[tuple[object, ...]]:
    return list(
        connection.execute("SELECT first, last, n, reason FROM tombstone WHERE stream = ? ORDER BY last", (stream,))
    )


def kept(connection: apsw.Connection, first: int) -> list[tuple[int, int]]:
    """(start of the interval in s, rows in it) of the tombstone that begins at `first`."""
    row = connection.execute(
        "SELECT a.n, a.data FROM aggregate AS a JOIN tombstone AS t ON t.id = a.tombstone"
        " WHERE t.first = ? AND t.stream = 'result'",
        (first,),
    ).fetchone()
    return [(r.start_ms // 1000, r.n) for r in Unpacker().summary(row[1], row[0])] if row else []


def many(graves: Graveyard, connection: apsw.Connection, n: int, each: int = 10) -> None:
    """So many tombstones side by side, of `each` numbers."""
    for i in range(n):
        bury(graves, connection, 1 + i * each, (i + 1) * each)


def test_no_number_gets_two_tombstones(connection: apsw.Connection) -> None:
    graves = graveyard(connection)
    bury(graves, connection, 5, 10, "rejected:bad_body")
    bury(graves, connection, 1, 20)
    assert ranges(connection) == [(1, 4, 4, "budget"), (5, 10, 6, "rejected:bad_body"), (11, 20, 10, "budget")]
    assert tombstones.uncovered(connection, "result", 1, 25) == [(21, 25)]
    assert tombstones.upto(connection, "result") == 20
    assert tombstones.upto(connection, "event") == 0
    assert graves.count == 3


def test_the_oldest_that_are_not_home_are_left_as_they_are_and_later_ones_grow(connection: apsw.Connection) -> None:
    graves = graveyard(connection)
    many(graves, connection, ON_THE_WAY + 4)
    assert [last for _, last, _, _ in ranges(connection)[:ON_THE_WAY]] == [10 * (i + 1) for i in range(ON_THE_WAY)]
    assert len(ranges(connection)) == ON_THE_WAY + 1
    first, last, n, _ = ranges(connection)[-1]
    assert (first, last, n) == (ON_THE_WAY * 10 + 1, (ON_THE_WAY + 4) * 10, 40)
    assert sum(n for _, n in kept(connection, int(str(first)))) == 40


def test_what_is_not_to_go_home_always_grows(connection: apsw.Connection) -> None:
    graves = graveyard(connection, Cursors())
    many(graves, connection, 5)
    assert ranges(connection) == [(1, 50, 50, "budget")]
    assert sum(n for _, n in kept(connection, 1)) == 50


def test_what_is_home_in_part_does_not_grow(connection: apsw.Connection) -> None:
    cursors = Cursors(outward=frozenset(("result",)))
    graves = graveyard(connection, cursors)
    many(graves, connection, ON_THE_WAY + 1)
    last = (ON_THE_WAY + 1) * 10
    cursors.home = {"result": ((last - 3, last - 2),)}
    bury(graves, connection, last + 1, last + 10)
    assert [row[1] for row in ranges(connection)[-2:]] == [last, last + 10]


def test_a_large_summary_does_not_grow(connection: apsw.Connection) -> None:
    graves = graveyard(connection, Cursors())
    first = 1
    while connection.execute("SELECT count(*) FROM tombstone").get == 1 or first == 1:
        graves.bury(connection, "result", first, first + 59, "budget", 0, summary(first, first + 59, f"device-{first}"))
        first += 60
        assert first < 1_000_000
    (size,) = connection.execute("SELECT max(length(data)) FROM aggregate").fetchone() or (0,)
    assert GROWS_BYTES < int(str(size)) < GROWS_BYTES + 500


def test_summaries_that_take_too_much_become_hours(connection: apsw.Connection) -> None:
    graves = graveyard(connection, Cursors(), budget_bytes=16 * 400)
    for hour in range(6):
        for first in (hour * 7200 + 1, hour * 7200 + 3000):
            bury(graves, connection, first, first + 500)
    for _ in range(20):
        graves.tidy(connection, FAR)
    intervals = list(connection.execute("SELECT DISTINCT interval_s FROM aggregate"))
    assert intervals == [(HOUR_S,)]
    total = sum(n for first, *_ in ranges(connection) for _, n in kept(connection, int(str(first))))
    assert total == 12 * 501
    assert graves.summary_bytes == connection.execute("SELECT total(length(data)) FROM aggregate").get


def test_neighbours_are_merged_pair_by_pair_when_there_are_too_many(connection: apsw.Connection) -> None:
    graves = graveyard(connection)
    n = TOMBSTONES_MAX + 100
    for i in range(n):
        connection.execute(
            "INSERT INTO tombstone VALUES (NULL, 'result', ?, ?, 10, 'budget', 0)", (10 * i + 1, 10 * i + 10)
        )
    connection.execute(
        "INSERT INTO aggregate SELECT id, 60, 1, ? FROM tombstone", (Packer().pack(summary(1, 10).rows()),)
    )
    graves.load(connection)
    for _ in range(n):
        graves.tidy(connection, {})
    found = ranges(connection)
    assert len(found) <= TOMBSTONES_MAX
    assert found[:ON_THE_WAY] == [(10 * i + 1, 10 * i + 10, 10, "budget") for i in range(ON_THE_WAY)]
    assert sum(int(str(row[2])) for row in found) == 10 * n
    assert [a[1] for a in found[:-1]] == [int(str(b[0])) - 1 for b in found[1:]]
    counted = connection.execute("SELECT count(*) FROM aggregate").get
    assert counted == len(found) == graves.count


def test_summaries_that_are_home_go_and_so_do_tombstones_of_which_nobody_asks(connection: apsw.Connection) -> None:
    cursors = Cursors(outward=frozenset(("result",)))
    graves = graveyard(connection, cursors)
    bury(graves, connection, 1, 10)
    graves.bury(connection, "event", 1, 10, "freed", 0)
    cursors.home = {"result": ((1, 10),)}
    graves.want_sweep()
    wanted = [graves.sweep_wanted]
    for _ in range(3):
        graves.tidy(connection, {"result": 11, "event": 11})
        wanted.append(graves.sweep_wanted)
    assert (wanted[0], wanted[-1]) == (True, False)
    assert kept(connection, 1) == []
    assert ranges(connection) == [(1, 10, 10, "budget")], "few tombstones stay, to tell what happened"
    assert ranges(connection, "event") == []
    assert graves.summary_bytes == 0


def test_a_damaged_summary_costs_only_itself(connection: apsw.Connection) -> None:
    graves = graveyard(connection, Cursors())
    bury(graves, connection, 1, 10)
    connection.execute("UPDATE aggregate SET data = x'0102030405'")
    bury(graves, connection, 11, 20)
    assert [row[:2] for row in ranges(connection)] == [(1, 20)] or len(ranges(connection)) == 2
    assert sum(n for first, *_ in ranges(connection) for _, n in kept(connection, int(str(first)))) == 10


def test_the_oldest_summary_goes_first(connection: apsw.Connection) -> None:
    graves = graveyard(connection)
    many(graves, connection, 3)
    assert graves.drop_oldest_summary(connection)
    assert (kept(connection, 1), len(kept(connection, 11))) == ([], 1)
    assert graves.drop_oldest_summary(connection)
    assert graves.drop_oldest_summary(connection)
    assert not graves.drop_oldest_summary(connection)
    assert graves.summary_bytes == 0
    assert len(ranges(connection)) == 3
