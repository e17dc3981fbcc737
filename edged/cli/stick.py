"""`edged store export`, `import-receipt` and `identity`: rows on a stick for sites without a link, and the way back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edged.cli.options import config_option, json_option, state_dir_option
from edged.errors import ConfigError, EdgedError, ExitCode

if TYPE_CHECKING:
    from edged.sync.keys import HubKey
    from edged.sync.protocol import Stream
    from edged.sync.stick import Receipt
    from edged.uplink.export import Exported
    from edged.uplink.export_records import ExportRecords

RECEIPTS_MAX = 1000  # looked at on one stick

hub_keys_option = click.option(
    "--hub-keys",
    "hub_keys",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Public keys of the hub, instead of the configured upstream.hub_keys_file.",
)


class Here(NamedTuple):
    """This gateway, as its configuration says."""

    site: str
    gateway: str
    state_dir: Path
    streams: tuple[Stream, ...]
    receiver: str
    hub_keys_file: Path | None


@click.command("export")
@click.option(
    "--to",
    "medium",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The stick, mounted; the export goes into its folder edged-export.",
)
@click.option("--max-bytes", type=click.IntRange(min=1), help="At most so many bytes; else what is free on the stick.")
@click.option(
    "--again", is_flag=True, help="Also what earlier exports hold that have no receipt yet: a stick was lost."
)
@hub_keys_option
@config_option
@state_dir_option
@json_option
def export(
    medium: Path,
    max_bytes: int | None,
    again: bool,
    hub_keys: Path | None,
    config: tuple[Path, ...],
    state_dir: Path | None,
    as_json: bool,
) -> int:
    """Write what is not home yet to a stick, sealed to the hub and signed: alarms first, oldest first.

    Nothing is deleted: rows are freed only by the receipt that `edged-hub import` writes. A call continues where the
    one before it ended; what has no room is left for the next stick. Exits with 74 when the stick fails or is full.

    \b
    Example:
      edged store export --to /media/stick
    """
    here = _here(config, state_dir, hub_keys)
    if not here.streams:
        raise ConfigError(
            "there is no [upstream]: this gateway keeps nothing for a hub",
            hint="say in [upstream] which streams go home, and name hub_keys_file",
        )
    done, receiver = _export(here, medium, max_bytes, again)
    if as_json:
        click.echo(json.dumps(_facts(done, receiver), indent=2))
        return ExitCode.OK
    if medium.stat().st_dev == here.state_dir.stat().st_dev:
        click.echo(f"note: {medium} is on the disk of the store: is the stick mounted?", err=True)
    for line in describe(done, receiver):
        click.echo(line)
    return ExitCode.OK


def _export(here: Here, medium: Path, max_bytes: int | None, again: bool) -> tuple[Exported, HubKey]:
    from edged import __version__
    from edged.ops import stick_keys
    from edged.ops.clock import SystemClock
    from edged.store.inspection import home_marks
    from edged.store.outward import OutwardStore
    from edged.sync import ranges
    from edged.uplink import export as filling
    from edged.uplink import export_records

    hub = _trusted(here)[0]
    secret = stick_keys.gateway_secret(here.state_dir)
    marks = home_marks(here.state_dir)
    home = {stream: ranges.normalise(marks.synced.get(stream, ())) for stream in here.streams}
    try:
        with closing(OutwardStore(here.state_dir)) as outward, export_records.held(here.state_dir) as records:
            elsewhere = {} if again else export_records.exported(records.all())
            done = filling.export(
                outward,
                records,
                medium,
                filling.Gateway(here.site, here.gateway, __version__, secret, hub, SystemClock()),
                filling.plan(outward.extents(), home, elsewhere, here.streams),
                salt=os.urandom(4),
                room=filling.Room(max_bytes),
            )
    except OSError as error:
        raise _disk(f"Exporting to {medium}", error, "is the stick still there, and writable? try again") from error
    return done, hub


def _facts(done: Exported, receiver: HubKey) -> dict[str, Any]:
    manifest = done.manifest
    return {
        "export_id": manifest.export_id if manifest else None,
        "path": str(done.path) if done.path else None,
        "receiver": receiver.fingerprint,
        "files": len(manifest.files) if manifest else 0,
        "bytes": done.size_bytes,
        "rows": manifest.rows if manifest else 0,
        "tombstoned": manifest.lost if manifest else 0,
        "left": done.left,
        "elsewhere": done.elsewhere,
        "too_large": done.too_large,
    }


def describe(done: Exported, receiver: HubKey) -> Iterator[str]:
    """What an export did, as lines for people."""
    manifest = done.manifest
    if manifest is None:
        yield "nothing to export"
    else:
        lost = f" and {manifest.lost} that were given up" if manifest.lost else ""
        files = f"{len(manifest.files)} file{'s' if len(manifest.files) != 1 else ''}"
        yield f"exported {manifest.rows} rows{lost} in {files}, {done.size_bytes / 1e6:.1f} MB: {done.path}"
        yield f"sealed to the hub {receiver.fingerprint}"
    if done.left:
        yield f"left     {done.left} had no room: export again, to this stick when it is empty or to another one"
    if done.elsewhere:
        yield f"on the way  {done.elsewhere} are in earlier exports without a receipt; --again writes them once more"
    if done.too_large:
        yield f"too large  {done.too_large} rows fit in no batch and stay here"
    if done.removed_parts:
        yield f"removed  {done.removed_parts} unfinished from this stick"


@click.command("import-receipt")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@hub_keys_option
@config_option
@state_dir_option
@json_option
def import_receipt(
    paths: tuple[Path, ...],
    hub_keys: Path | None,
    config: tuple[Path, ...],
    state_dir: Path | None,
    as_json: bool,
) -> int:
    """Take the hub's receipts: what it has committed is home, and may be deleted here.

    FILE is a receipt, or the stick: then all receipts for this gateway on it. The daemon takes them within seconds, or
    at its next start. Exits with 77 when a receipt is refused; the others count all the same.

    \b
    Example:
      edged store import-receipt /media/stick
    """
    from edged.ops.durable_files import FileTrouble
    from edged.sync.keys import StickRefused
    from edged.uplink import export_records

    here = _here(config, state_dir, hub_keys)
    hubs = _trusted(here)
    outcomes: list[dict[str, Any]] = []
    try:
        with export_records.held(here.state_dir) as records:
            for file in _receipt_files(paths, here):
                try:
                    receipt = _take_receipt(file, here, hubs, records)
                    outcomes.append(_told(file, receipt))
                except (StickRefused, FileTrouble) as refused:
                    code = refused.reason if isinstance(refused, StickRefused) else "bad_document"
                    outcomes.append(
                        {"file": str(file), "refused": code, "detail": refused.message, "try": refused.hint}
                    )
    except OSError as error:
        raise _disk("Taking receipts", error, "run as the user of the daemon: sudo -u edged edged store ...") from error
    if as_json:
        click.echo(json.dumps(outcomes, indent=2))
    else:
        for line in describe_receipts(outcomes):
            click.echo(line)
    return ExitCode.REFUSED if any("refused" in outcome for outcome in outcomes) else ExitCode.OK


def _take_receipt(file: Path, here: Here, hubs: Sequence[HubKey], records: ExportRecords) -> Receipt:
    """Verify a receipt and lay it where the daemon finds it. Raises `StickRefused`, `FileTrouble`, `OSError`."""
    from edged.ops.durable_files import make_folder, read_at_most, replace
    from edged.store.inspection import home_marks
    from edged.sync import stick
    from edged.sync.keys import StickRefused
    from edged.uplink.export_records import known_export

    data = read_at_most(file, stick.RECEIPT_MAX_BYTES)
    receipt = stick.read_receipt(data, hubs, here.site, here.gateway)
    record = known_export(records, receipt.export_id)
    stick.check_exported(receipt, record.manifest_sha256, record.contents)
    receiver = here.receiver or home_marks(here.state_dir).receiver
    if receiver and receiver != receipt.receiver:
        raise StickRefused(
            "other_receiver", f"this gateway's rows go to {receiver}, the receipt is by {receipt.receiver}"
        )
    folder = here.state_dir / "receipts"
    make_folder(folder)
    replace(folder / f"{receipt.export_id}.json", data)
    records.settle(record, receipt.home)
    return receipt


def _receipt_files(paths: Sequence[Path], here: Here) -> Iterator[Path]:
    from edged.sync import stick

    for path in paths:
        if path.is_dir():
            top = path if path.name == stick.FOLDER else path / stick.FOLDER
            found = islice((top / here.site / here.gateway).glob(f"*{stick.RECEIPT_SUFFIX}"), RECEIPTS_MAX)
            yield from sorted(found)
        else:
            yield path


def _told(file: Path, receipt: Receipt) -> dict[str, Any]:
    home = sum(last - first + 1 for part in receipt.home for first, last in part.ranges)
    return {
        "file": str(file),
        "export_id": receipt.export_id,
        "receiver": receipt.receiver,
        "home": home,
        "forked": [{"epoch": fork.epoch, "seq": fork.seq} for fork in receipt.forks],
        "not_taken": receipt.refused_n,
        "reasons": sorted({part.reason for part in receipt.refused}),
    }


def describe_receipts(outcomes: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What became of the receipts, as lines for people."""
    if not outcomes:
        yield "no receipt for this gateway there"
    for outcome in outcomes:
        if "refused" in outcome:
            yield f"refused  {outcome['file']}: {outcome['detail']}"
            if outcome["try"]:
                yield f"  try: {outcome['try']}"
            continue
        yield f"taken    export {outcome['export_id']}: {outcome['home']} home at {outcome['receiver']}"
        if outcome["forked"]:
            yield "  the hub has other rows under these numbers: this store is an old copy, its rows get a new epoch"
        if outcome["not_taken"]:
            reasons = ", ".join(outcome["reasons"])
            yield f"  {outcome['not_taken']} files were not taken ({reasons}): their rows go with the next export"


