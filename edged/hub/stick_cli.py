"""`edged-hub import` and `edged-hub keys`: sticks from sites without a link."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.errors import EdgedError, ExitCode
from edged.hub.configuration import database_url, load
from edged.hub.database import opening
from edged.hub.decisions import Sender, allowed
from edged.hub.ports import DatabaseAway
from edged.hub.stick import Importer, Outcome, take
from edged.hub.verbs import config_option, json_option
from edged.ops.clock import SystemClock
from edged.ops.durable_files import replace
from edged.ops.stick_folder import find_exports, open_export
from edged.ops.stick_keys import gateway_key, hub_secret
from edged.sync import stick
from edged.sync.keys import StickRefused

if TYPE_CHECKING:
    from edged.hub.settings import HubConfig
    from edged.ops.stick_folder import Found
    from edged.sync.keys import GatewayKey

EXPORTS_MAX = 10_000  # on one stick


class NoExport(EdgedError):
    """Raised when there is nothing to import."""

    exit_code = ExitCode.IO


class AwayForImport(EdgedError):
    """Raised when the database does not take what is on the stick; what it took before stays."""

    exit_code = ExitCode.UNAVAILABLE


@click.command("keys")
@config_option
@json_option
def keys(config: Path | None, as_json: bool) -> int:
    """Show this hub's public key, which gateways need to seal sticks to it; made on first use.

    \b
    Example:
      edged-hub keys > hub.pub
    """
    public = hub_secret(Path(load(config).hub.state_dir)).public
    if as_json:
        click.echo(json.dumps({"key": public.line.strip(), "fingerprint": public.fingerprint}, indent=2))
    else:
        click.echo(public.line, nl=False)
    return ExitCode.OK


@click.command("import")
@click.argument("medium", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--receipt-to",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Write the receipts here, too: for a stick that cannot be written, or receipts that go another way.",
)
@config_option
@json_option
def import_stick(medium: Path, receipt_to: Path | None, config: Path | None, as_json: bool) -> int:
    """Take every export on a stick, and write a signed receipt beside each. Doing it again changes nothing.

    Exits with 77 when anything is refused (all the rest is taken), and with 69 when the database is away.

    \b
    Example:
      edged-hub import /media/stick
    """
    outcomes = _import(load(config), medium, _find(medium), receipt_to)
    if as_json:
        click.echo(json.dumps([_facts(outcome) for outcome in outcomes], indent=2))
    else:
        for line in describe(outcomes):
            click.echo(line)
    return ExitCode.OK if all(outcome.ok for outcome in outcomes) else ExitCode.REFUSED


def _find(medium: Path) -> list[Found]:
    try:
        found = list(islice(find_exports(medium), EXPORTS_MAX + 1))
    except OSError as error:
        raise NoExport(
            f"Importing from {medium}: {error.strerror or error}", hint="name the folder that holds edged-export"
        ) from error
    if len(found) > EXPORTS_MAX:
        raise StickRefused("too_many", f"{medium} holds more than {EXPORTS_MAX} exports")
    if not found:
        raise NoExport(f"Importing from {medium}: there is no export", hint="edged store export --to DIR writes one")
    return found


def _import(config: HubConfig, medium: Path, found: Sequence[Found], receipt_to: Path | None) -> list[Outcome]:
    """Everything that reads files comes before the loop. Raises `AwayForImport`."""
    url, secret, clock = database_url(config), hub_secret(Path(config.hub.state_dir)), SystemClock()

    async def work() -> list[Outcome]:
        if config.database.migrate_at_start:
            await opening.migrate(url)
        database = await opening.open_database(url)
        try:
            importer = Importer(database, secret, partial(_key_of, config), clock)
            return [await take_one(medium, one, importer, receipt_to) for one in found]
        finally:
            await database.close()

    try:
        return asyncio.run(work())
    except DatabaseAway as away:
        raise AwayForImport(
            f"Importing from {medium}: {away.message}",
            hint="start the database, and import again: what was taken is not taken twice; only receipts that were"
            " written count",
            retryable=True,
        ) from away


def _key_of(config: HubConfig, site: str, gateway: str) -> GatewayKey:
    """Raises `StickRefused` (`foreign_gateway`, `bad_key`) for a gateway that may not bring sticks."""
    if not allowed(Sender(site, gateway), config.gateways.allow, config.hub.sites):
        raise StickRefused("foreign_gateway", f"the configuration does not allow rows of {site}/{gateway}")
    return gateway_key(Path(config.gateways.keys_dir), site, gateway)


async def take_one(medium: Path, found: Found, importer: Importer, receipt_to: Path | None) -> Outcome:
    """Import one export and write its receipt. Raises `DatabaseAway`."""
    if found.refused:
        detail = "the stick was pulled out while it was written; its rows are still at the gateway"
        return Outcome(found.site, found.gateway, found.export_id, refused=found.refused, detail=detail)
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(open_export(medium, found))
        except OSError as error:
            detail = error.strerror or str(error)
            return Outcome(found.site, found.gateway, found.export_id, refused="unreadable", detail=detail)
        outcome = await take(found, reader, importer)
    if outcome.receipt:
        await asyncio.to_thread(_write_receipt, medium, outcome, receipt_to)
    return outcome


def _write_receipt(medium: Path, outcome: Outcome, receipt_to: Path | None) -> None:
    """Beside the export and where it was asked for. Raises `NoExport` when it is nowhere."""
    top = medium if medium.name == stick.FOLDER else medium / stick.FOLDER
    name = f"{outcome.export_id}{stick.RECEIPT_SUFFIX}"
    if receipt_to is not None:
        replace(receipt_to / f"{outcome.site}.{outcome.gateway}.{name}", outcome.receipt, 0o644)
    try:
        replace(top / outcome.site / outcome.gateway / name, outcome.receipt, 0o644)
    except OSError as error:
        if receipt_to is None:
            raise NoExport(
                f"Writing the receipt of {outcome.export_id}: {error.strerror or error}",
                hint="its rows are in the database: import again with --receipt-to DIR, nothing is taken twice",
            ) from error


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts = asdict(outcome)
    del facts["receipt"]
    facts["files"] = [{"name": name, "refused": code, "detail": detail} for name, code, detail in outcome.files]
    facts["forks"] = [{"epoch": fork.epoch, "seq": fork.seq} for fork in outcome.forks]
    return {"ok": outcome.ok, **facts}


def describe(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What became of the exports, as lines for people."""
    for outcome in outcomes:
        name = f"{outcome.site}/{outcome.gateway}/{outcome.export_id}"
        if outcome.refused:
            yield f"refused  {name}: {outcome.refused}: {outcome.detail.removeprefix(outcome.refused + ': ')}"
            if outcome.hint:
                yield f"  try: {outcome.hint}"
            continue
        new = outcome.home - outcome.before
        yield f"taken    {name}: {new} new, {outcome.before} were home already"
        if outcome.forks:
            yield "  forked: other rows are here under these numbers; nothing was taken, the receipt tells the gateway"
        if outcome.bad_rows:
            yield f"  {outcome.bad_rows} rows could not be stored and were set aside"
        if outcome.left:
            yield f"  {outcome.left} more had no room on the stick"
        for file, code, detail in outcome.files[:10]:
            yield f"  refused {file}: {code}: {detail.removeprefix(code + ': ')}"
        if len(outcome.files) > 10:
            yield f"  and {len(outcome.files) - 10} files more"
