"""What a runner is made of, and the values it works with."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from edged.engine.stand_in import StandIn
    from edged.infer.chain import Chain
    from edged.infer.lane import Done, LaneStats
    from edged.infer.proof import Live
    from edged.messages import ModelInfo
    from edged.pipeline.alarm import AlarmBank
    from edged.pipeline.assemble import Assembler
    from edged.pipeline.frames import FrameAssembler
    from edged.pipeline.postprocess import Postprocessor
    from edged.pipeline.windows import WindowBank
    from edged.policy.batching import Cost
    from edged.ports import Model

READY_LIMIT = 4096  # windows waiting for a lane in memory; beyond it events wait in the store
FRAMES_LIMIT_BYTES = 64 * 1024 * 1024
FLAG_TS_ARRIVAL = 1
FLAG_RETAINED = 2

# (device, ts, block, event seq of the newest event, its topic, in_seq, flags, seq of the event that closed the window).
# A plain tuple, because with window = 1 there is one per event.
Ready = tuple[str, int, bytes | tuple[float, ...], int, str, int | None, int, int]


class LanePort(Protocol):
    """What a runner needs of a lane."""

    def check(self, now_ns: int) -> bool: ...

    def stats(self) -> LaneStats: ...

    def submit(
        self,
        batch: Mapping[str, np.ndarray],
        done: Done,
    ) -> bool: ...

    def close(self, timeout_s: float) -> bool: ...


class RunnerParts(NamedTuple):
    """What a pipeline is made of.

    assemble: rows of ready windows → model inputs by name, each with the batch axis first.
    model: None when nothing of the chain is usable: every window is answered with quality 0.
    arrival_is_ts: the time of arrival is declared to be the event time, so that it takes nothing from the quality.
    may_slow: under pressure a share of the windows may be left out.
    chain: whose model this is. refit: the same pipeline for the rung that serves now, when these parts no longer fit
    it: there was no model, or it has become too slow for the loop; None: they fit. batch_for: windows of one call of a
    rung with this cost; None: always `max_batch`. width: numbers of one event that the model takes, where events of
    other lengths may come. rates_hz: most calls a second by rung, for `latest` inputs.
    frames: events are pictures; the store has their pixels only where every one counts.
    ready_limit: windows that wait for a lane in memory; the catch-up feeds again below a quarter of it.
    frames_bytes: of frames of policy `latest` that wait; beyond it the oldest are skipped.
    larger: the chain of the larger model of a cascade, where that is here.
    """

    name: str
    bank: WindowBank
    assemble: Assembler | FrameAssembler | None
    interpret: Postprocessor | None
    alarms: AlarmBank | None
    model: Model | None
    lane: LanePort | None
    info: ModelInfo
    deadline_ms: int
    max_batch: int
    degraded: bool
    unusable_reason: str
    latest_only: bool
    arrival_is_ts: bool = False
    may_slow: bool = False
    chain: Chain | None = None
    refit: Callable[[RunnerParts, Live], RunnerParts | None] | None = None
    batch_for: Callable[[Cost], int] | None = None
    width: int | None = None
    stand_in: StandIn | None = None
    rates_hz: Mapping[str, float] = MappingProxyType({})
    frames: bool = False
    ready_limit: int = READY_LIMIT
    frames_bytes: int = FRAMES_LIMIT_BYTES
    larger: Chain | None = None


class Job(NamedTuple):
    """Windows a lane is working on. `arrived_ns`: when their messages came. `unusable`: see `Assembler`."""

    ready: list[Ready]
    arrived_ns: int
    unusable: list[int]


class RunnerState(msgspec.Struct, array_like=True):
    """One pipeline in a snapshot. cursor: newest event in its windows. waiting: closed windows without an answer."""

    cursor: int
    windows: bytes
    waiting: bytes
    fold: dict[str, bytes]
