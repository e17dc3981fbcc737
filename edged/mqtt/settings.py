"""What the link needs to know. Plain values; secrets are named here and read at each connect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edged.errors import LinkError
from edged.mqtt.backoff import Backoff
from edged.mqtt.session import WantedVersion
from edged.mqtt.topics import filter_problem, text_problem, topic_problem

MAX_BLOB_BYTES = 65_535  # binary data carries its length in two bytes (MQTT 5, 1.5.6)

Secret = bytes | Path | Callable[[], bytes] | None
"""A password: itself, the file it stands in, or a function that gets it. Read at each connect, so it may change."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files in PEM, read at each connect. `ca_file` None trusts the system's store; a certificate needs its key."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""  # expected in the broker's certificate; empty: the host we connect to


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """One connection to one broker.

    filters: subscribed at QoS 1. max_unacked_*: received but not yet safe, beyond them reading pauses.
    max_packet_bytes: larger inbound messages arrive as `Oversize`. max_inflight_out: our bound beside the broker's.
    max_publish_bytes: our bound beside the broker's, because not every broker tells its own, and mosquitto confirms
    on 3.1.1 what it dropped as too large.
    canary_topic: published to and subscribed on 3.1.1, where a denied publish looks like a successful one.
    ack_timeout_s: no PUBACK for so long with publishes in flight means that the connection is dead.
    patience_most: on a line where these times and the keep-alive are too short they grow up to so many times.
    """

    host: str
    client_id: str
    port: int = 1883
    tls: TlsSettings | None = None
    username: str | None = None
    password: Secret = field(default=None, repr=False)
    protocol: WantedVersion = "auto"
    keep_alive_s: int = 15
    session_expiry_s: int = 604_800
    receive_maximum: int = 2_000
    max_inflight_out: int = 1_000
    filters: tuple[str, ...] = ()
    will_topic: str = ""
    will_payload: bytes = b""
    will_delay_s: int = 5
    canary_topic: str = ""
    canary_timeout_s: float = 5.0
    max_unacked_count: int = 4_000
    max_unacked_bytes: int = 64_000_000
    max_packet_bytes: int = 8_000_000
    max_publish_bytes: int = 1_000_000
    max_write_buffer_bytes: int = 1_000_000
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 20.0
    patience_most: float = 1.0
    backoff: Backoff = field(default_factory=Backoff)

    def patient(self, factor: float) -> LinkSettings:
        """The same with all waiting times of a connection `factor` times as long."""
        return replace(
            self,
            connect_timeout_s=self.connect_timeout_s * factor,
            ack_timeout_s=self.ack_timeout_s * factor,
            keep_alive_s=min(65_535, round(self.keep_alive_s * factor)),
        )

    def __post_init__(self) -> None:
        problems = [f"filter {wanted!r} {why}" for wanted in self.filters if (why := filter_problem(wanted))]
        for name in ("will_topic", "canary_topic"):
            topic = getattr(self, name)
            if topic and (why := topic_problem(topic)):
                problems.append(f"{name} {topic!r} {why}")
        if self.password is not None and self.username is None:
            problems.append("a password without a user name (MQTT 3.1.1 forbids it)")
        for name in ("client_id", "username"):
            text = getattr(self, name)
            if text is not None and (why := text_problem(text)):
                problems.append(f"{name} {text!r} {why}")
        if len(self.will_payload) > MAX_BLOB_BYTES:
            problems.append(f"will_payload has {len(self.will_payload)} bytes, allowed are {MAX_BLOB_BYTES}")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                problems.append(f"{name} is {value}, allowed are {low} to {high}")
        if problems:
            raise LinkError(f"link settings for {self.host}:{self.port}: " + "; ".join(problems))


_BOUNDS = (
    ("port", 1, 65_535),
    ("keep_alive_s", 1, 65_535),  # 0 would leave half-open connections unnoticed
    ("session_expiry_s", 0, 0xFFFF_FFFF),
    ("receive_maximum", 1, 65_535),
    ("max_inflight_out", 1, 65_535),
    ("max_unacked_count", 1, 1_000_000),
    ("max_unacked_bytes", 1, 1 << 40),
    ("max_packet_bytes", 1_024, 1 << 30),
    ("max_publish_bytes", 1_024, 1 << 30),
)


def read_secret(secret: Secret) -> bytes | None:
    """The secret's present value; a trailing line end of a file is not part of it. Blocks: call it off the loop."""
    if isinstance(secret, Path):
        try:
            value: bytes | None = secret.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise LinkError(
                f"reading the broker password from {secret}: {error.strerror}",
                hint="the file must exist and be readable by the user the daemon runs as",
                retryable=True,
            ) from None
    else:
        value = secret() if callable(secret) else secret
    if value is not None and len(value) > MAX_BLOB_BYTES:
        raise LinkError(f"reading the broker password: {len(value)} bytes, allowed are {MAX_BLOB_BYTES}")
    return value
