"""The file of a site: held by somebody, put back from a copy, full, gone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from edged.hub.database.opening import migrate
from edged.hub.database.sqlite import SqliteDatabase, open_sqlite
from edged.hub.database.trouble import DatabaseUnfit
from edged.hub.ports import DatabaseAway
from tests.integration.hub_database.samples import ask, numbers, results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
async def site(path: Path) -> AsyncIterator[SqliteDatabase]:
    await migrate(f"sqlite:///{path}")
    opened = await open_sqlite(str(path), timeout_s=0.2)
    yield opened
    await opened.close()


async def test_a_file_that_somebody_holds_is_away_and_serves_again_later(site: SqliteDatabase, path: Path) -> None:
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseAway) as caught:
        await site.commit(results(1, 10))
    assert caught.value.retryable
    holder.execute("ROLLBACK")
    holder.close()

    assert (await site.commit(results(1, 10))).upto == 10


async def test_a_commit_that_is_cancelled_is_whole_or_not_there(site: SqliteDatabase, path: Path) -> None:
    for _ in range(5):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await site.commit(results(1, 3000))

    assert (await site.commit(results(1, 3000))).upto == 3000
    assert await numbers(f"sqlite:///{path}") == list(range(1, 3001))


async def test_an_older_copy_put_in_the_place_of_the_file_is_noticed(site: SqliteDatabase, path: Path) -> None:
    await site.commit(results(1, 10))
    copy = path.with_suffix(".copy")
    await ask(f"sqlite:///{path}", f"VACUUM INTO '{copy}'")
    await site.commit(results(11, 20))
    for name in ("hub.db-wal", "hub.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    shutil.move(copy, path)

    ack = await site.commit(results(21, 30))

    assert (ack.upto, ack.ranges) == (10, ((21, 30),))
    assert await numbers(f"sqlite:///{path}") == [*range(1, 11), *range(21, 31)]


async def test_a_file_that_is_gone_is_away_and_an_empty_one_unfit(site: SqliteDatabase, path: Path) -> None:
    await site.commit(results(1, 10))
    path.unlink()
    with pytest.raises(DatabaseAway):
        await site.commit(results(11, 20))
    path.touch()
    with pytest.raises(DatabaseUnfit):
        await site.commit(results(11, 20))


async def test_a_full_disk_is_away_and_leaves_nothing_half_done(site: SqliteDatabase, path: Path) -> None:
    await site.commit(results(1, 10))

    def limit(connection: apsw.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").get
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def unlimited(connection: apsw.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1000000")

    await site.run("limiting", limit)
    with pytest.raises(DatabaseAway):
        await site.commit(results(11, 5000))
    await site.run("freeing", unlimited)

    assert await numbers(f"sqlite:///{path}") == list(range(1, 11))
    assert (await site.commit(results(11, 5000))).upto == 5000


async def test_an_answered_commit_was_synced_to_the_disk(site: SqliteDatabase) -> None:
    def settings(connection: apsw.Connection) -> tuple[object, object]:
        return connection.execute("PRAGMA journal_mode").get, connection.execute("PRAGMA synchronous").get

    assert await site.run("asking", settings) == ("wal", 2)
