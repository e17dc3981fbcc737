"""The verbs run, check, migrate, status, version of `edged-hub`."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable, Coroutine, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from edged import __version__
from edged.errors import ConfigError, EdgedError, ExitCode

if TYPE_CHECKING:
    from edged.hub.problems import Problem
    from edged.hub.settings import BrokerTable, HubConfig

F = TypeVar("F", bound=Callable[..., Any])

REACH_TIMEOUT_S = 5.0
_PACKAGES = ("aiohttp", "apsw", "asyncpg", "msgspec", "paho-mqtt", "pynacl", "zstandard")


class NoHub(EdgedError):
    """Raised when nobody answers on the status socket."""

    exit_code = ExitCode.UNAVAILABLE


class NoDatabase(EdgedError):
    """Raised when a verb needs the database, and it is away."""

    exit_code = ExitCode.UNAVAILABLE


def config_option(function: F) -> F:
    """--config FILE; the command receives `config: Path | None`."""
    return click.option(
        "--config",
        "-c",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Configuration, instead of /etc/edged-hub/hub.toml.",
    )(function)


def json_option(function: F) -> F:
    """--json; the command receives `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


@click.command("run")
@config_option
def run(config: Path | None) -> int:
    """Receive in the foreground, with or without systemd; SIGTERM or Ctrl-C answers what is in hand and stops.

    Starts with the database and the broker away, and serves when they come; only a configuration with problems keeps
    it from starting (exit code 78).

    \b
    Example:
      edged-hub run --config hub.toml
    """
    from edged.hub.configuration import load
    from edged.hub.supervisor import serve

    loaded = load(config)
    if loaded.broker is None and loaded.http is None:
        raise ConfigError("there is nothing to receive from", hint="add [broker] or [http] to the configuration")
    return asyncio.run(serve(loaded))


@click.command("check")
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> int:
    """Check the configuration and list every problem; whether database and broker can be reached is told as notes.

    Exits with 78 when something is wrong; notes never prevent a start.

    \b
    Example:
      edged-hub check --config hub.toml --json
    """
    from edged.hub.configuration import examine

    found = examine(config)
    notes = [*found.notes, *(asyncio.run(reach(found.config)) if found.config is not None else ())]
    if as_json:
        facts = {
            "ok": found.config is not None,
            "file": found.file,
            "problems": [problem._asdict() for problem in found.problems],
            "notes": [note._asdict() for note in notes],
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for note in notes:
            click.echo(f"note: {note.text(found.file)}")
        for problem in found.problems:
            click.echo(problem.text(found.file))
        count = len(found.problems)
        click.echo(f"{count} problem{'s' if count != 1 else ''} in {found.file}" if count else "ok")
    return ExitCode.OK if found.config is not None else ExitCode.CONFIG


async def reach(config: HubConfig) -> list[Problem]:
    """A note for each of database and broker that cannot be reached."""
    from edged.hub.problems import Problem

    notes = await _reached("database.url", _reach_database(config))
    if config.broker is not None:
        notes += await _reached("broker.url", _reach_broker(config.broker))
    return [Problem(key, text, note=True) for key, text in notes]


async def _reached(key: str, probe: Coroutine[Any, Any, list[str]]) -> list[tuple[str, str]]:
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            return [(key, finding) for finding in await probe]
    except (EdgedError, OSError) as error:  # OSError: also TimeoutError
        return [(key, f"is not reachable now: {str(error) or f'no answer within {REACH_TIMEOUT_S:.0f} s'}")]


async def _reach_database(config: HubConfig) -> list[str]:
    from edged.hub.configuration import database_url
    from edged.hub.database.opening import check as check_database

    return await check_database(database_url(config))


async def _reach_broker(table: BrokerTable) -> list[str]:
    """TCP and TLS only: whether it lets us in is told by `edged-hub status`."""
    from edged.hub.settings import DEFAULT_PORTS
    from edged.hub.tls import client_context

    url = urlsplit(table.url)
    context = client_context(table.ca_file, table.cert_file, table.key_file) if url.scheme == "mqtts" else None
    _reader, writer = await asyncio.open_connection(url.hostname, url.port or DEFAULT_PORTS[url.scheme], ssl=context)
    writer.close()
    return []


@click.command("migrate")
@config_option
def migrate(config: Path | None) -> int:
    """Bring the schema of the database up to date; doing it again, or with workers running, changes nothing.

    Exits with 69 when the database cannot be reached.

    \b
    Example:
      edged-hub migrate --config hub.toml
    """
    from edged.hub.configuration import database_url, load, make_state_dir
    from edged.hub.database.opening import migrate as migrate_database
    from edged.hub.ports import DatabaseAway

    loaded = load(config)
    make_state_dir(loaded)  # a SQLite file usually lies in it
    url = database_url(loaded)
    try:
        done = asyncio.run(migrate_database(url))
    except DatabaseAway as away:
        raise NoDatabase(away.message, hint=away.hint or "start the database") from away
    for step in done or ["nothing to do"]:
        click.echo(step)
    return ExitCode.OK


@click.command("status")
@config_option
@json_option
def status(config: Path | None, as_json: bool) -> int:
    """Show health, workers and counts of the running hub.

    Exits with 69 when no hub answers.

    \b
    Example:
      edged-hub status
      edged-hub status --json | jq .workers
    """
    from edged.hub.configuration import load

    document = fetch(load(config).hub.state_dir)
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for line in describe(document):
            click.echo(line)
    return ExitCode.OK


def fetch(state_dir: str) -> dict[str, Any]:
    """The status document of the hub with this state directory. Raises `NoHub`."""
    from edged.hub.status_socket import STATUS_PATH, ask, socket_file

    file = socket_file(state_dir)
    try:
        document = json.loads(asyncio.run(ask(file, STATUS_PATH)))
    except PermissionError as error:
        raise NoHub(f"Cannot ask the hub at {file}: permission denied", hint="run as root, or as its user") from error
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or error
        raise NoHub(f"No hub answers at {file}: {text}", hint="systemctl status edged-hub, or --config") from error
    assert isinstance(document, dict)
    return document


def describe(document: Mapping[str, Any]) -> Iterator[str]:
    """The document as lines for people."""
    yield f"hub       {'healthy' if document['healthy'] else 'not healthy'}, edged-hub {document['version']}"
    for fault in document["faults"]:
        yield f"  fault   {fault['code']}: {fault['detail']}"
    yield f"database  {document['receiver'] or 'not known yet'}"
    for worker in document["workers"]:
        state = ", ".join(worker["faults"]) or "works"
        yield (
            f"worker {worker['number']}  {state}; pid {worker['pid'] or '-'}, started {worker['starts']}×,"
            f" {worker['answered']} answers, {worker['inflight_batches']} batches in hand"
        )
    totals: dict[str, float] = {}
    for cell in document["metrics"].get("edged_hub_rows_total", ()):
        name = f"{cell['stream']} {cell['kind']}"
        totals[name] = totals.get(name, 0) + cell["value"]
    for name, value in sorted(totals.items()):
        yield f"home      {name}: {value:.0f}"


@click.command("version")
@json_option
def version(as_json: bool) -> int:
    """Print the version of edged-hub and of what it stands on.

    \b
    Example:
      edged-hub version --json
    """
    facts = {"edged-hub": __version__, "python": platform.python_version(), "machine": platform.machine()}
    facts |= {package: _installed(package) for package in _PACKAGES}
    if as_json:
        click.echo(json.dumps({name: found or None for name, found in facts.items()}))
    else:
        for name, found in facts.items():
            click.echo(f"{name:<12} {found or 'not installed'}")
    return ExitCode.OK


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
