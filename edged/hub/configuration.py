"""Configuration file → `HubConfig`, or every problem of it. Reads the files that it names, writes nothing."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from edged.errors import ConfigError, EdgedError
from edged.hub.problems import Problem, convert, got_text
from edged.hub.settings import DEFAULT_FILE, BrokerTable, DatabaseTable, HttpTable, HubConfig
from edged.hub.tls import client_context, server_context
from edged.hub.tokens import read_tokens

MAX_FILE_BYTES = 1_000_000
SQLITE = "sqlite:///"
DATABASE_SCHEMES = ("postgresql", "postgres", "sqlite")

T = TypeVar("T")


@dataclass(frozen=True)
class Examination:
    """`config` is there exactly when there is no problem. Notes prevent nothing."""

    file: str
    config: HubConfig | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def load(file: Path | None = None, environ: Mapping[str, str] | None = None) -> HubConfig:
    """The configuration of `file`, or of the usual place.

    Raises:
        ConfigError: with every problem found.
    """
    found = examine(file, environ)
    if found.config is None:
        count = len(found.problems)
        raise ConfigError(
            f"the configuration has {count} problem{'s' if count != 1 else ''}",
            tuple(problem.text(found.file) for problem in found.problems),
            hint="edged-hub check shows them all",
        )
    return found.config


def examine(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Examination:
    """Read and check everything that can be checked without asking another machine."""
    environ = os.environ if environ is None else environ
    path = Path(DEFAULT_FILE) if file is None else file
    raw = _read(path)
    if isinstance(raw, Problem):
        return Examination(str(path), None, (raw,), ())
    converted = convert(raw, path.absolute().parent)
    if isinstance(converted, list):
        return Examination(str(path), None, tuple(converted), ())
    config = _resolve(converted, path.absolute().parent)
    findings = [*_database(config.database, environ), *_whole(config)]
    if config.broker is not None:
        findings += _broker(config.broker, environ)
    if config.http is not None:
        findings += _http(config.http)
    problems = tuple(finding for finding in findings if not finding.note)
    notes = tuple(finding for finding in findings if finding.note)
    return Examination(str(path), None if problems else config, problems, notes)


def _read(path: Path) -> dict[str, Any] | Problem:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Problem("", "the file is too long", allowed=f"up to {MAX_FILE_BYTES} bytes")
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return Problem("", "the file does not exist", cure="give --config FILE, or start from configs/hub/hub.toml")
    except OSError as error:
        return Problem("", f"the file cannot be read: {error.strerror}", cure="check its permissions")
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested without end
        return Problem("", f"not TOML: {error}", allowed="TOML 1.0, UTF-8")


def _resolve(config: HubConfig, folder: Path) -> HubConfig:
    """Fill in what follows from other keys, and make the path of a SQLite file absolute."""
    replace = msgspec.structs.replace
    if not config.gateways.keys_dir:
        keys_dir = str(Path(config.hub.state_dir) / "keys")
        config = replace(config, gateways=replace(config.gateways, keys_dir=keys_dir))
    name = config.database.url.removeprefix(SQLITE)
    if name not in {"", config.database.url}:
        config = replace(config, database=replace(config.database, url=f"{SQLITE}{os.path.normpath(folder / name)}"))
    return config


# --- rules across keys ---


def _whole(config: HubConfig) -> Iterator[Problem]:
    if config.broker is None and config.http is None:
        cure = "add [broker], or [http]; without them only `edged-hub import` brings rows"
        yield Problem("", "nothing to receive from", cure=cure, note=True)
    for index, pattern in enumerate(config.gateways.allow):
        if pattern.count("/") != 1:
            yield Problem(f"gateways.allow[{index}]", "names no gateway", got_text("", pattern), 'like "lyon/*"')
    if config.inference is not None:
        if config.broker is None:
            yield Problem("inference.models_dir", "serves nobody", cure="add [broker]: questions come by MQTT")
        if not Path(config.inference.models_dir).is_dir():
            cure = "make it, and lay the .onnx files into it"
            yield Problem("inference.models_dir", "is no folder", f'"{config.inference.models_dir}"', cure=cure)
    sqlite = config.database.url.startswith("sqlite:")
    if sqlite and config.hub.workers > 1:
        yield Problem("hub.workers", "SQLite takes one writer at a time: more workers add nothing", note=True)
    if config.hub.metrics_listen:
        fault = _listen_fault(config.hub.metrics_listen, loopback=True)
        if fault:
            yield Problem("hub.metrics_listen", fault, config.hub.metrics_listen, "like 127.0.0.1:9109")


def _database(table: DatabaseTable, environ: Mapping[str, str]) -> Iterator[Problem]:
    yield from _files("database", table, "url_file", "password_file")
    yield from _credential("database", table.password_credential, environ)
    if bool(table.url) == bool(table.url_file):
        cure = "postgresql://user@host/database, or sqlite:///hub.db"
        yield Problem("database.url", "is missing" if not table.url else "stands beside url_file", cure=cure)
    if table.password_file and table.password_credential:
        yield Problem("database.password_file", "stands beside password_credential", cure="keep one of them")
    if not table.url:
        return
    if table.url.startswith(SQLITE) and (table.password_file or table.password_credential):
        yield Problem("database.password_file", "means nothing to SQLite", cure="remove it")
    try:
        url = urlsplit(table.url)
        password, _port = url.password, url.port
    except ValueError as error:
        yield Problem("database.url", f"is not a URL: {error}")
        return
    if url.scheme not in DATABASE_SCHEMES:
        yield Problem("database.url", "names no database", url.scheme or "no scheme", " | ".join(DATABASE_SCHEMES))
    if password is not None:
        yield Problem("database.url", "carries a password", cure="use password_file, or url_file for the whole URL")
    if url.scheme == "sqlite" and not table.url.removeprefix(SQLITE).strip("/"):
        yield Problem("database.url", "names no file", table.url, "sqlite:///hub.db, or sqlite:////var/lib/hub.db")


def _broker(table: BrokerTable, environ: Mapping[str, str]) -> Iterator[Problem]:
    faults = list(_files("broker", table, "ca_file", "cert_file", "key_file", "password_file"))
    yield from faults
    yield from _credential("broker", table.password_credential, environ)
    try:
        url = urlsplit(table.url)
        right = url.scheme in {"mqtt", "mqtts"} and url.hostname and url.path in {"", "/"} and url.port != 0
        secret = url.password is not None or url.username is not None
    except ValueError:
        right, secret = False, False
    if not right:
        yield Problem("broker.url", "is not the URL of a broker", got_text("url", table.url), "mqtt(s)://host:port")
    if secret:
        yield Problem("broker.url", "carries a user", cure="use username and password_file")
    yield from _pair("broker", table)
    if bool(table.password_file) and bool(table.password_credential):
        yield Problem("broker.password_file", "stands beside password_credential", cure="keep one of them")
    if (table.password_file or table.password_credential) and not table.username:
        yield Problem("broker.username", "is missing", cure="a password needs a user name")
    if not table.url.startswith("mqtts:") and (table.ca_file or table.cert_file):
        yield Problem("broker.url", "certificates without TLS", cure="use mqtts://, or remove ca_file and cert_file")
    elif table.url.startswith("mqtts:") and not faults:
        yield from _tries("broker.ca_file", lambda: client_context(table.ca_file, table.cert_file, table.key_file))


def _http(table: HttpTable) -> Iterator[Problem]:
    faults = list(_files("http", table, "cert_file", "key_file", "client_ca_file", "tokens_file"))
    yield from faults
    fault = _listen_fault(table.listen)
    if fault:
        yield Problem("http.listen", fault, table.listen, "like 0.0.0.0:8443 or [::]:8443")
    yield from _pair("http", table)
    if not table.client_ca_file and not table.tokens_file:
        yield Problem(
            "http.tokens_file", "is missing", cure="gateways need tokens_file or client_ca_file to be known by"
        )
    if table.client_ca_file and not table.cert_file:
        yield Problem("http.cert_file", "is missing", cure="client certificates need TLS")
    if not table.cert_file and not fault and _listen_fault(table.listen, loopback=True):
        cure = "add cert_file and key_file, or listen on loopback behind a proxy that speaks TLS"
        yield Problem("http.cert_file", "is missing: tokens would travel in the clear", cure=cure)
    if not faults:
        if table.cert_file and table.key_file:
            both = bool(table.tokens_file)
            yield from _tries(
                "http.cert_file",
                lambda: server_context(table.cert_file, table.key_file, table.client_ca_file, required=not both),
            )
        if table.tokens_file:
            yield from _tries("http.tokens_file", lambda: read_tokens(Path(table.tokens_file)))


def _pair(at: str, table: BrokerTable | HttpTable) -> Iterator[Problem]:
    if bool(table.cert_file) != bool(table.key_file):
        missing = "key_file" if table.cert_file else "cert_file"
        yield Problem(f"{at}.{missing}", "is missing", cure="certificate and key go together")


def _tries(at: str, read: Callable[[], object]) -> Iterator[Problem]:
    try:
        read()
    except EdgedError as error:
        yield Problem(at, error.message, cure=error.hint)


def _files(at: str, table: object, *names: str) -> Iterator[Problem]:
    for name in names:
        file = getattr(table, name)
        fault = file_fault(file) if file else ""
        if fault:
            cure = "create it, or check permissions"
            yield Problem(f"{at}.{name}", fault, f'"{file}"', "a file that can be read", cure=cure)


def _credential(at: str, name: str, environ: Mapping[str, str]) -> Iterator[Problem]:
    if not name:
        return
    folder = environ.get("CREDENTIALS_DIRECTORY")
    cure = f"LoadCredential={name}:/path must stand in the unit"
    if folder is None:
        yield Problem(f"{at}.password_credential", "can be checked by the service only", cure=cure, note=True)
    elif fault := file_fault(f"{folder}/{name}"):
        yield Problem(f"{at}.password_credential", fault, allowed="a credential of the service", cure=cure)


def file_fault(file: str) -> str:
    """Why the file cannot be read; "" when it can."""
    try:
        path = Path(file)
        if path.is_dir():
            return "is a folder"
        with path.open("rb") as stream:
            stream.read(1)
    except FileNotFoundError:
        return "does not exist"
    except PermissionError:
        return "must not be read by this user"
    except (OSError, ValueError) as error:  # ValueError: a zero character in the name
        return f"cannot be read: {error}"
    return ""


def split_listen(listen: str) -> tuple[str, int]:
    """`host:port` or `[host]:port` → (host, port). Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not 0 <= int(port) <= 65_535:
        raise ValueError("no port")
    return host.strip("[]"), int(port)


