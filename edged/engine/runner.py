"""One pipeline at work: events into windows, windows into one model call, answers into result rows.

A pipeline whose model is small runs in the turn (`run_inline`): its results are committed together with the events.
A pipeline with a slow model has a lane: its events are committed first, its results join a later unit. Either way
`done` says up to which event everything is answered and in a unit; after a crash the rest is fed again from the store.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from edged.engine.compute import chain_report
from edged.engine.rows import Flags, Timing, append
from edged.engine.runner_parts import FLAG_RETAINED, FLAG_TS_ARRIVAL, Job, LanePort, Ready, RunnerParts, RunnerState
from edged.engine.skips import Skips
from edged.engine.telling import notes_of, take_notes
from edged.errors import InferenceError
from edged.infer.notes import BAD_IMAGE
from edged.messages import QUALITY_BAD, ResultContext
from edged.pipeline.postprocess import Answers
from edged.policy.faults import fault_of
from edged.policy.mode import ModeState, degrades
from edged.policy.relief import Declared, Thinning, share_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from edged.engine.draft import Present
    from edged.infer.proof import Live
    from edged.messages import ModelInfo
    from edged.pipeline.alarm import AlarmBank
    from edged.pipeline.assemble import Assembler
    from edged.pipeline.frames import FrameAssembler
    from edged.pipeline.postprocess import Values
    from edged.pipeline.windows import Row
    from edged.policy.governor import Measures
    from edged.ports import Clock

    Outcome = Mapping[str, np.ndarray] | InferenceError


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
        self.told: dict[str, int] = {}
        """What models made of others told about rows: reasons, and which of them answered."""
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
        self.skips = Skips()
        self._context: tuple[tuple[ModeState, str], ResultContext] | None = None
        self._wanted = parts
        self._next_call_ns = 0
        self._sized: tuple[Live | None, int] = (None, 0)
        self._fold: dict[str, bytes] = {}
        self.info = parts.info
        """What computed the newest results."""
        self._thinning = Thinning()
        self._sifted = 0

    # --- in ---

    def feed(
        self, device: str, ts: int, row: Row | bytes, seq: int, topic: str, in_seq: int | None, flags: int
    ) -> None:
        """One event, in order of seq. row: its values, or its frame."""
        if self._single or isinstance(row, bytes):
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

    def count_skips(self) -> None:
        """Enter into the books what was skipped, as far as everything before it is answered."""
        self.skips.enter(self.left_out, self.done())

    @property
    def skipped(self) -> int:
        """Windows left out by declared policy, in the books or not yet."""
        return sum(self.left_out.values()) + len(self.skips)

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
        self._present.attend(self)
        lane = self.parts.lane
        if lane is None:
            return
        lane.check(now_ns)
        self._present.lane_stats(self.name, lane.stats())
        self.run()

    # --- the chain of runtimes ---

    @property
    def computing(self) -> bool:
        """A lane works on windows: which rung answers them is not known yet."""
        return bool(self._jobs)

    @property
    def stand_in_info(self) -> ModelInfo | None:
        """What stands in the results of the rules, or of the memory; None when neither is declared."""
        return self.parts.stand_in.info if self.parts.stand_in is not None else None

    def refit(self) -> None:
        """The rung that serves now may need other parts: an outage that began at the start ends without a restart."""
        parts = self.models[0]
        live = parts.chain.serving if parts.chain is not None else None
        if live is None or parts.refit is None or (fresh := parts.refit(parts, live)) is None:
            return
        self.models = (fresh, *self.models[1:])
        if self._wanted is parts:
            self._wanted = fresh
        if parts.interpret is None and fresh.interpret is not None and fresh.interpret.calibration is not None:
            fresh.interpret.calibration.load(self._fold.get("calibration", b""))
        self._exchanged()

    def _computed_by(self, info: ModelInfo) -> None:
        self.info = info
        self._context = None
        self._present.computed(self, info)

    def _most(self) -> int:
        """Windows of the next call: another rung may need smaller ones, or allow larger ones."""
        parts = self.parts
        live = parts.chain.serving if parts.chain is not None else None
        if live is None or parts.batch_for is None:
            return parts.max_batch
        if self._sized[0] is not live:
            self._sized = (live, parts.batch_for(live.cost))
        return self._sized[1]

    def _paced(self) -> bool:
        """Whether the rung that serves has a lower declared rate, and it is not yet time for its next call."""
        live = self.parts.chain.serving if self.parts.chain is not None else None
        rate_hz = self.parts.rates_hz.get(live.rung) if live is not None else None
        if rate_hz is None:
            return False
        now_ns = self._clock.mono_ns()
        if now_ns < self._next_call_ns:
            return True
        self._next_call_ns = now_ns + int(1e9 / rate_hz)
        return False

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
        thinning, sifted, kept = self._thinning, self._sifted, []
        self._sifted = max(sifted, self._ready[-1][-1])
        for window in self._ready:
            if window[-1] <= sifted or thinning.takes(window[0]):
                kept.append(window)
            else:
                self.skips.add(window[-1], thinning.reason)
        self._ready = kept

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
        if self.parts.rates_hz and not self._jobs and self._paced():
            self._keep_newest()
            return
        if self.parts.lane is None:
            ready, self._ready = self._ready, []
            for start in range(0, len(ready), self.parts.max_batch):
                self._run_inline(ready[start : start + self.parts.max_batch])
            return
        if self.parts.latest_only:
            self._keep_newest()
            if self._jobs:
                return
        assert self.parts.assemble is not None  # a lane has a model, and a model that fits has an assembler
        while self._ready and self._submit(self.parts.lane, self.parts.assemble):
            pass
        self._bound()

    def _keep_newest(self) -> None:
        """`latest` inputs: only the newest window of each device waits for the lane."""
        self._ready = self.skips.newest(self._ready)
        if self.parts.frames:
            self._ready = self.skips.within(self._ready, self.parts.frames_bytes)

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
                inputs, unusable = self._assembled(parts.assemble, ready)
                outcome = parts.model.infer(inputs, deadline_s=parts.deadline_ms / 1000)
            except InferenceError as error:
                outcome = error
        infer_us = (self._clock.mono_ns() - started_ns) // 1000
        info = parts.info if parts.model is None else parts.model.info
        self._write(ready, outcome, unusable, max(0, (started_ns - arrived_ns) // 1000), infer_us, info)

    def _assembled(
        self, assemble: Assembler | FrameAssembler, ready: list[Ready]
    ) -> tuple[Mapping[str, np.ndarray], list[int]]:
        """The inputs, and the rows that have none."""
        blocks = [window[2] for window in ready]
        width = self.parts.width
        if width is None:
            return assemble.assemble(blocks)
        # They came before a model said how many numbers it takes.
        odd = [row for row, block in enumerate(blocks) if len(block) != width]
        for row in odd:
            blocks[row] = (0.0,) * width
        inputs, unusable = assemble.assemble(blocks)
        return inputs, sorted({*odd, *unusable})

    def _submit(self, lane: LanePort, assemble: Assembler | FrameAssembler) -> bool:
        ready = self._ready[: self._most()]
        inputs, unusable = self._assembled(assemble, ready)
        job = Job(ready, self._present.arrived_ns, unusable)

        def done(outcome: Outcome, infer_us: int, info: ModelInfo | None) -> None:
            self._jobs.popleft()  # a lane answers in order
            since_arrival_us = (self._clock.mono_ns() - job.arrived_ns) // 1000
            queue_us = max(0, since_arrival_us - infer_us)
            self._write(job.ready, outcome, job.unusable, queue_us, infer_us, info or self.info)
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
        if not self.lagging and len(self._ready) > self.parts.ready_limit:
            self.lagging = True
            self._present.fell_behind(self.name)
            self._present.stir.set()

    def has_room(self) -> bool:
        """Whether the lane could take more than what waits already."""
        return len(self._ready) < max(1, self.parts.ready_limit // 4)

    # --- out ---

    def _answers(self, ready: list[Ready], outcome: Outcome, unusable: list[int], info: ModelInfo) -> Answers:
        devices = [window[0] for window in ready]
        stand_in = self.parts.stand_in
        if not isinstance(outcome, InferenceError) and self.parts.interpret is not None:
            if info is not self.info:
                self._computed_by(info)
            try:
                answers = self.parts.interpret(outcome, devices, unusable)
            except InferenceError as error:
                outcome = error
            else:
                if stand_in is not None and stand_in.remembers:
                    stand_in.remember(devices, answers, self._clock.mono_ns())
                return answers
        code = outcome.code if isinstance(outcome, InferenceError) else "model_unusable"
        if stand_in is None or fault_of(code).action in {"refuse", "retry"}:  # perhaps it is the input's fault
            if info is not self.info:
                self._computed_by(info)
            self.failed += len(devices)
            return failed_answers(len(devices), code)
        if stand_in.info is not self.info:
            self._computed_by(stand_in.info)
        answers = stand_in.answer(devices, [window[2] for window in ready], code, self._clock.mono_ns())
        self.failed += sum(quality == QUALITY_BAD for quality in answers.quality)
        return answers

    def _alarms(self, alarms: AlarmBank, ready: list[Ready], answers: Answers) -> None:
        for window, label, score, values in zip(ready, answers.label, answers.score, answers.values, strict=True):
            for change in alarms.step(window[0], window[1], label, score, values):
                self._present.on_alarm(self.name, change)

    def _unreadable(self, window: Ready) -> None:
        """A frame that could not be decoded when its turn came leaves a letter, as one refused at once does."""
        if self.parts.frames and isinstance(window[2], bytes):
            self._present.letter(BAD_IMAGE, "the frame cannot be decoded", window[4], window[2])

    def context(self, by: ModelInfo | None = None) -> ResultContext:
        """What all results of this pipeline share at this moment. by: what computed these, if not its model."""
        if by is not None:
            return msgspec.structs.replace(
                self.context(), model=by.model, model_version=by.version, model_sha256=by.sha256, runtime=by.runtime
            )
        present = self._present
        key = (present.mode, present.clock)
        if self._context is None or self._context[0] != key:
            info = self.info
            degraded = self.parts.degraded or self.relieved or degrades(present.mode.reasons, self.name)
            context = ResultContext(
                self.name, info.model, info.version, info.sha256, info.runtime,
                present.mode.mode, degraded, present.clock, present.boot, self.parts.arrival_is_ts,
            )  # fmt: skip
            self._context = (key, context)
        return self._context[1]

    def _write(
        self, ready: list[Ready], outcome: Outcome, unusable: list[int], queue_us: int, infer_us: int, info: ModelInfo
    ) -> None:
        """Append one result row per window to the draft. info: of what was asked."""
        draft = self._present.draft
        rows = draft.results
        n = len(ready)
        late = queue_us + infer_us > self.parts.deadline_ms * 1000
        self.late += n if late else 0
        flags = Flags(self._telling, late)
        self.answered += n
        answers = self._answers(ready, outcome, unusable, info)
        notes = notes_of(outcome, n)
        failed = take_notes(notes, answers, self.told)
        self.failed += 0 if isinstance(outcome, InferenceError) else len(failed)  # there the whole call was counted
        for row in failed:
            self._unreadable(ready[row])
        if self.parts.alarms is not None:
            self._alarms(self.parts.alarms, ready, answers)
        if any(note.info is not None for note in notes):
            rows.context += [draft.context_index(self.context(note.info)) for note in notes]
        else:
            rows.context += [draft.context_index(self.context())] * n
        append(rows, ready, answers, Timing(self._clock.wall_ms(), self._clock.mono_ns(), queue_us, infer_us), flags)

    # --- what survives a restart ---

    def dump(self) -> RunnerState:
        """Cursor, windows, what waits unanswered, calibration and alarms: as of now."""
        waiting = [window for job in self._jobs for window in job.ready] + self._ready
        cursor = self.cursor
        if self.parts.frames:  # what can still be answered is in the store, and pictures make large snapshots
            cursor, waiting = min(cursor, self.done()), []
        fold = dict(self._fold) if self.parts.interpret is None else {}
        if self.parts.interpret is not None and self.parts.interpret.calibration is not None:
            fold["calibration"] = self.parts.interpret.calibration.dump()
        if self.parts.alarms is not None:
            fold["alarms"] = self.parts.alarms.dump()
        return RunnerState(cursor, self.parts.bank.dump(), msgspec.msgpack.encode(waiting), fold)

    def load(self, state: RunnerState) -> bool:
        """Take a dumped state; what `answered_up_to` covers is not answered again. False when the windows differ."""
        if not self.parts.bank.load(state.windows):
            return False
        self.cursor = state.cursor
        waiting = msgspec.msgpack.decode(state.waiting, type=list[Ready])
        self._ready = [window for window in waiting if window[-1] > self.answered_up_to]
        self._fold = state.fold
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
        info = self.info
        chain = self.parts.chain
        return {
            "model": info.model,
            "model_version": info.version,
            "runtime": info.runtime,
            **({"placement": dict(info.placement)} if info.placement else {}),
            "host": "lane" if self.parts.lane is not None else "inline",
            "answered": self.answered,
            "failed": self.failed,
            "late": self.late,
            "skipped": self.skipped,
            **({"told": dict(self.told)} if self.told else {}),
            "left_out": sum(self.left_out.values()),
            "share": self._thinning.share,
            "waiting": self.waiting(),
            "lagging": self.lagging,
            "cursor": self.cursor,
            "chain": chain_report(chain.state) if chain is not None else [],
            **({"larger": chain_report(self.parts.larger.state)} if self.parts.larger is not None else {}),
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
