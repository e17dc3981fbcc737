"""Worker processes share a database, and are killed at will."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from edged.hub.database.opening import check, migrate, open_database
from tests.integration.hub_database.samples import ask, numbers, results

REPOSITORY = Path(__file__).resolve().parents[3]


async def _start(url: str, seed: int, made: int) -> Process:
    module = "tests.integration.hub_database.committer"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, url, str(seed), str(made), stdout=PIPE, cwd=REPOSITORY
    )


async def test_several_processes_with_the_same_rows_leave_each_row_once(url: str) -> None:
    made = 2000
    workers = [await _start(url, seed, made) for seed in range(3)]

    said = await asyncio.gather(*(worker.communicate() for worker in workers))

    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert all(len(out.split()) == made // 50 * 2 for out, _ in said)
    assert await numbers(url) == list(range(1, made + 1))
    assert await ask(url, "SELECT rows, missing, upto, ranges FROM ledger") == [(made, 0, made, "[]")]


async def test_what_a_killed_worker_called_home_is_there_and_the_next_one_ends_its_work(url: str) -> None:
    made = 1500
    home: set[int] = set()
    for seed in range(6):
        worker = await _start(url, seed, made)
        assert worker.stdout is not None
        for _ in range(4 + seed):
            first, last = map(int, (await worker.stdout.readline()).split())
            home |= set(range(first, last + 1))
        worker.kill()
        await worker.wait()
        assert home <= set(await numbers(url))

    database = await open_database(url)
    try:
        answers = [await database.commit(results(first, first + 99)) for first in range(1, made, 100)]
        assert (answers[-1].upto, answers[-1].ranges) == (made, ())
        [books] = await database.books()
    finally:
        await database.close()
    assert (books.rows, books.missing) == (made, 0)
    assert await numbers(url) == list(range(1, made + 1))


async def test_workers_that_start_at_once_migrate_once(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate(empty_url) for _ in range(6)))

    assert sorted(done) == [[]] * 5 + [["schema version 1"]]
    assert await check(empty_url) == []
    assert await migrate(empty_url) == []
    workers = [await open_database(empty_url) for _ in range(2)]
    assert workers[0].receiver == workers[1].receiver
    for worker in workers:
        await worker.close()