@click.command("identity")
@config_option
@state_dir_option
@json_option
def identity(config: tuple[Path, ...], state_dir: Path | None, as_json: bool) -> int:
    """Show this gateway's public key, which the hub needs to take its sticks; made on first use.

    \b
    Example:
      edged store identity > gw-03.pub
    """
    from edged.ops import stick_keys

    here = _here(config, state_dir, None)
    public = stick_keys.gateway_secret(here.state_dir).public
    if as_json:
        facts = {
            "site": here.site,
            "gateway": here.gateway,
            "key": public.line.strip(),
            "fingerprint": public.fingerprint,
        }
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(public.line, nl=False)
    return ExitCode.OK


def _here(config: tuple[Path, ...], state_dir: Path | None, hub_keys: Path | None) -> Here:
    """Raises `ConfigError`, and `EdgedError` where libsodium is missing."""
    if find_spec("nacl") is None:
        raise EdgedError(
            "Keys and sticks need the Python package pynacl, which the daemon itself does not",
            hint="pip install 'edged[stick]'",
        )
    from edged.config.loading import load

    loaded = load(config, need_models=False)
    upstream = loaded.upstream
    configured = upstream.hub_keys_file if upstream else None
    return Here(
        site=loaded.gateway.site,
        gateway=loaded.gateway.id,
        state_dir=state_dir or Path(loaded.gateway.state_dir),
        streams=upstream.streams if upstream else (),
        receiver=(upstream.receiver or "") if upstream else "",
        hub_keys_file=hub_keys or (Path(configured) if configured else None),
    )


def _trusted(here: Here) -> tuple[HubKey, ...]:
    from edged.ops import stick_keys

    if here.hub_keys_file is None:
        raise ConfigError(
            "[upstream] hub_keys_file is not set: without the hub's public key nothing can be sealed or verified",
            hint="`edged-hub keys` on the hub prints it; put it into a file and name that, or give --hub-keys FILE",
        )
    return stick_keys.trusted_hubs(here.hub_keys_file)


def _disk(doing: str, error: OSError, hint: str) -> EdgedError:
    from edged.ops.durable_files import FileTrouble

    about = f" ({error.filename})" if error.filename else ""
    return FileTrouble(f"{doing}: {error.strerror or error}{about}", hint=hint)
