"""The hub's configuration as one frozen value: meaning, bounds and their reasons stand beside each key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

DEFAULT_FILE = "/etc/edged-hub/hub.toml"
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
SHARE_GROUP = "edged-hub"
NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
CREDENTIAL_PATTERN = r"^[A-Za-z0-9_.-]{1,255}$"


def _key(
    doc: str,
    *,
    why: str = "",
    ge: int | None = None,
    le: int | None = None,
    pattern: str | None = None,
    file: bool = False,
) -> Meta:
    """What a key means; a bound comes with its reason. file: a path, relative to the folder of the configuration."""
    extra: dict[str, Any] = {"why": why, "file": file}
    bounds: dict[str, Any] = {"ge": ge, "le": le, "pattern": pattern}
    return Meta(description=doc, extra=extra, **bounds)


Text = Annotated[str, Meta(min_length=1)]  # an empty text never means anything; absent is the default ""
_Name = Annotated[str, Meta(pattern=NAME_PATTERN)]


class Table(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A table of the configuration. Defaults do not travel to a worker: "" would not pass its own check."""


class Hub(Table, frozen=True, kw_only=True):
    """The process."""

    state_dir: Annotated[Text, _key("Folder of the status socket, and of the keys for sticks.", file=True)] = (
        "/var/lib/edged-hub"
    )
    workers: Annotated[
        int,
        _key(
            "Processes that receive; each has its own connection to the broker and to the database.",
            why="one per processor core is enough, the database is the limit before that",
            ge=1,
            le=64,
        ),
    ] = 1
    sites: Annotated[
        tuple[_Name, ...], _key("Sites to subscribe to; empty: every site.", why="a site is a topic level")
    ] = ()
    metrics_listen: Annotated[
        Text, _key("host:port on loopback for `/status` and `/metrics`, beside the socket in state_dir.")
    ] = ""


class DatabaseTable(Table, frozen=True, kw_only=True):
    """Where rows end: `postgresql://…`, or `sqlite:///…` for one site."""

    url: Annotated[
        Text, _key("postgresql://user@host/database, or sqlite:///hub.db, which is relative to this file.")
    ] = ""
    url_file: Annotated[Text, _key("File whose first line is the URL, password and all.", file=True)] = ""
    password_file: Annotated[Text, _key("File whose first line is the password.", file=True)] = ""
    password_credential: Annotated[
        Text,
        _key(
            "Name of the systemd credential that is the password.",
            why="it becomes a file name",
            pattern=CREDENTIAL_PATTERN,
        ),
    ] = ""
    migrate_at_start: Annotated[
        bool, _key("Bring the schema up to date when the hub starts; false: only `edged-hub migrate` does.")
    ] = True


class BrokerTable(Table, frozen=True, kw_only=True):
    """The broker between gateways and hub; absent: HTTP or sticks only."""

    url: Annotated[Text, _key("mqtt://host:port, or mqtts:// for TLS; ports default to 1883 and 8883.")]
    ca_file: Annotated[Text, _key("Certificates (PEM) that the broker's is checked against.", file=True)] = ""
    cert_file: Annotated[Text, _key("Our certificate (PEM) for mutual TLS.", file=True)] = ""
    key_file: Annotated[Text, _key("Private key (PEM) of our certificate.", file=True)] = ""
    username: Annotated[Text, _key("User name.")] = ""
    password_file: Annotated[Text, _key("File whose first line is the password.", file=True)] = ""
    password_credential: Annotated[
        Text,
        _key(
            "Name of the systemd credential that is the password.",
            why="it becomes a file name",
            pattern=CREDENTIAL_PATTERN,
        ),
    ] = ""
    protocol: Annotated[
        Literal["auto", "5", "3.1.1"], _key("MQTT version; auto: 5, and 3.1.1 when the broker refuses it.")
    ] = "auto"
    client_id_prefix: Annotated[
        Text,
        _key(
            "Client ids begin with it; the worker's number and a random part follow.",
            why="with both parts it stays below the 23 characters that every broker takes",
            pattern=r"^[A-Za-z0-9_-]{1,11}$",
        ),
    ] = "edged-hub"
    shared: Annotated[
        bool,
        _key("Workers share one subscription; false: each gets everything, for brokers without shared subscriptions."),
    ] = True
    root: Annotated[
        str,
        _key(
            "Topics begin with it, then site and gateway.", why="no wildcards in it", pattern=r"^[^#+/$][^#+]*[^#+/]$"
        ),
    ] = "edged/v1"
    keep_alive_s: Annotated[
        int,
        _key(
            "Silence after which the broker is probed; a dead link is noticed within twice this time.",
            why="below 5 s a slow link flaps, above 300 s a dead one goes unnoticed",
            ge=5,
            le=300,
        ),
    ] = 15


