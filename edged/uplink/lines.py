"""What daemon and uplink say to each other: one line of JSON each, on the pipes of the child process."""

from __future__ import annotations

from typing import Any

import msgspec

from edged.config.settings import Upstream
from edged.errors import EdgedError
from edged.sync.protocol import Range, Stream

LINE_MAX_BYTES = 131_072
RANGES_PER_LINE = 500
DETAIL_MAX_CHARS = 500


class Line(msgspec.Struct, tag_field="is", frozen=True, kw_only=True):
    """Base of all lines: `is` names which one."""


# --- daemon → uplink --------------------------------------------------------------------------------------------


class Start(Line, tag="start", frozen=True, kw_only=True):
    """The first line. receiver: the hub that answered first in former times; empty when none has yet."""

    site: str
    gateway: str
    version: str
    state_dir: str
    upstream: Upstream
    receiver: str = ""


class News(Line, tag="news", frozen=True, kw_only=True):
    """Rows were committed: the numbers that the next ones will get, by stream."""

    next: dict[str, int]


class GaveUp(Line, tag="gave_up", frozen=True, kw_only=True):
    """A tombstone stands in the place of these numbers."""

    stream: Stream
    first: int
    last: int


# --- uplink → daemon --------------------------------------------------------------------------------------------


class Synced(Line, tag="synced", frozen=True, kw_only=True):
    """These numbers are home."""

    stream: Stream
    ranges: tuple[Range, ...]


class Rejected(Line, tag="rejected", frozen=True, kw_only=True):
    """The hub refused these numbers for good, and a copy is in the quarantine: they need a tombstone."""

    stream: Stream
    first: int
    last: int
    reason: str


class ForkFound(Line, tag="fork", frozen=True, kw_only=True):
    """The hub has other rows from `seq` on: the store was put back from a copy."""

    epoch: str
    seq: int


class Reason(Line, tag="reason", frozen=True, kw_only=True):
    """A reason of the gateway's mode began or ended."""

    code: str
    active: bool
    detail: str


class Status(Line, tag="status", frozen=True, kw_only=True):
    """How the uplink is, once a second. lag_rows: numbers not home; ranges: what the home is made of, by stream."""

    state: str
    receiver: str
    lag_rows: dict[str, int]
    ranges: dict[str, int]
    in_flight: int
    in_flight_bytes: int
    rate_kbit_s: int
    link_delay_ms: int
    ack_delay_ms: int
    counters: dict[str, int]


ToUplink = News | GaveUp
FromUplink = Synced | Rejected | ForkFound | Reason | Status


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode(text: bytes, kind: Any) -> Any:
    """A line as one of `kind`. Raises `EdgedError`: the two processes are not of the same version, or one is broken."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        shown = text[:200].decode(errors="replace")
        raise EdgedError(f"reading a line between daemon and uplink: {error}; it began with {shown!r}") from None
