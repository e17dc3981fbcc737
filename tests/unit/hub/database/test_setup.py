"""TimescaleDB is used where it is loaded, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from edged.hub.database.postgres_setup import hypertables


class Server:
    """Answers as a server with or without the extension would."""

    def __init__(self, preloaded: str, available: bool, *, failing: bool = False) -> None:
        self._answers = {"SHOW shared_preload_libraries": preloaded}
        self._available = available
        self._failing = failing
        self.executed: list[str] = []

    async def fetchval(self, query: str) -> Any:
        return self._answers.get(query, self._available)

    async def execute(self, query: str) -> None:
        if self._failing:
            raise asyncpg.InsufficientPrivilegeError("no right to make an extension")
        self.executed.append(" ".join(query.split()))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield


async def test_large_tables_become_hypertables_where_the_extension_is_loaded() -> None:
    server = Server("timescaledb", True)

    assert await hypertables(server) == ["hypertable result", "hypertable event"]
    assert server.executed[0] == "CREATE EXTENSION IF NOT EXISTS timescaledb"
    assert server.executed[1].startswith("SELECT create_hypertable('result', 'ts'")


async def test_a_server_that_has_not_loaded_it_is_left_alone() -> None:
    for server in (Server("", True), Server("pg_stat_statements", True), Server("timescaledb", False)):
        assert await hypertables(server) == []
        assert server.executed == []


async def test_a_refused_extension_is_said_and_stops_nothing() -> None:
    assert await hypertables(Server("timescaledb", True, failing=True)) == [
        "no hypertables: no right to make an extension"
    ]
