"""Opening, migrating and checking: what does not fit is said with its cure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.hub.database.opening import check, migrate, open_database
from edged.hub.database.trouble import DatabaseUnfit, shown
from edged.hub.ports import DatabaseAway
from tests.doubles.broker import free_port
from tests.doubles.postgres import Postgres
from tests.integration.hub_database.conftest import CONNECTING
from tests.integration.hub_database.samples import ask


async def test_a_database_without_tables_is_refused_with_the_cure(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        await asyncio.to_thread(Path(empty_url.removeprefix("sqlite:///")).touch)

    with pytest.raises(DatabaseUnfit, match="edged-hub migrate"):
        await open_database(empty_url)

    [finding] = await check(empty_url)
    assert "edged-hub migrate" in finding


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    await ask(url, "INSERT INTO schema_version (version) VALUES (99)")

    with pytest.raises(DatabaseUnfit, match="newer edged-hub"):
        await open_database(url)
    with pytest.raises(DatabaseUnfit, match="version 99"):
        await migrate(url)
    assert "newer" in (await check(url))[0]


@pytest.mark.allow_blocking(reason=CONNECTING)
async def test_a_server_that_is_not_there_is_away_and_its_password_is_not_shown() -> None:
    url = f"postgresql://hub:secret@127.0.0.1:{free_port()}/edged"

    for attempt in (open_database, migrate):
        with pytest.raises(DatabaseAway) as caught:
            await attempt(url)
        assert caught.value.retryable
        assert "secret" not in str(caught.value)
    [finding] = await check(url)
    assert "hub:***@127.0.0.1" in finding


async def test_a_file_that_is_not_there_or_no_database_is_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    with pytest.raises(DatabaseAway):
        await open_database(url)
    assert "edged-hub migrate" in (await check(url))[0]
    with pytest.raises(DatabaseAway, match="create its folder"):
        await migrate(f"sqlite:///{tmp_path / 'no' / 'hub.db'}")

    await asyncio.to_thread((tmp_path / "hub.db").write_bytes, b"no database at all " * 1000)
    with pytest.raises(DatabaseAway):
        await open_database(url)
    with pytest.raises(DatabaseAway):
        await migrate(url)
    assert "opening" in (await check(url))[0]


async def test_a_damaged_file_is_found_by_the_check(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    await migrate(f"sqlite:///{path}")
    whole = await asyncio.to_thread(path.read_bytes)
    await asyncio.to_thread(path.write_bytes, whole[: len(whole) // 2])

    assert await check(f"sqlite:///{path}") != []


@pytest.mark.parametrize("url", ["mysql://root:geheim@db/x", "sqlite:///", "sqlite:/x", ""])
async def test_another_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_database(url)
    assert "geheim" not in str(caught.value)


def test_passwords_are_not_shown_wherever_they_stand() -> None:
    assert shown("postgresql://u:geheim@h/d") == "postgresql://u:***@h/d"
    assert shown("postgresql://u@h/d?password=geheim&x=1") == "postgresql://u@h/d?password=***&x=1"
    assert shown("postgresql://u@h/d") == "postgresql://u@h/d"


@pytest.mark.allow_blocking(reason=CONNECTING)
async def test_a_server_that_could_lose_or_refuse_rows_is_found_by_the_check(tmp_path: Path) -> None:
    careless = Postgres({"fsync": "off", "full_page_writes": "off"})
    try:
        await asyncio.to_thread(careless.start)
        latin = careless.url(await asyncio.to_thread(careless.database, "-E", "LATIN1"))
        await migrate(latin)
        await ask(latin, "CREATE ROLE visitor LOGIN")
        await ask(latin, "GRANT SELECT ON schema_version TO visitor")
        findings = await check(latin.replace("postgres@", "visitor@"))
        with pytest.raises(DatabaseUnfit, match="owner"):
            await migrate(careless.url(await asyncio.to_thread(careless.database)).replace("postgres@", "visitor@"))
    finally:
        await asyncio.to_thread(careless.remove)

    assert any("LATIN1" in finding for finding in findings)
    assert any(finding.startswith("fsync is off") for finding in findings)
    assert any(finding.startswith("full_page_writes is off") for finding in findings)
    assert sum("may not write" in finding for finding in findings) == 10
