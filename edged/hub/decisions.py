"""What the hub decides without asking anybody: who speaks, what is refused, how long to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from edged.hub.settings import NAME_PATTERN, SHARE_GROUP
from edged.sync.protocol import (
    HEADER_MAX_BYTES,
    REASON_MAX_CHARS,
    STREAMS,
    VERSION,
    Ack,
    AckStatus,
    BatchHeader,
    HelloAck,
    Stream,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_MIN_MS, RETRY_MAX_MS = 1_000, 60_000
BUSY_MIN_MS, BUSY_MAX_MS = 250, 30_000
SPREAD_MAX_S = 600
SPREAD_S_PER_GATEWAY = 1.2  # 50 gateways that return at once are spread over a minute

_NAME = re.compile(NAME_PATTERN)


class Sender(NamedTuple):
    """Who a broker's topic, a token or a certificate says that it is."""

    site: str
    gateway: str

    def __str__(self) -> str:
        return f"{self.site}/{self.gateway}"


class Place(NamedTuple):
    """Where something came from, and as what, by topic or path. stream: None for a hello, or where no topic says it."""

    sender: Sender
    hello: bool = False
    stream: Stream | None = None


def parse_sender(text: str) -> Sender | None:
    """`site/gateway` as it stands in a token file or a certificate's CN; None when it is something else."""
    site, slash, gateway = text.partition("/")
    return Sender(site, gateway) if slash and _NAME.match(site) and _NAME.match(gateway) else None


def parse_topic(root: str, topic: str) -> Place | None:
    """The place of `{root}/{site}/{gateway}/sync/...`; None for what is not ours."""
    levels = topic.removeprefix(f"{root}/").split("/")
    if len(levels) not in {4, 5} or levels[2] != "sync" or not topic.startswith(f"{root}/"):
        return None
    sender = parse_sender(f"{levels[0]}/{levels[1]}")
    if sender is None:
        return None
    if levels[3:] == ["hello"]:
        return Place(sender, hello=True)
    stream = next((known for known in STREAMS if levels[3:] == [known, "batch"]), None)
    return None if stream is None else Place(sender, stream=stream)


def answer_topic(root: str, place: Place) -> str:
    """Where the answer to something from `place` goes."""
    return f"{root}/{place.sender}/sync/{place.stream or 'hello'}/ack"


def subscriptions(root: str, sites: Sequence[str], *, shared: bool) -> list[str]:
    """The filters of one worker."""
    share = f"$share/{SHARE_GROUP}/" if shared else ""
    return [f"{share}{root}/{site}/+/sync/{what}" for site in sites or ("+",) for what in ("+/batch", "hello")]


def allowed(sender: Sender, patterns: Sequence[str], sites: Sequence[str]) -> bool:
    """Whether this hub takes rows of this gateway."""
    return (not sites or sender.site in sites) and any(fnmatchcase(str(sender), pattern) for pattern in patterns)


def refuse(header: BatchHeader, place: Place, patterns: Sequence[str], sites: Sequence[str]) -> str:
    """Why a batch with this header from this place is rejected; "" when nothing speaks against it."""
    sender = place.sender
    if (header.site, header.gateway) != sender or not allowed(sender, patterns, sites):
        return "foreign_gateway"
    return "" if place.stream in {None, header.stream} else "bad_header"


# --- how long to wait ---


def away_retry_ms(away_s: float, chance: float) -> int:
    """When to come again after the database has been away for so long. chance: 0 to 1, so that not all come at once."""
    waited = min(max(away_s * 1000, RETRY_MIN_MS), RETRY_MAX_MS)
    return min(int(waited * (0.75 + 0.5 * chance)), RETRY_MAX_MS)


def busy_retry_ms(waiting: int, commit_s: float, at_once: int, chance: float) -> int:
    """When there should be room again: the batches in hand at the present pace of commits."""
    expected = waiting * commit_s * 1000 / at_once
    return int(min(max(expected, BUSY_MIN_MS), BUSY_MAX_MS) * (0.75 + 0.5 * chance))


def spread_s(gateways: int) -> int:
    """Over how many seconds so many gateways, back within one minute, begin their backlogs. One alone never waits."""
    return 0 if gateways <= 1 else min(round(gateways * SPREAD_S_PER_GATEWAY), SPREAD_MAX_S)


# --- answers ---


UNKNOWN = "-"
_Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Named(msgspec.Struct, frozen=True):
    """What an answer has to repeat of a batch, taken from a header that may be wrong in everything else.

    The defaults are words and numbers that every reader of an `Ack` takes, and that fit no batch.
    """

    epoch: Annotated[str, msgspec.Meta(pattern=r"^[^/+#\x00-\x1f\x7f]{1,128}$")] = UNKNOWN
    stream: Stream | None = None
    first: _Number = 1
    last: _Number = 1


class _Greeting(msgspec.Struct, frozen=True):
    instance: str = UNKNOWN


_NAMED = msgspec.json.Decoder(Named)
_GREETING = msgspec.json.Decoder(_Greeting)


def named(head: bytes) -> Named:
    """As much as can be read of the first line; nothing when it is too long or no JSON.

    head: the beginning of a payload, at least `HEADER_MAX_BYTES` + 1 bytes of it where there are as many.
    """
    line, newline, _rest = head[: HEADER_MAX_BYTES + 1].partition(b"\n")
    if not newline:
        return Named()
    try:
        found = _NAMED.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # also right JSON with wrong types
        return Named()
    return found if found.first <= found.last else msgspec.structs.replace(found, first=1, last=1)


def answer(
    name: Named | BatchHeader,
    place: Place,
    receiver: str,
    status: AckStatus,
    reason: str,
    retry_ms: int = 0,
) -> Ack:
    """An answer without a commit. What the header did not say stays `UNKNOWN`; the stream is then the topic's."""
    return Ack(
        v=VERSION,
        receiver=receiver,
        site=place.sender.site,
        gateway=place.sender.gateway,
        epoch=name.epoch,
        stream=place.stream or name.stream or "result",
        first=name.first,
        last=name.last,
        status=status,
        retry_ms=retry_ms,
        reason=reason[:REASON_MAX_CHARS],
    )


def hello_answer(
    payload: bytes, sender: Sender, receiver: str, status: AckStatus, reason: str, retry_ms: int = 0
) -> HelloAck:
    """An answer to the `hello` in `payload`, without cursors."""
    try:
        instance = _GREETING.decode(payload).instance
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        instance = UNKNOWN
    return HelloAck(
        v=VERSION,
        receiver=receiver,
        site=sender.site,
        gateway=sender.gateway,
        instance=instance[:REASON_MAX_CHARS] or UNKNOWN,
        status=status,
        retry_ms=retry_ms,
        reason=reason[:REASON_MAX_CHARS],
    )


# --- MQTT versions ---

Protocol = Literal["5", "3.1.1"]

_NEXT: Mapping[tuple[Protocol, bool], Protocol] = {
    ("5", True): "5",
    ("5", False): "3.1.1",
    ("3.1.1", True): "3.1.1",
    ("3.1.1", False): "5",
}


def next_protocol(wanted: Literal["auto", "5", "3.1.1"], last: Protocol | None, worked: bool) -> Protocol:
    """The version of the next attempt. worked: the last one was accepted, or failed for another reason."""
    if wanted != "auto":
        return wanted
    return "5" if last is None else _NEXT[last, worked]