class HttpTable(Table, frozen=True, kw_only=True):
    """The same batches over HTTPS; absent: off. Gateways show a token, or a certificate with CN `site/gateway`."""

    listen: Annotated[Text, _key("host:port; [::]:8443 for every address.")]
    cert_file: Annotated[Text, _key("The server's certificate (PEM); without one it is plain HTTP.", file=True)] = ""
    key_file: Annotated[Text, _key("Private key (PEM) of the certificate.", file=True)] = ""
    client_ca_file: Annotated[
        Text, _key("Certificates (PEM) that gateways' certificates are checked against.", file=True)
    ] = ""
    tokens_file: Annotated[
        Text,
        _key("Lines of `token site/gateway`, or `sha256:hex site/gateway`; read again when it changes.", file=True),
    ] = ""


class GatewaysTable(Table, frozen=True, kw_only=True):
    """Who may bring rows."""

    allow: Annotated[
        tuple[str, ...], _key("Patterns of site/gateway, * stands for anything; others are refused: foreign_gateway.")
    ] = ("*/*",)
    keys_dir: Annotated[Text, _key("Folder of the keys for sticks; absent: `keys` below state_dir.", file=True)] = ""


class InferenceTable(Table, frozen=True, kw_only=True):
    """Models that gateways may ask: tails of split ones and whole ones, by digest; absent: none. Needs [broker]."""

    models_dir: Annotated[
        Text,
        _key("Folder with the .onnx files that are served; who may write there decides what runs here.", file=True),
    ]
    threads: Annotated[
        int,
        _key("Questions computed at once in each worker.", why="a call takes a processor core", ge=1, le=64),
    ] = 1
    max_waiting: Annotated[
        int,
        _key(
            "Questions that may wait in each worker; further ones are refused: busy.",
            why="each may take 2 MB, and what waits long is answered too late",
            ge=1,
            le=1024,
        ),
    ] = 16
    max_models: Annotated[
        int,
        _key("Models kept loaded in each worker; the one longest unused goes.", why="memory", ge=1, le=256),
    ] = 4
    max_model_bytes: Annotated[
        int,
        _key(
            "Largest model file that is loaded.",
            why="loading takes several times its size in memory",
            ge=1_000,
            le=4_000_000_000,
        ),
    ] = 512_000_000
    max_rows: Annotated[
        int,
        _key("Most rows in one question.", why="a call's memory grows with them", ge=1, le=65_536),
    ] = 256


class LimitsTable(Table, frozen=True, kw_only=True):
    """How much one worker holds at once; beyond it the answer is `retry`, reason busy."""

    max_inflight_batches: Annotated[
        int, _key("Batches in hand.", why="each may have 1 MiB; fewer than 4 starve the database", ge=4, le=1024)
    ] = 64
    max_inflight_bytes: Annotated[
        int, _key("Bytes of the batches in hand.", why="at least four of the largest", ge=4_300_000, le=1_073_741_824)
    ] = 33_554_432
    max_inflight_per_gateway: Annotated[
        int, _key("Batches in hand of one gateway.", why="a gateway's window is 4", ge=1, le=1024)
    ] = 8
    commits: Annotated[
        int,
        _key(
            "Batches that are decoded and committed at once.",
            why="a decoded batch takes up to some 50 MB for a moment",
            ge=1,
            le=64,
        ),
    ] = 4
    commit_timeout_s: Annotated[
        int,
        _key(
            "A commit that takes longer is given up: `retry`, reason database_slow.",
            why="gateways send again after 30 s without an answer",
            ge=1,
            le=300,
        ),
    ] = 20


class HubConfig(Table, frozen=True, kw_only=True):
    """All of it. Made by `edged.hub.configuration.load`, which fills in what follows from other keys."""

    hub: Hub = Hub()
    database: DatabaseTable = DatabaseTable()
    broker: BrokerTable | None = None
    http: HttpTable | None = None
    gateways: GatewaysTable = GatewaysTable()
    inference: InferenceTable | None = None
    limits: LimitsTable = LimitsTable()
