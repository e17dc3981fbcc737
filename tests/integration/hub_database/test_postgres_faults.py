"""The server dies, hangs, or the line to it is cut: nothing that was called home is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from edged.hub.database.opening import migrate, open_database
from edged.hub.ports import Database, DatabaseAway
from edged.sync.protocol import Ack
from tests.doubles.chaos_link import AfterBytes, ChaosLink, Direction
from tests.doubles.postgres import Postgres, kill_and_start
from tests.integration.hub_database.conftest import CONNECTING
from tests.integration.hub_database.samples import ask, hello, lost, numbers, results

pytestmark = pytest.mark.allow_blocking(reason=CONNECTING)

ROWS = 40
END_CONNECTIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'edged-hub' AND datname = current_database()
"""


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[Database]:
    opened = await open_database(postgres_url, timeout_s=1.0)
    yield opened
    await opened.close()


async def _until_home(database: Database, first: int, last: int) -> Ack:
    while True:
        try:
            return await database.commit(results(first, last))
        except DatabaseAway:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_line_cut_at_any_byte_of_a_commit_leaves_each_row_once(
    postgres: Postgres, direction: Direction
) -> None:
    """Every byte towards the gateway is tried, of those towards the server every fortieth and all of the last 200."""
    name = postgres.database()
    url = postgres.url(name)
    await migrate(url)
    with ChaosLink(postgres.port) as link:
        database = await open_database(postgres.url(name, port=link.port), connections=1)
        try:
            await _until_home(database, 1, ROWS)
            before = link.passed_bytes(direction)
            await _until_home(database, ROWS + 1, 2 * ROWS)
            size = link.passed_bytes(direction) - before
            places = [*range(1, size, 40 if direction == "up" else 1), *range(max(1, size - 200), size)]
            home, failed = 2 * ROWS, 0
            for place in places:
                link.arm(AfterBytes(direction, place))
                try:
                    await database.commit(results(home + 1, home + ROWS))
                except DatabaseAway:
                    failed += 1
                ack = await _until_home(database, home + 1, home + ROWS)
                home += ROWS
                assert (ack.status, ack.upto, ack.ranges) == ("ok", home, ())
                await database.commit(results(home - 1, home))  # a fresh connection has asked for its types
            [books] = await database.books()
        finally:
            await database.close()

    assert failed > len(places) * 0.9
    assert (books.rows, books.missing, books.quarantined) == (home, 0, 0)
    assert await numbers(url) == list(range(1, home + 1))


async def test_a_server_killed_in_the_middle_of_commits_keeps_what_was_called_home(own_postgres: Postgres) -> None:
    url = own_postgres.url(own_postgres.database())
    await migrate(url)
    chance = random.Random(7)
    workers = [await open_database(url, timeout_s=5.0) for _ in range(2)]
    called_home: set[int] = set()
    made, size = 40_000, 800

    async def commit_all(worker: Database, firsts: list[int]) -> None:
        for first in firsts:
            await _until_home(worker, first, min(made, first + size - 1))
            called_home.update(range(first, min(made, first + size - 1) + 1))

    async def kill_often() -> None:
        for _ in range(6):
            await asyncio.sleep(chance.uniform(0.01, 0.1))  # somewhere in the stream of commits
            before = called_home.copy()
            await kill_and_start(own_postgres)
            assert before <= set(await numbers(url))

    in_order = list(range(1, made, 700))
    any_order = chance.sample(in_order, len(in_order))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(commit_all(workers[0], in_order))
            group.create_task(commit_all(workers[1], any_order))
            group.create_task(kill_often())
        [books] = await workers[0].books()
    finally:
        for worker in workers:
            await worker.close()

    assert called_home == set(range(1, made + 1))
    assert await numbers(url) == list(range(1, made + 1))
    assert (books.rows, books.missing, books.quarantined) == (made, 0, 0)


async def test_what_was_answered_before_the_kill_is_there_after_it(own_postgres: Postgres) -> None:
    url = own_postgres.url(own_postgres.database())
    await migrate(url)
    database = await open_database(url)
    try:
        for round_ in range(5):
            ack = await _until_home(database, 500 * round_ + 1, 500 * round_ + 500)
            await kill_and_start(own_postgres)
            assert await numbers(url) == list(range(1, ack.upto + 1))
        assert (await _until_home(database, 1, 2500)).upto == 2500
    finally:
        await database.close()


async def test_a_server_that_hangs_is_given_up_in_time_and_serves_again_later(own_postgres: Postgres) -> None:
    url = own_postgres.url(own_postgres.database())
    await migrate(url)
    database = await open_database(url, timeout_s=0.3)
    await database.commit(results(1, 10))
    own_postgres.freeze()
    try:
        for attempt in (database.commit(results(11, 20)), database.hello(hello()), database.books()):
            async with asyncio.timeout(15):
                with pytest.raises(DatabaseAway):
                    await attempt
    finally:
        own_postgres.thaw()

    assert (await _until_home(database, 11, 20)).upto == 20
    assert await numbers(url) == list(range(1, 21))
    own_postgres.freeze()
    async with asyncio.timeout(15):
        await database.close()
    own_postgres.thaw()


