"""`edged status`: what the running daemon says about itself, for people or as JSON."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from edged.cli.options import config_option, json_option
from edged.errors import EdgedError, ExitCode

SERVICE_SOCKET = Path("/run/edged/edged.sock")
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 16_000_000


class NoDaemon(EdgedError):
    """Raised when nobody answers on the status socket."""

    exit_code = ExitCode.UNAVAILABLE


@click.command("status")
@config_option
@click.option("--socket", "path", type=click.Path(path_type=Path), help="The daemon's socket, when it is not usual.")
@json_option
def status(config: tuple[Path, ...], path: Path | None, as_json: bool) -> None:
    """Show mode, link, ledger, latencies, pipelines and store of the running daemon.

    Exits with 69 when no daemon answers.

    \b
    Example:
      edged status
      edged status --json | jq .ledger
    """
    document = fetch(path or find_socket(config))
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for line in describe(document):
        click.echo(line)


def find_socket(config: tuple[Path, ...]) -> Path:
    """The socket of the configuration; without one that of the service, where it exists."""
    if not config and SERVICE_SOCKET.exists():
        return SERVICE_SOCKET
    from edged.config.loading import load

    return Path(load(config, need_models=False).status.socket)


def fetch(path: Path) -> dict[str, object]:
    """The status document of the daemon behind `path`. Raises `NoDaemon`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            answer = _read(connection)
    except PermissionError as error:
        raise NoDaemon(
            f"Cannot ask the daemon at {path}: permission denied",
            hint="run as root, or join its group: usermod -aG edged $USER",
        ) from error
    except OSError as error:
        raise NoDaemon(
            f"No daemon answers at {path}: {error.strerror or error}",
            hint="systemctl status edged; a daemon of another configuration is found with --config or --socket",
        ) from error
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not head.startswith(b"HTTP/1.0 200 ") or not isinstance(document, dict):
        first = head.partition(b"\r\n")[0][:80].decode("utf-8", "replace") or "nothing"
        raise NoDaemon(f"{path} answers, but not with a status: {first}", hint="try again; it may be busy or not edged")
    return document


def _read(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := connection.recv(65_536):
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise OSError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def describe(document: Mapping[str, object]) -> Iterator[str]:
    """The document as lines for people; what is absent is left out."""
    identity = _table(document, "identity")
    if identity:
        yield f"gateway   {identity.get('site')}/{identity.get('gateway')}, edged {identity.get('version')}"
    yield f"mode      {document.get('mode', 'unknown')}, clock {document.get('clock', 'unknown')}"
    reasons = document.get("reasons")
    for reason in reasons if isinstance(reasons, list) else []:
        if isinstance(reason, Mapping):
            about = " ".join(str(reason[key]) for key in ("code", "subject") if reason.get(key))
            yield f"  reason  {about} since {reason.get('since')}: {reason.get('detail') or '-'}"
    yield from _pressure(_table(document, "pressure"))
    link = _table(document, "link")
    if link:
        state = f"connected, MQTT {link.get('protocol')}" if link.get("up") else "down"
        yield f"broker    {state}, {link.get('received', 0)} received, {link.get('confirmed', 0)} delivered"
    yield from _home(_table(document, "sync"))
    yield from _ledger(_table(document, "ledger"))
    for name, quantiles in _table(document, "latency_ms").items():
        if isinstance(quantiles, Mapping) and quantiles.get("count"):
            shown = ", ".join(f"{key} {_ms(quantiles.get(key))}" for key in ("p50", "p95", "p99"))
            yield f"latency   {name}: {shown}"
    for name, pipeline in _table(document, "pipelines").items():
        if isinstance(pipeline, Mapping):
            counts = ", ".join(f"{pipeline.get(key, 0)} {key}" for key in ("answered", "failed", "waiting"))
            yield f"pipeline  {name}: {pipeline.get('runtime') or 'nothing'} serves{_shares(pipeline)}, {counts}"
            yield from _rungs(pipeline.get("chain"))
    store = _table(document, "store")
    if store:
        trouble = f", trouble: {store['trouble']}" if store.get("trouble") else ""
        days = store.get("days_of_room")
        room = f", room for {days:.1f} days at today's rate" if isinstance(days, (int, float)) else ""
        yield f"store     {_mb(store.get('file_bytes'))} of {_mb(store.get('budget_bytes'))} MB{room}{trouble}"


def _shares(pipeline: Mapping[str, object]) -> str:
    """Which providers share the graph, where it is more than one."""
    placement = _table(pipeline, "placement")
    shares = [f"{nodes} nodes on {provider}" for provider, nodes in placement.items()]
    return f" ({', '.join(shares)})" if len(shares) > 1 else ""


def _rungs(chain: object) -> Iterator[str]:
    """Every runtime of a chain that has several, and what is wrong with it."""
    rungs = [rung for rung in chain if isinstance(rung, Mapping)] if isinstance(chain, list) else []
    for rung in rungs if len(rungs) > 1 or any(rung.get("code") for rung in rungs) else ():
        trouble = f": {rung['code']}: {rung.get('detail')}" if rung.get("code") else ""
        yield f"  rung    {rung.get('rung')} {rung.get('state')}{trouble}"


def _pressure(pressure: Mapping[str, object]) -> Iterator[str]:
    """How far the gateway steps back, why, and what it cannot see."""
    if not pressure:
        return
    codes, unknown = pressure.get("codes"), pressure.get("unknown")
    why = f" because of {', '.join(map(str, codes))}" if isinstance(codes, list) and codes else ""
    unseen = f"; not known: {', '.join(map(str, unknown))}" if isinstance(unknown, list) and unknown else ""
    yield f"pressure  {pressure.get('level')}{why}{unseen}"


def _home(sync: Mapping[str, object]) -> Iterator[str]:
    """The way home, where there is one."""
    if not sync:
        return
    facts = [f"receiver {sync.get('receiver') or 'not known yet'}"]
    if isinstance(sync.get("rate_kbit_s"), int):
        facts.append(f"{sync['rate_kbit_s']} kbit/s, answers after {sync.get('ack_delay_ms')} ms")
    yield f"upstream  {sync.get('state', 'starting')}, {', '.join(facts)}"
    for stream, books in _table(sync, "streams").items():
        if isinstance(books, Mapping):
            shown = ", ".join(f"{books.get(term)} {term}" for term in ("made", "home", "waiting"))
            yield f"home      {stream}: {shown}"


def _ledger(ledger: Mapping[str, object]) -> Iterator[str]:
    for side in ("inputs", "results"):
        for stream, terms in _table(ledger, side).items():
            if not isinstance(terms, Mapping):
                continue
            shown = []
            for term, value in terms.items():
                if isinstance(value, Mapping):
                    shown += [f"{count} {term} ({reason})" for reason, count in value.items()]
                else:
                    shown.append(f"{value} {term}")
            yield f"ledger    {stream}: {', '.join(shown)}"
    if ledger.get("balanced") is False:
        yield "ledger    does not add up: please report this"


def _table(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def _ms(value: object) -> str:
    return f"{value:.2f} ms" if isinstance(value, (int, float)) else "-"


def _mb(value: object) -> str:
    return f"{value / 1e6:.1f}" if isinstance(value, (int, float)) else "?"
