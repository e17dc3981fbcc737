"""Answers become result rows: one entry per window in every column."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edged.engine.runner_parts import FLAG_RETAINED, FLAG_TS_ARRIVAL
from edged.messages import QUALITY_UNCERTAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edged.engine.runner_parts import Ready
    from edged.messages import ResultColumns
    from edged.pipeline.postprocess import Answers

_REASONS_OF_FLAGS: dict[int, tuple[str, ...]] = {
    0: (),
    FLAG_TS_ARRIVAL: ("ts_arrival",),
    FLAG_RETAINED: ("retained",),
    FLAG_TS_ARRIVAL | FLAG_RETAINED: ("ts_arrival", "retained"),
}


class Timing(NamedTuple):
    """When the rows are written, by both clocks, and what their call took."""

    wall_ms: int
    mono_ns: int
    queue_us: int
    infer_us: int


class Flags(NamedTuple):
    """What makes an answer uncertain. telling: which flags of an event do. late: the deadline was missed."""

    telling: int
    late: bool


def append(rows: ResultColumns, ready: Sequence[Ready], answers: Answers, timing: Timing, flags: Flags) -> None:
    """Every column but the context."""
    n = len(ready)
    rows.device += [window[0] for window in ready]
    rows.ts += [window[1] for window in ready]
    rows.event_seq += [window[3] for window in ready]
    rows.topic += [window[4] for window in ready]
    rows.in_seq += [window[5] for window in ready]
    rows.produced += [timing.wall_ms] * n
    rows.mono_ns += [timing.mono_ns] * n
    rows.label += answers.label
    rows.score += answers.score
    rows.values += answers.values
    rows.queue_us += [timing.queue_us] * n
    rows.infer_us += [timing.infer_us] * n
    telling = flags.telling
    if not flags.late and not any(window[6] & telling for window in ready):
        rows.quality += answers.quality
        rows.reasons += answers.reasons
        return
    extra = ("deadline_missed",) if flags.late else ()
    reasons = [_REASONS_OF_FLAGS[window[6] & telling] + extra for window in ready]
    rows.quality += [
        min(quality, QUALITY_UNCERTAIN) if why else quality
        for quality, why in zip(answers.quality, reasons, strict=True)
    ]
    rows.reasons += [first + why for first, why in zip(answers.reasons, reasons, strict=True)]