async def test_a_row_that_somebody_holds_locked_is_waited_for_only_so_long(
    postgres_database: Database, postgres_url: str
) -> None:
    await postgres_database.commit(results(1, 10))
    stranger = await asyncpg.connect(postgres_url)
    try:
        async with stranger.transaction():
            await stranger.execute("SELECT FROM stream FOR UPDATE")
            with pytest.raises(DatabaseAway, match="statement timeout"):
                await postgres_database.commit(results(11, 20))
    finally:
        await stranger.close()

    assert (await postgres_database.commit(results(11, 20))).upto == 20


async def test_connections_that_the_server_ends_are_made_anew(postgres_database: Database, postgres_url: str) -> None:
    await postgres_database.commit(results(1, 10))
    await ask(postgres_url, END_CONNECTIONS)

    assert (await _until_home(postgres_database, 11, 20)).upto == 20


async def test_a_database_that_takes_no_writes_is_away_until_it_does(
    postgres_database: Database, postgres_url: str
) -> None:
    """As a standby that became the server's name, before somebody promotes it."""
    name = postgres_url.rpartition("/")[2]
    await ask(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await ask(postgres_url, END_CONNECTIONS)
    errors = []
    for _ in range(3):
        with pytest.raises(DatabaseAway) as caught:
            await postgres_database.commit(results(1, 10))
        errors.append(str(caught.value))
    assert any("read-only" in error for error in errors)

    owner = await asyncpg.connect(postgres_url, server_settings={"default_transaction_read_only": "off"})
    await owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await owner.execute(END_CONNECTIONS)
    await owner.close()
    assert (await _until_home(postgres_database, 1, 10)).upto == 10


async def test_tables_that_were_dropped_are_asked_for_with_the_cure(
    postgres_database: Database, postgres_url: str
) -> None:
    await ask(postgres_url, "DROP TABLE receiver CASCADE")

    with pytest.raises(DatabaseAway, match="edged-hub migrate"):
        await postgres_database.commit(results(1, 10))


async def test_a_commit_that_is_cancelled_leaves_a_usable_database(
    postgres_database: Database, postgres_url: str
) -> None:
    for round_ in range(20):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.0005 * round_):
                await postgres_database.commit(results(1, 3000))

    ack = await _until_home(postgres_database, 1, 3000)
    assert ack.upto == 3000
    assert await numbers(postgres_url) == list(range(1, 3001))


async def test_an_older_database_put_back_under_a_running_hub_gets_its_rows_with_their_contexts(
    postgres_database: Database, postgres_url: str
) -> None:
    await postgres_database.commit(results(1, 10))
    await ask(postgres_url, "TRUNCATE result, context")
    await ask(postgres_url, "TRUNCATE stream")

    ack = await postgres_database.commit(results(1, 10))

    assert ack.upto == 10
    assert await numbers(postgres_url, "results") == list(range(1, 11)), "the view: every row has its context"


async def test_another_database_under_the_same_url_answers_with_its_own_name(
    postgres_database: Database, postgres_url: str
) -> None:
    first = (await postgres_database.hello(hello())).receiver
    await ask(postgres_url, "UPDATE receiver SET id = gen_random_uuid()")

    assert (await postgres_database.commit(results(1, 1))).receiver != first
    assert (await postgres_database.hello(hello())).receiver == postgres_database.receiver != first


@pytest.mark.parametrize("table", ["result", "event", "record"])
async def test_the_key_of_a_large_table_holds_the_time_so_that_it_can_be_partitioned(
    postgres_url: str, table: str
) -> None:
    """TimescaleDB and native partitions demand the same: every unique index contains the column of the partitions."""
    await ask(postgres_url, f"CREATE TABLE parts (LIKE {table} INCLUDING ALL) PARTITION BY RANGE (ts)")
    await ask(postgres_url, "CREATE TABLE part PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')")


async def test_an_index_scan_finds_the_row_of_a_probe(postgres_database: Database, postgres_url: str) -> None:
    await postgres_database.commit(results(1, 4000))
    await ask(postgres_url, "ANALYZE result")

    plan = await ask(postgres_url, "EXPLAIN SELECT * FROM result WHERE stream_id = 1 AND seq = 7")

    assert "Index Scan" in plan[0][0]


async def test_gateways_do_not_wait_for_each_other(postgres_database: Database, postgres_url: str) -> None:
    await postgres_database.commit(results(1, 10, gateway="stuck"))
    stranger = await asyncpg.connect(postgres_url)
    try:
        async with stranger.transaction():
            await stranger.execute("SELECT FROM stream FOR UPDATE")
            await postgres_database.commit(results(1, 10, gateway="free"))
            await postgres_database.commit(lost(11, 20, gateway="free"))
    finally:
        await stranger.close()
