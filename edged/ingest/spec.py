"""What one source of events looks like, as a plain value. The names are those of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TsUnit = Literal["iso", "s", "ms", "us", "ns"]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """How to read the events of one source, and what is refused.

    fields: dotted paths of the values the model needs, in model order; each a number or an array of numbers.
    width: numbers per event over all fields; None: one per field. More than that: the fields are waveforms.
    0: whatever comes, one number per field or equally long waveforms.
    ts, seq, boot: dotted paths; empty: the sensor has none.
    ts_unit: of a numeric ts (None: ms); `iso` accepts text only. Text is RFC 3339; without an offset it is UTC.
    ts_source: `arrival` ignores the sensor's clock.
    device: template of `{topic[N]}` (level N, from 0, or from the end as -1) and `{payload.dotted.path}`.
    constraints: (lowest, highest) allowed value per field, None for no limit on that side.
    max_events: elements of one array payload. max_payload_bytes: larger payloads are refused unread.
    """

    fields: tuple[str, ...]
    width: int | None = None
    ts: str = "ts"
    seq: str = "seq"
    boot: str = "boot"
    ts_unit: TsUnit | None = None
    ts_source: Literal["payload", "arrival"] = "payload"
    device: str = "{topic[1]}"
    constraints: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    max_events: int = 1000
    max_payload_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """Bounds of what is remembered per source to tell duplicates and gaps.

    gap_grace_ms: how long a missing number may still arrive before it is reported.
    max_devices: further devices are refused. max_ranges: missing ranges remembered per device and boot.
    max_keys: events without a seq remembered to notice their repetition.
    """

    gap_grace_ms: int = 5_000
    max_devices: int = 10_000
    max_ranges: int = 64
    max_keys: int = 16_384
