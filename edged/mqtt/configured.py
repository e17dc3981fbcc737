"""The link of a configuration: its `[broker]` table, the subscriptions of its pipelines, its Will."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edged.mqtt.settings import LinkSettings, TlsSettings

if TYPE_CHECKING:
    from edged.config.settings import Broker, Config, Upstream

PACKET_OVERHEAD_BYTES = 70_000  # a topic has at most 65 535 bytes; what is left are properties


def link_settings(config: Config, will: bytes) -> LinkSettings:
    """The link of this configuration; passwords are read at each connect, so that a rotated one is used."""
    broker = config.broker
    return LinkSettings(
        host=broker.host,
        port=broker.port,
        client_id=broker.client_id,
        tls=tls_settings(broker),
        username=broker.username,
        password=password_of(broker),
        protocol=broker.protocol,
        keep_alive_s=broker.keep_alive_s,
        session_expiry_s=broker.session_expiry_s,
        receive_maximum=broker.receive_maximum,
        max_inflight_out=broker.max_inflight_out,
        filters=tuple(dict.fromkeys(text for pipeline in config.pipelines for text in pipeline.topics)),
        will_topic=f"{config.root}/state",
        will_payload=will,
        canary_topic=f"{config.root}/meta/canary",
        max_unacked_count=broker.max_unacked_count,
        max_unacked_bytes=broker.max_unacked_bytes,
        max_packet_bytes=config.limits.max_payload_bytes + PACKET_OVERHEAD_BYTES,
    )


def tls_settings(link: Broker | Upstream) -> TlsSettings | None:
    """The TLS files of an address that asks for TLS; None for one that does not."""
    if not link.tls:
        return None
    ca, cert, key = (Path(name) if name else None for name in (link.ca_file, link.cert_file, link.key_file))
    return TlsSettings(ca, cert, key)


def password_of(link: Broker | Upstream) -> Path | None:
    """The file that the password stands in."""
    if link.password_file:
        return Path(link.password_file)
    if link.password_credential:
        return Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / link.password_credential
    return None
