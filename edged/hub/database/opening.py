"""Which database a URL names: opening it, bringing its schema up to date, looking at what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.errors import ConfigError
from edged.hub.database import postgres_setup, sqlite_setup
from edged.hub.database.postgres import TIMEOUT_S, open_postgres
from edged.hub.database.sqlite import open_sqlite
from edged.hub.database.trouble import shown

if TYPE_CHECKING:
    from edged.hub.ports import Database

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")


async def open_database(url: str, *, connections: int = 2, timeout_s: float = TIMEOUT_S) -> Database:
    """The database of one worker.

    url: postgresql://user@host/database (as libpq knows it), or sqlite:///relative or sqlite:////absolute.
    connections: at most so many at once, to PostgreSQL. timeout_s: of a statement, and of the wait for a lock.
    Raises `DatabaseAway`; `DatabaseUnfit` when the schema is not this program's; `ConfigError` for another URL.
    """
    if path := _sqlite_path(url):
        return await open_sqlite(path, timeout_s=timeout_s)
    return await open_postgres(url, connections=connections, timeout_s=timeout_s)


async def migrate(url: str) -> list[str]:
    """Bring the schema up to date, and say what was done. Several may do so at once. Refuses a newer schema."""
    if path := _sqlite_path(url):
        return await sqlite_setup.migrate(path)
    return await postgres_setup.migrate(url)


async def check(url: str) -> list[str]:
    """What is wrong with the database, each with its cure; nothing when all is well."""
    if path := _sqlite_path(url):
        return await sqlite_setup.check(path)
    return await postgres_setup.check(url)


def _sqlite_path(url: str) -> str:
    """ "" for a URL of PostgreSQL."""
    if url.startswith(POSTGRES):
        return ""
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        return url.removeprefix(SQLITE)
    raise ConfigError(f"[database] url = {shown(url)!r}: expected postgresql://… or sqlite:///…")
