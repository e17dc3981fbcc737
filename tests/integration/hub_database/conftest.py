"""A database of each kind, migrated and open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edged.hub.database.opening import migrate, open_database
from edged.hub.ports import Database
from tests.doubles.postgres import Postgres, own_postgres, postgres

__all__ = ["own_postgres", "postgres"]

CONNECTING = "asyncpg looks for ~/.pgpass and certificates on the loop whenever it connects"


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.allow_blocking(reason=CONNECTING)), "sqlite"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    cluster: Postgres = request.getfixturevalue("postgres")
    return cluster.url(cluster.database())


@pytest.fixture
async def url(empty_url: str) -> str:
    await migrate(empty_url)
    return empty_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = await open_database(url)
    yield opened
    await opened.close()


@pytest.fixture
async def postgres_url(postgres: Postgres) -> str:
    """Of a migrated database in the cluster that all tests share."""
    url = postgres.url(postgres.database())
    await migrate(url)
    return url
