"""The nouns that travel between the folders. Values only: no behaviour, no I/O.

Hot-path nouns are *columns*, one list per field and one entry per event or result, because a turn handles
hundreds of them and an object per message is what makes Python slow.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

QUALITY_BAD = 0
QUALITY_UNCERTAIN = 64
QUALITY_GOOD = 192
QUALITY_STALE = 500


class Inbound(NamedTuple):
    """One PUBLISH as the link hands it over. `packet_id` 0 means QoS 0: nothing to acknowledge."""

    packet_id: int
    topic: str
    payload: bytes
    retain: bool


class Oversize(bytes):
    """Stands in `Inbound.payload` for a payload larger than the link keeps: the bytes are its first 1 KiB.

    It is acknowledged like any other message once its letter (`too_large`) is durable.
    """

    size_bytes: int
    sha256: str


class Outbound(NamedTuple):
    """One PUBLISH to send at QoS 1 (`qos0` False) or QoS 0.

    `token` comes back when the broker has acknowledged it: result seq numbers are positive,
    control messages use negative tokens, 0 asks for no report.
    """

    topic: bytes
    payload: bytes
    token: int
    retain: bool = False
    expiry_s: int = 0
    qos0: bool = False


class EventColumns(msgspec.Struct, array_like=True, gc=False):
    """Accepted events of one unit; `seq` of entry i is the unit's `event_first + i`.

    ts: event time, Unix ms. in_seq/boot: as the sensor sent them, or None.
    flags: bit 0 = no ts in the payload (arrival time used).
    payload: the JSON of exactly this event (one element when an array came).
    """

    source: list[str]
    device: list[str]
    topic: list[str]
    ts: list[int]
    in_seq: list[int | None]
    boot: list[str | None]
    flags: list[int]
    payload: list[bytes]


class ResultContext(msgspec.Struct, array_like=True, frozen=True):
    """What many results share; stored once per unit and referenced by index."""

    pipeline: str
    model: str
    model_version: str
    model_sha256: str
    runtime: str
    mode: str
    degraded: bool
    clock: str
    boot: str
    arrival_is_ts: bool = False  # the event time is the gateway's own: a clock correction applies to it


class ResultColumns(msgspec.Struct, array_like=True, gc=False):
    """Results of one unit; `seq` of entry i is the unit's `result_first + i`.

    context: index into `contexts`. event_seq: store seq of the newest event of the window.
    label/score/values: null when the inference failed (then quality is 0). Times in µs where named so.
    produced: Unix ms. mono_ns: monotonic clock of this boot. reasons: tuple of stable codes.
    """

    contexts: list[ResultContext]
    context: list[int]
    device: list[str]
    topic: list[str]
    event_seq: list[int]
    in_seq: list[int | None]
    ts: list[int]
    produced: list[int]
    mono_ns: list[int]
    label: list[str | None]
    score: list[float | None]
    values: list[dict[str, float | list[float]] | None]
    queue_us: list[int]
    infer_us: list[int]
    quality: list[int]
    reasons: list[tuple[str, ...]]


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """A durable message that is not a result: topic below R, JSON payload, how to send it, and its stream of the sync.

    stream: `alarm` or `health` of the sync, "" for neither; `seq` is its dense number there, given at the commit.
    kind: what it says (`alarm`, `mode`, `gap`, `clock`, `health`, `damage`). plant: publish it on the plant's broker.
    """

    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: int = 86_400
    stream: str = ""
    seq: int = 0
    kind: str = ""
    plant: bool = True


class RecordColumns(msgspec.Struct, array_like=True, gc=False):
    """Records of the sync streams `alarm` and `health`, one entry each.

    wall_ms, mono_ns, boot, clock: when and under which clock the record was made. payload: JSON object.
    """

    kind: list[str]
    wall_ms: list[int]
    mono_ns: list[int]
    boot: list[str]
    clock: list[str]
    payload: list[bytes]


class TelemetryColumns(msgspec.Struct, array_like=True, gc=False):
    """Events as they go home: the columns of `EventColumns` (`boot`: the sensor's), and when they arrived here."""

    source: list[str]
    device: list[str]
    topic: list[str]
    ts: list[int]
    in_seq: list[int | None]
    boot: list[str | None]
    flags: list[int]
    payload: list[bytes]
    arrival_wall_ms: list[int]
    arrival_mono_ns: list[int]
    gateway_boot: list[str]
    clock: list[str]


class Unit(msgspec.Struct):
    """What one transaction makes durable: a turn's events, results, notices, and the cumulative `meta` (JSON).

    event_first/result_first: seq of the first row; ignored when the columns are None.
    """

    event_first: int
    result_first: int
    events: EventColumns | None
    results: ResultColumns | None
    notices: list[Notice]
    meta: bytes
    arrival_wall_ms: int
    arrival_mono_ns: int
    boot: str
    clock: str


class TensorSpec(NamedTuple):
    """One input or output of a model. `shape` keeps the batch axis first; -1 stands for a free axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ModelInfo(NamedTuple):
    """What really computes: goes into every result.

    placement: (provider or device, nodes of the graph it computes); empty where the library does not tell.
    """

    model: str
    version: str
    sha256: str
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    placement: tuple[tuple[str, int], ...] = ()
