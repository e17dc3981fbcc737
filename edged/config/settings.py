"""The whole configuration as one frozen value; the tables below `[[pipeline]]` are in `pipeline`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from edged.config.hardware import HardwareClass
from edged.config.keys import NAME_PATTERN, STRICT_TABLE, Key
from edged.config.pipeline import Pipeline

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Who and where this gateway is."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    site: Annotated[str, Key("Name of the site.", pattern=NAME_PATTERN, why="it becomes a topic level")]
    id: Annotated[str, Key("Name of this gateway at its site.", pattern=NAME_PATTERN, why="it becomes a topic level")]
    hardware_class: Annotated[
        str, Key("Kind of box: configs/classes/<name>.toml.", pattern=NAME_PATTERN, why="it becomes a file name")
    ] = "cpu"
    state_dir: Annotated[str, Key("Folder of the store, the models and the identity.", is_file=True)] = "/var/lib/edged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The plant's broker: sensors in, results out."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    url: Annotated[str, Key("mqtt://host:port, or mqtts:// for TLS; ports default to 1883 and 8883.")]
    ca_file: Annotated[str | None, Key("Certificates (PEM) that the broker's is checked against.", is_file=True)] = None
    cert_file: Annotated[str | None, Key("Our certificate (PEM) for mutual TLS.", is_file=True)] = None
    key_file: Annotated[str | None, Key("Private key (PEM) of our certificate.", is_file=True)] = None
    username: Annotated[str | None, Key("User name.", max_chars=1024, why="brokers refuse longer ones")] = None
    password_file: Annotated[str | None, Key("File whose first line is the password.", is_file=True)] = None
    password_credential: Annotated[
        str | None,
        Key(
            "Name of the systemd credential that is the password.",
            pattern=r"^[A-Za-z0-9_.-]{1,255}$",
            why="it becomes a file name",
        ),
    ] = None
    client_id: Annotated[
        str,
        Key(
            "MQTT client id; absent: edged-{site}-{id}.",
            max_chars=256,
            why="unique on the broker: two clients with one id throw each other out",
        ),
    ] = ""
    protocol: Annotated[
        Literal["auto", "5", "3.1.1"], Key("MQTT version; auto: 5, and 3.1.1 when the broker refuses it.")
    ] = "auto"
    keep_alive_s: Annotated[
        int,
        Key(
            "Silence after which the link is probed; a dead link is noticed within twice this time.",
            why="below 5 s a slow link flaps, above 300 s a dead one goes unnoticed",
            ge=5,
            le=300,
        ),
    ] = 15
    session_expiry_s: Annotated[
        int,
        Key(
            "How long the broker keeps our session and its queue while we are away.",
            why="MQTT carries 32 bits; a session that ends at once would lose events at every restart",
            ge=60,
            le=4_294_967_295,
        ),
    ] = 604_800
    receive_maximum: Annotated[
        int,
        Key(
            "Unacknowledged messages that we ask the broker to keep to (MQTT 5).",
            why="MQTT carries 16 bits; 0 is forbidden",
            unit="messages",
            ge=1,
            le=65_535,
        ),
    ] = 2000
    max_unacked_count: Annotated[
        int,
        Key(
            "Messages that may wait unsafe in memory before reading pauses.",
            why="each costs memory until its commit",
            unit="messages",
            ge=16,
            le=1_000_000,
        ),
    ] = 4000
    max_unacked_bytes: Annotated[
        int,
        Key(
            "Payload bytes that may wait unsafe in memory before reading pauses.",
            why="memory is bounded by this, not by the broker's good will",
            ge=65_536,
            le=4_000_000_000,
        ),
    ] = 32_000_000
    max_inflight_out: Annotated[
        int,
        Key(
            "Results in flight to the broker at most; the broker's own limit applies too.",
            why="packet ids have 16 bits",
            unit="messages",
            ge=1,
            le=65_535,
        ),
    ] = 2000

    @property
    def tls(self) -> bool:
        """True when the link is encrypted."""
        return self.url.startswith("mqtts:")

    @property
    def host(self) -> str:
        """Host name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port, by default the one of the scheme."""
        parts = urlsplit(self.url)
        return parts.port or DEFAULT_PORTS[parts.scheme]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """How much is kept on disk, and how often it is written."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    budget_bytes: Annotated[
        int,
        Key(
            "Disk space for everything below state_dir, WAL and models included.",
            why="below 16 MB there is no room for a snapshot and a WAL; 64 TB is more than a gateway has",
            ge=16_000_000,
            le=64_000_000_000_000,
        ),
    ] = 2_000_000_000
    commit_linger_ms: Annotated[
        int,
        Key(
            "0: commit at once when idle. More: wait this long to commit more at once, for fewer flash writes.",
            why="acknowledgements wait that long; beyond a second brokers and people notice",
            ge=0,
            le=1000,
        ),
    ] = 0
    free_floor_bytes: Annotated[
        int,
        Key(
            "Free space on the file system that is never used up; below it old data is evicted.",
            why="0 lets the disk fill up, which stops the whole machine",
            ge=1_000_000,
            le=1_000_000_000_000,
        ),
    ] = 200_000_000
    keep_bytes: Annotated[
        int,
        Key(
            "Rows that nobody needs any more stay while the database is no larger; beyond it space is given back.",
            why="0 keeps no history at all; more than the budget is never reached",
            ge=0,
            le=64_000_000_000_000,
        ),
    ] = 64_000_000
    alarm_surroundings_s: Annotated[
        float,
        Key(
            "Rows this close to an alarm are given up after all others, within a quarter of the budget.",
            why="beyond a day everything is close to some alarm",
            ge=0,
            le=86_400,
        ),
    ] = 60.0
    snapshot_interval_s: Annotated[
        int,
        Key(
            "Time between snapshots of windows, duplicates and calibration.",
            why="a restart replays what came since; each snapshot is a write",
            ge=1,
            le=86_400,
        ),
    ] = 60
    max_batch_events: Annotated[
        int,
        Key(
            "Most events in one commit.",
            why="a batch is held in memory and its latency is everybody's",
            unit="events",
            ge=1,
            le=100_000,
        ),
    ] = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkplug:
    """Sparkplug B names that differ from the defaults."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    group: Annotated[
        str | None, Key("Group id; absent: the site.", pattern=NAME_PATTERN, why="it becomes a topic level")
    ] = None
    primary_host: Annotated[
        str | None,
        Key("Host whose state is waited for.", pattern=NAME_PATTERN, why="it becomes a topic level"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """In which forms results leave, and for how long they are worth sending."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    json: Annotated[bool, Key("Publish results as JSON below edged/v1/{site}/{id}.")] = True
    sparkplug: Annotated[
        bool | Sparkplug, Key("Publish results as Sparkplug B too: true, or a table [results.sparkplug].")
    ] = False
    last_interval_ms: Annotated[
        int,
        Key(
            "Shortest time between two retained `last` values of one device.",
            why="0 sends each result twice",
            ge=0,
            le=3_600_000,
        ),
    ] = 1000
    result_expiry_s: Annotated[
        int,
        Key(
            "Age at which the broker may drop a result that nobody has fetched.",
            why="MQTT carries 32 bits; 0 would mean at once",
            ge=1,
            le=4_294_967_295,
        ),
    ] = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The centre that keeps every row; without this table the gateway is fully offline."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    url: Annotated[
        str,
        Key(
            "The hub's broker, mqtt:// or mqtts://host:port, or the hub itself, http:// or https://host:port/path;"
            " absent: there is no line, rows leave on a stick.",
        ),
    ] = ""
    ca_file: Annotated[str | None, Key("Certificates (PEM) that the hub's is checked against.", is_file=True)] = None
    cert_file: Annotated[str | None, Key("Our certificate (PEM) for mutual TLS.", is_file=True)] = None
    key_file: Annotated[str | None, Key("Private key (PEM) of our certificate.", is_file=True)] = None
    username: Annotated[
        str | None, Key("User name at the broker.", max_chars=1024, why="brokers refuse longer ones")
    ] = None
    password_file: Annotated[str | None, Key("File whose first line is the password.", is_file=True)] = None
    password_credential: Annotated[
        str | None,
        Key(
            "Name of the systemd credential that is the password.",
            pattern=r"^[A-Za-z0-9_.-]{1,255}$",
            why="it becomes a file name",
        ),
    ] = None
    token_file: Annotated[str | None, Key("File whose first line is the bearer token for https.", is_file=True)] = None
    client_id: Annotated[
        str,
        Key(
            "MQTT client id; absent: edged-up-{site}-{id}.",
            max_chars=256,
            why="unique on the broker: two clients with one id throw each other out",
        ),
    ] = ""
    protocol: Annotated[
        Literal["auto", "5", "3.1.1"], Key("MQTT version; auto: 5, and 3.1.1 when the broker refuses it.")
    ] = "auto"
    streams: Annotated[
        tuple[Literal["alarm", "result", "health", "telemetry"], ...],
        Key(
            "What is sent home. Telemetry are the events as they came: many times the bytes of the results.",
            min_items=1,
            why="a table that sends nothing is a mistake",
        ),
    ] = ("alarm", "result", "health")
    rate_limit_kbit_s: Annotated[
        int,
        Key(
            "Most bandwidth that sending may take. Alarms count, but never wait for it.",
            why="below 8 kbit/s a batch takes minutes; above 10 Gbit/s it is no limit",
            ge=8,
            le=10_000_000,
        ),
    ] = 256
    window: Annotated[
        int,
        Key(
            "Batches on their way at once; one place is kept for alarms.",
            why="with one an alarm waits for the backlog; each may take 1 MB of memory",
            unit="batches",
            ge=2,
            le=8,
        ),
    ] = 4
    live_interval_ms: Annotated[
        int,
        Key(
            "How long new results gather before they leave together. Alarms leave at once.",
            why="0 sends a batch per commit; beyond a minute live is not live",
            ge=0,
            le=60_000,
        ),
    ] = 1000
    reconnect_spread_s: Annotated[
        int,
        Key(
            "After a connect the backlog waits a random part of this time; the hub may ask for more.",
            why="0 lets a fleet return at once; beyond an hour nothing would ever come home",
            ge=0,
            le=3600,
        ),
    ] = 30
    health_interval_s: Annotated[
        int,
        Key(
            "Time between two samples of the health in the stream `health`.",
            why="each is a row that is kept and sent; a day without one looks like a dead gateway",
            ge=10,
            le=86_400,
        ),
    ] = 300
    infer_limit_kbit_s: Annotated[
        int,
        Key(
            "Most bandwidth that questions of `split:upstream` may take, and those of cascades as much again; both"
            " beside rate_limit_kbit_s.",
            why="below 8 kbit/s one question takes seconds; what it takes, alarms and results cannot have",
            ge=8,
            le=10_000_000,
        ),
    ] = 64
    receiver: Annotated[
        str | None,
        Key(
            "Identity of the only hub whose answers count; absent: the first one that answers.",
            max_chars=128,
            why="the protocol carries no longer names",
        ),
    ] = None
    hub_keys_file: Annotated[
        str | None, Key("Public keys of the hub, for `edged store export` to a stick.", is_file=True)
    ] = None

    @property
    def tls(self) -> bool:
        """True when the link is encrypted."""
        return urlsplit(self.url).scheme in {"mqtts", "https"}

    @property
    def http(self) -> bool:
        """True when batches are posted to the hub itself, False when they go through a broker."""
        return urlsplit(self.url).scheme in {"http", "https"}

    @property
    def host(self) -> str:
        """Host name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port, by default the one of the scheme."""
        parts = urlsplit(self.url)
        return parts.port or DEFAULT_PORTS[parts.scheme]

    @property
    def path(self) -> str:
        """What stands before the paths of the protocol, without a slash at its end; empty over MQTT."""
        return urlsplit(self.url).path.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What is trusted."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    allow_unsigned: Annotated[bool, Key("Allow models that nobody signed (model.path).")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where local tools and Prometheus look."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    socket: Annotated[
        str,
        Key(
            "Unix socket of `edged status`; absent: /run/edged/edged.sock as a service, else {state_dir}/edged.sock.",
            is_file=True,
        ),
    ] = ""
    metrics_listen: Annotated[
        str | None, Key("Loopback host:port for Prometheus; absent: only on the Unix socket.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that keep one bad sensor from using up the gateway; what exceeds them is counted and reported."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    max_devices: Annotated[
        int,
        Key(
            "Devices that are kept apart; events of further ones are refused.",
            why="each device is state in memory and in the snapshot",
            unit="devices",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    max_payload_bytes: Annotated[
        int,
        Key(
            "Largest payload that is decoded.",
            why="MQTT carries 256 MB; parsing takes a multiple of it in memory",
            ge=64,
            le=268_435_455,
        ),
    ] = 1_000_000
    max_events_per_message: Annotated[
        int,
        Key("Most events in one message.", why="they are committed at once", unit="events", ge=1, le=1_000_000),
    ] = 10_000
    dedup_keys: Annotated[
        int,
        Key(
            "Event keys remembered to recognise duplicates of sensors without sequence numbers.",
            why="memory; redelivery repeats at most what was unacknowledged",
            unit="keys",
            ge=1024,
            le=10_000_000,
        ),
    ] = 65_536
    gap_grace_ms: Annotated[
        int,
        Key(
            "How long a missing sequence number may come late before it is a gap.",
            why="0 reports reordering as loss; beyond a minute a loss is news too late",
            ge=0,
            le=60_000,
        ),
    ] = 1000
    device_stale_s: Annotated[
        int,
        Key("Silence after which a device is stale.", why="a second is clock noise", ge=1, le=86_400),
    ] = 60
    device_offline_s: Annotated[
        int,
        Key("Silence after which a device is offline.", why="a second is clock noise", ge=1, le=604_800),
    ] = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the daemon was told. `load` fills in what depends on other keys (client id, socket, chains)."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    gateway: Annotated[Gateway, Key("Who and where this gateway is.")]
    broker: Annotated[Broker, Key("The plant's broker.")]
    store: Annotated[Store, Key("Disk.")] = Store()
    pipeline: Annotated[
        tuple[Pipeline, ...],
        Key(
            "The pipelines, as [[pipeline]] tables; files in conf.d add theirs.",
            min_items=1,
            max_items=256,
            why="without one nothing is subscribed; each has a model in memory",
        ),
    ]
    results: Annotated[Results, Key("Results.")] = Results()
    upstream: Annotated[Upstream | None, Key("The centre.")] = None
    security: Annotated[Security, Key("What is trusted.")] = Security()
    status: Annotated[Status, Key("Local tools.")] = Status()
    limits: Annotated[Limits, Key("Bounds.")] = Limits()
    hardware: Annotated[HardwareClass, Key("Overrides single keys of the hardware class, rarely needed.")] = field(
        default_factory=HardwareClass
    )

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The pipelines; TOML calls the table `pipeline`."""
        return self.pipeline

    @property
    def root(self) -> str:
        """Topic under which everything is published, R in the documentation."""
        return f"edged/v1/{self.gateway.site}/{self.gateway.id}"
