"""What the link counts. Mutable while it runs, handed out as a frozen snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class LinkStatistics(NamedTuple):
    """Totals since the link was made, and what is open now (`unacked_*`, `inflight`, `write_buffer_bytes`)."""

    received: int
    received_bytes: int
    oversize: int
    acks_sent: int
    acks_stale: int
    published: int
    confirmed: int
    confirms_unknown: int
    publishes_refused: int
    pauses: int
    forced_reads: int
    attempts: int
    connects: int
    takeovers: int
    violations: int
    half_open: int
    unacked_count: int
    unacked_bytes: int
    inflight: int
    write_buffer_bytes: int


@dataclass(slots=True)
class Counters:
    """The totals; names as in `LinkStatistics`."""

    received: int = 0
    received_bytes: int = 0
    oversize: int = 0
    acks_sent: int = 0
    acks_stale: int = 0
    published: int = 0
    confirmed: int = 0
    confirms_unknown: int = 0
    publishes_refused: int = 0
    pauses: int = 0
    forced_reads: int = 0
    attempts: int = 0
    connects: int = 0
    takeovers: int = 0
    violations: int = 0
    half_open: int = 0
