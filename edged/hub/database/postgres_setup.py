"""The schema in PostgreSQL: made, brought up to date, looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from edged.errors import EdgedError
from edged.hub.database.postgres import AWAY, CONNECT_TIMEOUT_S, schema_version
from edged.hub.database.postgres_schema import (
    HYPERTABLES,
    MIGRATIONS,
    TIMESCALE_AVAILABLE,
    TIMESCALE_CHUNKS,
    TIMESCALE_MAKE,
    VERSION,
)
from edged.hub.database.trouble import DatabaseUnfit, away, not_migrated, shown

LOCK = 0x65_64_67_65_64  # "edged": of all locks that an application may take, this one is the migration's
OLDEST_SERVER = 130_000
VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())
"""
_DURABLE = ("fsync", "full_page_writes")
_RIGHTS = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relname = ANY ($1::text[])
  AND NOT has_table_privilege(c.oid, 'SELECT, INSERT')
"""
_WRITTEN = ("gateway", "stream", "context", "result", "event", "record", "clock", "tombstone", "summary", "quarantine")


@asynccontextmanager
async def _connected(url: str, doing: str) -> AsyncIterator[Any]:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
        try:
            yield connection
        finally:
            connection.terminate()  # locks go with it; an orderly end would wait for a server that is gone
    except asyncpg.InsufficientPrivilegeError as error:
        hint = "grant CREATE on the schema to this user, or migrate as the database's owner"
        raise DatabaseUnfit(f"{doing} {shown(url)}: {error}", hint=hint) from error
    except AWAY as error:
        raise away(f"{doing} {shown(url)}", error) from error


async def migrate(url: str) -> list[str]:
    """What was done, in words. The lock lets one migrate while the others wait, and then find nothing to do."""
    done: list[str] = []
    async with _connected(url, "migrating") as connection:
        await connection.fetchval("SELECT pg_advisory_lock($1)", LOCK)
        found = await schema_version(connection)
        if found > VERSION:
            raise not_migrated(found, VERSION)
        await connection.execute(VERSION_TABLE)
        for version in range(found + 1, VERSION + 1):
            async with connection.transaction():
                await connection.execute(MIGRATIONS[version - 1])
                await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", version)
            done.append(f"schema version {version}")
        if not found:
            done += await hypertables(connection)
    return done


async def hypertables(connection: Any) -> list[str]:
    """Where TimescaleDB is loaded, the large tables become its own; without it they stay what they are."""
    if "timescaledb" not in await connection.fetchval("SHOW shared_preload_libraries"):
        return []  # making the extension would end the connection
    if not await connection.fetchval(TIMESCALE_AVAILABLE):
        return []
    try:
        async with connection.transaction():
            await connection.execute(TIMESCALE_MAKE)
            for table in HYPERTABLES:
                await connection.execute(TIMESCALE_CHUNKS.format(table=table))
    except asyncpg.PostgresError as error:
        return [f"no hypertables: {error}"]
    return [f"hypertable {table}" for table in HYPERTABLES]


async def check(url: str) -> list[str]:
    """What is wrong, each with its cure."""
    try:
        async with _connected(url, "checking") as connection:
            return [finding async for finding in _findings(connection)]
    except EdgedError as error:
        return [str(error)]


async def _findings(connection: Any) -> AsyncIterator[str]:
    number = int(await connection.fetchval("SHOW server_version_num"))
    if number < OLDEST_SERVER:
        yield f"PostgreSQL {number // 10_000}: expected {OLDEST_SERVER // 10_000} or newer; try: upgrade the server"
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        yield f"the database's encoding is {encoding}, not UTF8; try: createdb --encoding UTF8 --template template0"
    for name in _DURABLE:
        if await connection.fetchval(f"SHOW {name}") != "on":
            yield f"{name} is off: a power cut loses rows that were called home; try: {name} = on"
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        yield "this server is a standby, it takes no rows; try: the primary, or ?target_session_attrs=read-write"
    found = await schema_version(connection)
    if found != VERSION:
        yield str(not_migrated(found, VERSION))
        return
    for row in await connection.fetch(_RIGHTS, list(_WRITTEN)):
        yield f"this user may not write the table {row[0]}; try: GRANT SELECT, INSERT, UPDATE ON {row[0]} TO …"
