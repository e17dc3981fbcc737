"""One pipeline at work: events into windows, windows into one model call, answers into result rows.

A pipeline whose model is small runs in the turn (`run_inline`): its results are committed together with the events.
A pipeline with a slow model has a lane: its events are committed first, its results join a later unit. Either way
`done` says up to which event everything is answered and in a unit; after a crash the rest is fed again from the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from edged.errors import InferenceError
from edged.messages import QUALITY_BAD, QUALITY_UNCERTAIN, ResultContext
from edged.pipeline.postprocess import Answers
from edged.policy.mode import ModeState, degrades
from edged.policy.relief import Declared, Thinning, share_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from edged.engine.draft import Present
    from edged.infer.lane import LaneStats
    from edged.messages import ModelInfo
    from edged.pipeline.alarm import AlarmBank
    from edged.pipeline.assemble import Assembler
    from edged.pipeline.postprocess import Postprocessor, Values
    from edged.pipeline.windows import Row, WindowBank
    from edged.policy.governor import Measures
    from edged.ports import Clock, Model

    Outcome = Mapping[str, np.ndarray] | InferenceError

READY_LIMIT = 4096  # windows waiting for a lane in memory; beyond it events wait in the store
ROOM_BELOW = READY_LIMIT // 4  # the catch-up feeds again below this, in chunks well under the limit
FLAG_TS_ARRIVAL = 1
FLAG_RETAINED = 2

_REASONS_OF_FLAGS: dict[int, tuple[str, ...]] = {
    0: (),
    FLAG_TS_ARRIVAL: ("ts_arrival",),
    FLAG_RETAINED: ("retained",),
    FLAG_TS_ARRIVAL | FLAG_RETAINED: ("ts_arrival", "retained"),
}


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
        done: Callable[[Mapping[str, np.ndarray] | InferenceError, int], None],
    ) -> bool: ...


class RunnerParts(NamedTuple):
    """What a pipeline is made of.

    assemble: rows of ready windows → model inputs by name, each with the batch axis first.
    model: None when nothing of the chain is usable: every window is answered with quality 0.
    arrival_is_ts: the time of arrival is declared to be the event time, so that it takes nothing from the quality.
    may_slow: under pressure a share of the windows may be left out.
    """

    name: str
    bank: WindowBank
    assemble: Assembler | None
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


class Runner:
    """The moving part of one pipeline. All methods belong to the loop.

    smaller: the same pipeline with a smaller model, for times of pressure; it shares windows and alarms with `parts`.
    """

    def __init__(self, parts: RunnerParts, clock: Clock, present: Present, smaller: RunnerParts | None = None) -> None:
        self.parts = parts
        self.name = parts.name
        self.models = (parts,) if smaller is None else (parts, smaller)
        """As configured, and the smaller one where there is one."""
        self.left_out: dict[str, int] = {}
        """Windows left out by declared policy, by reason; the engine puts the line of the books here."""
        self.cursor = 0
        """Newest event fed into the windows."""
        self.lagging = True
        """True while events come from the store, not from the turn."""
        self.answered_up_to = 0
        """At start: every event up to this one was answered by an earlier process."""
        self.skipped = 0
        self.failed = 0
        self.late = 0
        self.answered = 0
        self._clock = clock
        self._present = present
        self._ready: list[Ready] = []
        self._single = parts.bank.single
        self._telling = FLAG_RETAINED if parts.arrival_is_ts else FLAG_RETAINED | FLAG_TS_ARRIVAL
        self._newest: dict[str, tuple[int, int, str, int | None, int]] = {}
        self._jobs: deque[Job] = deque()
        self._context: tuple[tuple[ModeState, str], ResultContext] | None = None
        self._wanted = parts
        self._thinning = Thinning()
        self._sifted = 0

    # --- in ---

    def feed(self, device: str, ts: int, row: Row, seq: int, topic: str, in_seq: int | None, flags: int) -> None:
        """One event, in order of seq."""
        if self._single:
            self._ready.append((device, ts, row, seq, topic, in_seq, flags, seq))
            return
        window = self.parts.bank.push(device, ts, row, seq, bool(flags & FLAG_TS_ARRIVAL))
        newest = self._newest.get(device)
        if newest is None or ts >= newest[0]:
            newest = self._newest[device] = (ts, seq, topic, in_seq, flags)
        if window is not None:
            window_ts, ref, block = window
            if ref != seq:  # closed by an event out of order: the window is named after its newest
                _, newest_seq, topic, in_seq, flags = newest
                if ref != newest_seq:  # only after a restart: the newest event came before it, its number is not known
                    in_seq = None
            self._ready.append((device, window_ts, block, ref, topic, in_seq, flags, seq))

    def waiting(self) -> int:
        """Windows ready or in the lane, unanswered."""
        return len(self._ready) + sum(len(job.ready) for job in self._jobs)

    def done(self) -> int:
        """Every event up to this one is answered, and the answers are in a draft or in the store."""
        if self._jobs:
            upto = self._jobs[0].ready[0][-1] - 1
        elif self._ready:
            upto = self._ready[0][-1] - 1
        else:
            upto = self.cursor
        # After a restart the windows are fed from further back than what is answered.
        return max(upto, self.answered_up_to)

    def discard_ready(self) -> None:
        """Forget windows whose results are stored already (replay after a restart)."""
        self._ready.clear()

    def tick(self, now_ns: int) -> None:
        """Time passed: a stuck lane is noticed, a lane with room takes what waits."""
        lane = self.parts.lane
        if lane is None:
            return
        lane.check(now_ns)
        self._present.lane_stats(self.name, lane.stats())
        self.run()

    # --- under pressure ---

    def relieve(self, measures: Measures) -> None:
        """The governor asks for less, or for all of the work again. The model changes between two calls."""
        self._thinning.set(share_of(measures, Declared(self.parts.may_slow, self.parts.alarms is not None)))
        self._wanted = self.models[-1] if measures.use_smaller_model else self.models[0]
        self._context = None
        self.run()

    @property
    def relieved(self) -> bool:
        """Whether less is answered than configured, or by the smaller model."""
        return self._thinning.active or self.parts is not self.models[0]

    def oldest_ns(self) -> int | None:
        """When the oldest input that waits for the lane arrived, while the pipeline keeps up; None: nothing waits."""
        return self._jobs[0].arrived_ns if self._jobs and not self.lagging else None

    def _sift(self) -> None:
        """Leave out what is to be left out, each window judged once. They lie in the order of what closed them."""
        before = len(self._ready)
        takes, sifted = self._thinning.takes, self._sifted
        self._sifted = max(sifted, self._ready[-1][-1])
        self._ready = [window for window in self._ready if window[-1] <= sifted or takes(window[0])]
        count = before - len(self._ready)
        if count:
            reason = self._thinning.reason
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def _exchanged(self) -> bool:
        """Take the wanted model once nothing of the other one is on its way: answers keep their order."""
        if self._wanted is not self.parts and not self._jobs:
            self.parts = self._wanted
            self._context = None
        return self._wanted is self.parts

    # --- compute ---

    def run(self) -> None:
        """Answer what is ready: at once into the draft, or through the lane as far as it has room."""
        if self._wanted is not self.parts and not self._exchanged():
            self._bound()
            return
        if self._ready and self._thinning.active:
            self._sift()
        if not self._ready:
            return
        if self.parts.lane is None:
            ready, self._ready = self._ready, []
            for start in range(0, len(ready), self.parts.max_batch):
                self._run_inline(ready[start : start + self.parts.max_batch])
            return
        if self.parts.latest_only and self._jobs:
            self._keep_newest()
            return
        assert self.parts.assemble is not None  # a lane has a model, and a model that fits has an assembler
        while self._ready and self._submit(self.parts.lane, self.parts.assemble):
            pass
        self._bound()

    def _keep_newest(self) -> None:
        """`latest` inputs: while the lane is busy only the newest window of each device waits."""
        newest = {window[0]: window for window in self._ready}
        self.skipped += len(self._ready) - len(newest)
        self._ready = sorted(newest.values(), key=itemgetter(-1))  # `done` looks at the first one

    def _run_inline(self, ready: list[Ready]) -> None:
        parts = self.parts
        arrived_ns = self._present.arrived_ns
        started_ns = self._clock.mono_ns()
        outcome: Outcome
        unusable: list[int] = []
        if parts.model is None or parts.assemble is None:
            outcome = InferenceError(parts.unusable_reason, "no usable model")
        else:
            try:
                inputs, unusable = parts.assemble.assemble([window[2] for window in ready])
                outcome = parts.model.infer(inputs, deadline_s=parts.deadline_ms / 1000)
            except InferenceError as error:
                outcome = error
        infer_us = (self._clock.mono_ns() - started_ns) // 1000
        self._write(ready, outcome, unusable, max(0, (started_ns - arrived_ns) // 1000), infer_us)

    def _submit(self, lane: LanePort, assemble: Assembler) -> bool:
        ready = self._ready[: self.parts.max_batch]
        inputs, unusable = assemble.assemble([window[2] for window in ready])
        job = Job(ready, self._present.arrived_ns, unusable)

        def done(outcome: Outcome, infer_us: int) -> None:
            self._jobs.popleft()  # a lane answers in order
            since_arrival_us = (self._clock.mono_ns() - job.arrived_ns) // 1000
            self._write(job.ready, outcome, job.unusable, max(0, since_arrival_us - infer_us), infer_us)
            self.run()
            self._present.wake()
            self._present.stir.set()

        self._jobs.append(job)  # before the lane may answer
        if not lane.submit(inputs, done):
            self._jobs.pop()
            return False
        del self._ready[: len(ready)]
        return True

    def _bound(self) -> None:
        """Too much waits for the lane: from now on events stay in the store until there is room."""
        if not self.lagging and len(self._ready) > READY_LIMIT:
            self.lagging = True
            self._present.fell_behind(self.name)
            self._present.stir.set()

    def has_room(self) -> bool:
        """Whether the lane could take more than what waits already."""
        return len(self._ready) < ROOM_BELOW

    # --- out ---

    def _answers(self, outcome: Outcome, devices: list[str], unusable: list[int]) -> Answers:
        if not isinstance(outcome, InferenceError) and self.parts.interpret is not None:
            try:
                return self.parts.interpret(outcome, devices, unusable)
            except InferenceError as error:
                outcome = error
        self.failed += len(devices)
        return failed_answers(len(devices), outcome.code if isinstance(outcome, InferenceError) else "model_unusable")

    def _alarms(self, alarms: AlarmBank, ready: list[Ready], answers: Answers) -> None:
        for window, label, score, values in zip(ready, answers.label, answers.score, answers.values, strict=True):
            for change in alarms.step(window[0], window[1], label, score, values):
                self._present.on_alarm(self.name, change)

    def context(self) -> ResultContext:
        """What all results of this pipeline share at this moment."""
        present = self._present
        key = (present.mode, present.clock)
        if self._context is None or self._context[0] != key:
            info = self.parts.info
            degraded = self.parts.degraded or self.relieved or degrades(present.mode.reasons, self.name)
            context = ResultContext(
                self.name, info.model, info.version, info.sha256, info.runtime,
                present.mode.mode, degraded, present.clock, present.boot, self.parts.arrival_is_ts,
            )  # fmt: skip
            self._context = (key, context)
        return self._context[1]

    def _write(self, ready: list[Ready], outcome: Outcome, unusable: list[int], queue_us: int, infer_us: int) -> None:
        """Append one result row per window to the draft."""
        draft = self._present.draft
        rows = draft.results
        n = len(ready)
        devices = [window[0] for window in ready]
        late = queue_us + infer_us > self.parts.deadline_ms * 1000
        extra = ("deadline_missed",) if late else ()
        self.late += n if late else 0
        self.answered += n
        answers = self._answers(outcome, devices, unusable)
        if self.parts.alarms is not None:
            self._alarms(self.parts.alarms, ready, answers)
        rows.context += [draft.context_index(self.context())] * n
        rows.device += devices
        rows.ts += [window[1] for window in ready]
        rows.event_seq += [window[3] for window in ready]
        rows.topic += [window[4] for window in ready]
        rows.in_seq += [window[5] for window in ready]
        rows.produced += [self._clock.wall_ms()] * n
        rows.mono_ns += [self._clock.mono_ns()] * n
        rows.label += answers.label
        rows.score += answers.score
        rows.values += answers.values
        rows.queue_us += [queue_us] * n
        rows.infer_us += [infer_us] * n
        telling = self._telling
        if extra or any(window[6] & telling for window in ready):
            reasons = [_REASONS_OF_FLAGS[window[6] & telling] + extra for window in ready]
            rows.quality += [
                min(quality, QUALITY_UNCERTAIN) if why else quality
                for quality, why in zip(answers.quality, reasons, strict=True)
            ]
            rows.reasons += [first + why for first, why in zip(answers.reasons, reasons, strict=True)]
        else:
            rows.quality += answers.quality
            rows.reasons += answers.reasons

    # --- what survives a restart ---

    def dump(self) -> RunnerState:
        """Cursor, windows, what waits unanswered, calibration and alarms: as of now."""
        waiting = [window for job in self._jobs for window in job.ready] + self._ready
        fold = {}
        if self.parts.interpret is not None and self.parts.interpret.calibration is not None:
            fold["calibration"] = self.parts.interpret.calibration.dump()
        if self.parts.alarms is not None:
            fold["alarms"] = self.parts.alarms.dump()
        return RunnerState(self.cursor, self.parts.bank.dump(), msgspec.msgpack.encode(waiting), fold)

    def load(self, state: RunnerState) -> bool:
        """Take a dumped state; what `answered_up_to` covers is not answered again. False when the windows differ."""
        if not self.parts.bank.load(state.windows):
            return False
        self.cursor = state.cursor
        waiting = msgspec.msgpack.decode(state.waiting, type=list[Ready])
        self._ready = [window for window in waiting if window[-1] > self.answered_up_to]
        if self.parts.interpret is not None and self.parts.interpret.calibration is not None:
            self.parts.interpret.calibration.load(state.fold.get("calibration", b""))
        if self.parts.alarms is not None:
            self.parts.alarms.load(state.fold.get("alarms", b""))
        return True

    def refold(self, device: str, ts: int, label: str | None, score: float | None, values: Values | None) -> None:
        """A stored, answered result that the loaded state does not know yet."""
        calibration = self.parts.interpret.calibration if self.parts.interpret is not None else None
        if calibration is not None and score is not None:
            calibration.threshold(device, score)
        if self.parts.alarms is not None:
            self.parts.alarms.step(device, ts, label, score, values)

    def report(self) -> dict[str, object]:
        """For `edged status`."""
        info = self.parts.info
        return {
            "model": info.model,
            "model_version": info.version,
            "runtime": info.runtime,
            "host": "lane" if self.parts.lane is not None else "inline",
            "answered": self.answered,
            "failed": self.failed,
            "late": self.late,
            "skipped": self.skipped,
            "left_out": sum(self.left_out.values()),
            "share": self._thinning.share,
            "waiting": self.waiting(),
            "lagging": self.lagging,
            "cursor": self.cursor,
            "windows": {
                "late": self.parts.bank.late_count,
                "restarted": self.parts.bank.restart_count,
                "coalesced": self.parts.bank.coalesced_count,
                "evicted": self.parts.bank.evicted_count,
            },
        }


def failed_answers(n: int, code: str) -> Answers:
    """Rows for windows that could not be answered: published too, with nulls and the reason."""
    return Answers([None] * n, [None] * n, [None] * n, [QUALITY_BAD] * n, [(code,)] * n)
