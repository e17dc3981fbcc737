"""`edged-hub ledger`: what is home, by gateway, epoch and stream, as the database says; needs no running hub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from edged.errors import ExitCode
from edged.hub.configuration import database_url, load
from edged.hub.database.opening import open_database
from edged.hub.ports import DatabaseAway, StreamBooks
from edged.hub.verbs import NoDatabase, config_option, json_option


@click.command("ledger")
@click.option("--gateway", metavar="SITE/GATEWAY", help="Only this gateway.")
@config_option
@json_option
def ledger(gateway: str | None, config: Path | None, as_json: bool) -> int:
    """Show what is home: rows, tombstones, rows set aside, and numbers still missing.

    Exits with 69 when the database cannot be reached.

    \b
    Example:
      edged-hub ledger --gateway lyon/gw-01
    """
    shown = [books for books in _books(config) if gateway in {None, f"{books.site}/{books.gateway}"}]
    if as_json:
        click.echo(json.dumps([books._asdict() for books in shown], indent=2))
    else:
        for line in describe(shown):
            click.echo(line)
    return ExitCode.OK


def describe(shown: Sequence[StreamBooks]) -> Iterator[str]:
    """The books as lines for people."""
    if not shown:
        yield "nothing has come home yet"
    for books in shown:
        parts = f"{books.rows} rows, {books.tombstoned} tombstoned, {books.quarantined} set aside"
        yield f"{books.site}/{books.gateway}  {books.epoch}  {books.stream}: {parts}, {books.missing} missing"


def _books(config: Path | None) -> list[StreamBooks]:
    async def read() -> list[StreamBooks]:
        database = await open_database(database_url(load(config)))
        try:
            return await database.books()
        finally:
            await database.close()

    try:
        return asyncio.run(read())
    except DatabaseAway as away:
        raise NoDatabase(away.message, hint=away.hint or "start the database") from away
