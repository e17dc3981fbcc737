"""`edged store`: look into the store, whether the daemon runs or not."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edged.cli.options import config_option, json_option, state_dir_option
from edged.cli.stick import export, identity, import_receipt
from edged.errors import ExitCode


@click.group("store")
def store() -> None:
    """Look into the store, and carry it home on a stick, whether the daemon runs or not. No row is changed.

    \b
    Example:
      edged store stats
    """


store.add_command(export)
store.add_command(import_receipt)
store.add_command(identity)


@store.command("stats")
@config_option
@state_dir_option
@json_option
def stats(config: tuple[Path, ...], state_dir: Path | None, as_json: bool) -> int:
    """Show what is stored: ranges, sizes, epochs, and what had to be given up.

    \b
    Example:
      edged store stats
      edged store stats --state-dir /var/lib/edged --json | jq .newest
    """
    from edged.store import inspection

    facts = inspection.stats(find_state_dir(config, state_dir))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for line in describe(facts):
            click.echo(line)
    return ExitCode.OK


@store.command("verify")
@config_option
@state_dir_option
@click.option("--quick", is_flag=True, help="Do not compare the indices with the tables.")
@json_option
def verify(config: tuple[Path, ...], state_dir: Path | None, quick: bool, as_json: bool) -> int:
    """Read everything: structure, checksums of every row, missing numbers. Exits with 74 when something is wrong.

    \b
    Example:
      edged store verify
      edged store verify --quick --json
    """
    from edged.store import inspection

    verdict = inspection.verify(find_state_dir(config, state_dir), quick=quick)
    if as_json:
        click.echo(json.dumps({"ok": verdict.ok, **asdict(verdict)}, indent=2))
    else:
        click.echo(f"{verdict.rows} rows with {verdict.events} events and {verdict.results} results read")
        for problem in verdict.problems:
            click.echo(f"damaged: {problem}")
        for stream, first, last in verdict.holes:
            click.echo(f"missing: {stream} {first} to {last}")
        click.echo("ok" if verdict.ok else "not ok: restart the daemon, it sets the file aside and salvages the rest")
    return ExitCode.OK if verdict.ok else ExitCode.IO


def find_state_dir(config: tuple[Path, ...], state_dir: Path | None) -> Path:
    """The folder that was named, or the configured one. Raises `ConfigError`."""
    if state_dir is not None:
        return state_dir
    from edged.config.loading import load

    return Path(load(config, need_models=False).gateway.state_dir)


def describe(facts: dict[str, Any]) -> list[str]:
    """The facts of `stats` as lines for people."""
    oldest, newest, epoch = facts["oldest"], facts["newest"], facts["epochs"][-1]
    lines = [f"{facts['path']}: epoch {epoch['epoch']} since {_time(epoch['since_wall_ms'])} ({epoch['reason']})"]
    if newest is None:
        lines.append("empty")
    else:
        arrived = f"{_time(oldest['arrival_wall_ms'])} to {_time(newest['arrival_wall_ms'])}"
        lines += [
            f"rows     {oldest['batch']} to {newest['batch']}, arrived {arrived}",
            f"events   {facts['events']} from {oldest['event_first']}",
            f"results  {facts['results']} from {oldest['result_first']}",
        ]
    lines.append(
        f"size     {facts['file_bytes'] / 1e6:.1f} MB, {facts['free_bytes'] / 1e6:.1f} MB of it free;"
        f" WAL {facts['wal_bytes'] / 1e6:.1f} MB"
    )
    if facts["unsent"]:
        waiting = ", ".join(f"{n} of {stream}" for stream, n in facts["unsent"].items())
        lines.append(f"not home {waiting}")
    if facts["bytes_per_day"]:
        days = facts["days_of_room"]
        room = "" if days is None else f"; room for about {days:.1f} days of what is not home"
        lines.append(f"rate     {facts['bytes_per_day'] / 1e6:.1f} MB a day now{room}")
    if facts["summary_rows"] or facts["protected_bytes"]:
        lines.append(
            f"kept     {facts['summary_rows']} summaries of what was given up ({facts['tombstone_count']} tombstones),"
            f" {facts['summary_bytes'] / 1e6:.1f} MB;"
            f" about {facts['protected_bytes'] / 1e6:.1f} MB around alarms"
        )
    lines += [
        f"given up {tombstone['n']} of stream {tombstone['stream']}, {tombstone['first']} to {tombstone['last']}:"
        f" {tombstone['reason']} since {_time(tombstone['since_wall_ms'])}"
        for tombstone in facts["tombstones"]
    ]
    return lines


def _time(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