def _listen_fault(listen: str, *, loopback: bool = False) -> str:
    try:
        host, _port = split_listen(listen)
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return "is not an address to listen on"
    return "is not a loopback address" if loopback and not address.is_loopback else ""


def make_state_dir(config: HubConfig) -> None:
    """Blocks. Raises `EdgedError`."""
    folder = Path(config.hub.state_dir)
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise EdgedError(
            f"making the state directory {folder}: {error.strerror}", hint="[hub] state_dir chooses another folder"
        ) from None


# --- secrets ---


def secret(file: str, credential: str, environ: Mapping[str, str] | None = None) -> str:
    """The first line of a file or a systemd credential; "" when neither is named. Blocks.

    Raises:
        EdgedError: it cannot be read.
    """
    environ = os.environ if environ is None else environ
    if credential:
        folder = environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise EdgedError(
                f"reading the credential {credential}: systemd passed none",
                hint=f"LoadCredential={credential}:/path must stand in the unit",
            )
        file = f"{folder}/{credential}"
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, ValueError) as error:
        raise EdgedError(f"reading the secret {file}: {error}", hint="check that the hub's user may read it") from None


def database_url(config: HubConfig) -> str:
    """The URL of the database with its password, from wherever that stands. Blocks on files. Raises `EdgedError`."""
    table = config.database
    text = table.url or secret(table.url_file, "")
    password = secret(table.password_file, table.password_credential)
    if not password:
        return text
    url = urlsplit(text)
    user, at, host = url.netloc.rpartition("@")
    netloc = f"{user.split(':')[0]}:{quote(password, safe='')}{at or '@'}{host}"
    return urlunsplit(url._replace(netloc=netloc))
