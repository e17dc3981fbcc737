"""A commit under pressure and a step of trimming do a bounded amount of work, however much there is to do.

Counted in rows, entries and instructions of SQLite: they do not depend on how busy the machine is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from edged.store import OpenedStore, schema
from edged.store.budget import Limits
from edged.store.cursors import Cursors
from edged.store.eviction import CHUNK_ROWS, EVICT_ENTRIES_MAX, EVICT_ROWS_MAX, Evicted, Retention
from edged.store.segment import Packer
from edged.store.trimming import PAGES_MAX, ROWS_MAX, Trimmer
from tests.doubles.clock import FakeClock
from tests.unit.store.plant import fill, opened
from tests.unit.store.samples import unit

EVERYTHING = 1 << 40
OUTWARD = frozenset(("alarm", "result", "event", "health"))


class Steps:
    """Instructions that SQLite has carried out."""

    def __init__(self) -> None:
        self.n = 0

    def count(self) -> bool:
        self.n += 10
        return False


@contextmanager
def stored(folder: Path) -> Iterator[tuple[apsw.Connection, Steps]]:
    connection = apsw.Connection(str(folder / "store.db"))
    steps = Steps()
    connection.set_progress_handler(steps.count, 10)
    yield connection, steps
    connection.close()


async def closed(folder: Path, units: int, per_unit: int) -> None:
    store: OpenedStore = await opened(folder)
    await fill(store, units, per_unit)
    await store.journal.close()


def retention(cursors: Cursors, budget_bytes: int = 1_000_000) -> Retention:
    return Retention(Limits(budget_bytes, 0, 1024, 1), 60.0, FakeClock(), cursors, Packer())


def bites(connection: apsw.Connection, kept: Retention, steps: Steps, n: int) -> list[tuple[Evicted, int]]:
    """`n` commits that want everything, and what each of them cost."""
    found = []
    for _ in range(n):
        before = steps.n
        kept.load(connection)
        found.append((kept.make_room(connection, EVERYTHING), steps.n - before))
    return found


async def test_a_bite_takes_so_many_rows_and_no_more_and_later_ones_cost_no_more_than_the_first(tmp_path: Path) -> None:
    await closed(tmp_path, 3000, 1)
    with stored(tmp_path) as (connection, steps):
        found = bites(connection, retention(Cursors(outward=OUTWARD)), steps, 10)
    assert all(0 < evicted.rows <= EVICT_ROWS_MAX + CHUNK_ROWS for evicted, _ in found)
    assert max(cost for _, cost in found) < 2 * found[0][1]


async def test_a_bite_decodes_so_many_entries_and_no_more(tmp_path: Path) -> None:
    per_unit = 200
    await closed(tmp_path, 200, per_unit)
    cursors = Cursors(events=10**9, folded=10**9, outward=OUTWARD)
    with stored(tmp_path) as (connection, steps):
        kept = retention(cursors)
        kept.load(connection)
        cursors.folded = 10**9
        found = [evicted for evicted, _ in bites(connection, kept, steps, 4)]
    most = EVICT_ENTRIES_MAX + CHUNK_ROWS * 2 * per_unit
    assert all(0 < evicted.results + evicted.events <= most for evicted in found)


@pytest.mark.parametrize("units", [300, 3000])
async def test_looking_for_free_rows_where_there_are_none_costs_the_same_in_a_small_and_a_large_store(
    tmp_path: Path, units: int
) -> None:
    await closed(tmp_path, units, 1)
    holes = tuple((2 * i, 2 * i) for i in range(1, units // 2))  # every other result is home, and nothing else
    cursors = Cursors(results=10**9, events=10**9, notice_batch=10**9, outward=OUTWARD, home={"result": holes})
    with stored(tmp_path) as (connection, steps):
        kept = retention(cursors)
        kept.load(connection)
        cursors.folded = 10**9
        steps.n = 0
        assert kept.take_free(connection, ROWS_MAX) == 0
        assert steps.n < 30_000


async def test_a_step_of_trimming_removes_so_many_rows_and_gives_so_many_pages_back(tmp_path: Path) -> None:
    await closed(tmp_path, 3000, 1)
    cursors = Cursors(results=10**9, events=10**9, notice_batch=10**9)
    with stored(tmp_path) as (connection, steps):
        kept = retention(cursors)
        kept.load(connection)
        cursors.folded = 10**9
        trimmer = Trimmer(Limits(10_000_000, 0, 1024, 1), kept)
        costs, rows, pages = [], [], []
        more = True
        while more:
            before = steps.n, _count(connection), connection.pragma("page_count")
            more = trimmer.step(connection)
            costs.append(steps.n - before[0])
            rows.append(before[1] - _count(connection))
            pages.append(before[2] - connection.pragma("page_count"))
            trimmer.took(0)  # as fast as can be: the largest steps
        assert _count(connection) == 1
    assert max(rows) == ROWS_MAX
    assert max(pages) <= PAGES_MAX * 1.01, "and the pages that say where the others are"
    assert max(costs) < 60_000


async def test_slow_steps_become_small_and_stay_so_until_they_are_quick(tmp_path: Path) -> None:
    await closed(tmp_path, 600, 1)
    cursors = Cursors(results=10**9, events=10**9, notice_batch=10**9)
    with stored(tmp_path) as (connection, _):
        kept = retention(cursors)
        kept.load(connection)
        cursors.folded = 10**9
        trimmer = Trimmer(Limits(10_000_000, 0, 1024, 1), kept)
        removed = []
        for took_us in (50_000, 50_000, 50_000, 50_000, 3_000, 100, 100):
            before = _count(connection)
            trimmer.step(connection)
            removed.append(before - _count(connection))
            trimmer.took(took_us)
        assert removed == [16, 8, 4, 4, 4, 4, 8]


def test_a_bite_ends_when_its_time_is_up() -> None:
    class Slow(FakeClock):
        def mono_ns(self) -> int:
            self.advance_us(5_000)
            return super().mono_ns()

    connection = apsw.Connection(":memory:")
    schema.migrate(connection, 0)
    connection.execute("INSERT INTO epoch VALUES (1, 'e', 'new', 1, 1, 1, 0)")
    packer = Packer()
    for i in range(200):
        made = unit(1 + i, 1, 1 + i, 1)
        numbers = (i + 1, 1 + i, 1, 1 + i, 1, 0, 0, 0, "boot-1", "synced")
        places = ",".join("?" * 14)
        connection.execute(f"INSERT INTO journal VALUES ({places})", (*numbers, *packer.segment(made)))
    kept = Retention(Limits(1_000_000, 0, 4096, 1), 60.0, Slow(), Cursors(outward=OUTWARD), packer)
    kept.load(connection)
    assert kept.make_room(connection, EVERYTHING).rows <= CHUNK_ROWS
    connection.close()


def _count(connection: apsw.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM journal").fetchone()
    assert row is not None
    return int(row[0])
