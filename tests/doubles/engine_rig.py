"""The real engine around a link, a journal, a clock and a model that tests control. Restarting means a second rig."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edged.engine.catch_up import CatchUp
from edged.engine.delivery import Delivery
from edged.engine.devices import Devices
from edged.engine.draft import Present
from edged.engine.engine import Engine, EngineParts, TurnLimits
from edged.engine.home import Home
from edged.engine.homeward import Homeward
from edged.engine.intake import Intake, Source
from edged.engine.last_values import LastValues
from edged.engine.meta import load_meta
from edged.engine.mode_keeper import ModeKeeper
from edged.engine.recovery import Recovery, recover
from edged.engine.report import Report, Sections
from edged.engine.runner import Runner
from edged.engine.runner_parts import RunnerParts
from edged.engine.snapshot import Snapshots
from edged.engine.upkeep import Upkeep
from edged.errors import InferenceError
from edged.infer.lane import Done, LaneState, LaneStats
from edged.ingest.decode_json import JsonSource
from edged.ingest.routes import Routes
from edged.ingest.sequence import SequenceTracker
from edged.ingest.spec import SequenceSpec, SourceSpec
from edged.messages import ModelInfo, Outbound, TensorSpec
from edged.ops.logs import Log
from edged.ops.metrics import EngineMetrics
from edged.pipeline.alarm import AlarmBank
from edged.pipeline.assemble import Assembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import AlarmRule, InputSpec, OutputSpec
from edged.pipeline.windows import WindowBank
from edged.policy.mode import ModeState
from edged.publish.board import Board
from edged.publish.letters import LetterBox
from edged.publish.notices import NoticeBox
from edged.publish.outbox import Outbox
from edged.publish.result_json import ResultEncoder
from edged.sync.protocol import Stream
from tests.doubles.clock import FakeClock
from tests.doubles.journal import MemoryJournal
from tests.doubles.link import LoopLink

ROOT = "edged/v1/lyon/gw"
ALARM = AlarmRule("hot", label="hot", min_score=0.0, clear_after=2)


class MeanModel:
    """Class 1 ("hot") scores the mean of all inputs of a row, class 0 ("ok") scores 10. `fail` raises instead."""

    def __init__(self, width: int) -> None:
        self.info = ModelInfo(
            "mean", "1", "0" * 64, "double:cpu", (TensorSpec("x", "float32", (-1, *([width] if width else []))),),
            (TensorSpec("y", "float32", (-1, 2)),),
        )  # fmt: skip
        self.fail = ""
        self.calls: list[int] = []

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        rows = batch["x"]
        self.calls.append(len(rows))
        if self.fail:
            raise InferenceError(self.fail, "the double was told to")
        means = rows.reshape(len(rows), -1).mean(axis=1)
        return {"y": np.stack([np.full(len(rows), 10.0), means], axis=1)}

    def close(self) -> None:
        pass


class HandLane:
    """A lane whose calls return when the test says so, in order. `jobs_count`: what it holds before it says no."""

    def __init__(self, model: MeanModel, jobs_count: int = 2) -> None:
        self.model = model
        self.jobs_count = jobs_count
        self.jobs: list[tuple[Mapping[str, np.ndarray], Done]] = []
        self.abandoned = 0
        self.state: LaneState = "serving"

    def check(self, now_ns: int) -> bool:
        return False

    def stats(self) -> LaneStats:
        return LaneStats(self.state, len(self.jobs), bool(self.jobs), 0, 0, 0, self.abandoned)

    def submit(self, batch: Mapping[str, np.ndarray], done: Done) -> bool:
        if len(self.jobs) >= self.jobs_count:
            return False
        self.jobs.append((batch, done))
        return True

    def close(self, timeout_s: float) -> bool:
        return True

    def answer(self, infer_us: int = 1000) -> None:
        batch, done = self.jobs.pop(0)
        try:
            done(self.model.infer(batch, deadline_s=1.0), infer_us, self.model.info)
        except InferenceError as error:
            done(error, infer_us, self.model.info)


class Rig:
    """One start of the engine. Give it the journal of another rig to restart from what that one made durable."""

    def __init__(
        self,
        *,
        journal: MemoryJournal | None = None,
        clock: FakeClock | None = None,
        window: int = 1,
        stride: int = 1,
        fields: tuple[str, ...] = ("a",),
        alarms: Sequence[AlarmRule] = (),
        lane: bool = False,
        usable: bool = True,
        latest_only: bool = False,
        may_slow: bool = False,
        smaller: bool = False,
        output: OutputSpec | None = None,
        slots: int = 1000,
        limits: TurnLimits | None = None,
        max_devices: int = 100,
        deadline_ms: int = 1000,
        max_batch: int = 256,
        encode: Callable[..., ResultEncoder] = ResultEncoder,
        streams: frozenset[Stream] = frozenset(),
    ) -> None:
        self.journal = journal or MemoryJournal()
        self.clock = clock or FakeClock()
        self.lines: list[str] = []
        self.present = Present(self.clock.boot_id)
        self.log = log = Log(self.clock, write=self.lines.append, journal=False)
        meta = load_meta(self.journal.meta)
        self.ledger = meta.ledger
        self.board = Board()
        self.modes = ModeKeeper(self.clock, log, self._mode_changed)
        single = window == 1
        inputs = InputSpec(fields=fields, window=window, stride=stride)
        self.model = MeanModel(len(fields) if single else 0)
        if not single:
            info = self.model.info
            shape = (-1, window, len(fields))
            self.model.info = info._replace(inputs=(TensorSpec("x", "float32", shape),))
        self.lane = HandLane(self.model) if lane else None
        spec = output or OutputSpec(kind="classification", labels=("ok", "hot"))
        parts = RunnerParts(
            name="p",
            bank=WindowBank(inputs),
            assemble=Assembler(inputs, self.model.info.inputs) if usable else None,
            interpret=Postprocessor(spec, self.model.info.outputs) if usable else None,
            alarms=AlarmBank(alarms) if alarms else None,
            model=self.model if usable else None,
            lane=self.lane,
            info=self.model.info,
            deadline_ms=deadline_ms,
            max_batch=max_batch,
            degraded=not usable,
            unusable_reason="model_unusable",
            latest_only=latest_only,
            may_slow=may_slow,
        )
        self.small_model = MeanModel(len(fields) if single else 0)
        self.small_model.info = self.model.info._replace(model="small", version="2")
        small = parts._replace(model=self.small_model, lane=None, info=self.small_model.info) if smaller else None
        self.runner = Runner(parts, self.clock, self.present, small)
        self.source = Source(
            "p",
            JsonSource(SourceSpec(fields=fields, device="{topic[1]}")),
            SequenceTracker(SequenceSpec(gap_grace_ms=1000, max_devices=max_devices)),
            [self.runner],
        )
        encoder = encode(ROOT, "lyon", "gw", self.journal.epoch, expiry_s=3600)
        self.outbox = Outbox(meta.sent, self.journal.next_result - 1)
        self.notices = NoticeBox(ROOT, meta.notices, len(self.journal.units))
        self.delivery = Delivery(
            journal=self.journal,
            encoder=encoder,
            outbox=self.outbox,
            notices=self.notices,
            board=self.board,
            ledger=meta.ledger,
        )
        self.home = Home(meta, self.journal, streams)
        self.homeward_errors: list[BaseException] = []
        self.devices = Devices(stale_ms=60_000, offline_ms=600_000, limit=max_devices)
        letters = LetterBox()
        self.engine = Engine(
            EngineParts(
                journal=self.journal,
                intake=Intake([self.source], Routes([("in/+", self.source)]), meta.ledger, letters, self.present),
                runners=(self.runner,),
                delivery=self.delivery,
                encoder=encoder,
                letters=letters,
                last_values=LastValues(ROOT, self.board, 1000),
                modes=self.modes,
                metrics=EngineMetrics(self.clock),
                meta=meta,
                present=self.present,
                clock=self.clock,
                home=self.home,
            ),
            limits or TurnLimits(),
            next_event=self.journal.next_event,
            next_result=self.journal.next_result,
        )
        self.homeward = Homeward(self.engine, log, self.homeward_errors.append)
        self.engine.newest_batch = len(self.journal.units)
        self.snapshots = Snapshots(self.engine, self.devices, self.journal, self.clock, log, 60)
        self.report = Report(self.engine, self.devices, self.clock, identity={"site": "lyon"}, sections=Sections())
        self.upkeep = Upkeep(self.engine, self.devices, self.report, self.snapshots, ROOT)
        self.engine.on_devices = self.upkeep.saw
        self.present.on_alarm = self.upkeep.alarm
        self.catch_up = CatchUp(self.engine, self.journal, self.present.stir)
        self.catch_up.on_lost = self.upkeep.unanswered
        self.link = LoopLink(self.engine, slots=slots)

    def _mode_changed(self, state: ModeState) -> None:
        self.present.mode = state

    async def start(self, *, up: bool = True) -> Recovery:
        """Recover from the journal, then connect."""
        now_ms = self.clock.mono_ns() // 1_000_000
        recovery = await recover(self.engine, self.journal, self.devices, self.journal.snapshot, now_ms)
        self.upkeep.announce_known()
        for gap in recovery.gaps:
            self.upkeep.report_gap(gap)
        await self.catch_up.inline_ready()
        if self.lane is not None:
            while self.runner.lagging and self.runner.has_room():
                await self.catch_up.step(self.runner)
        self.engine.attach(self.link)
        if up:
            self.link.up(session_present=bool(self.engine.parts.meta.session))
        return recovery

    def event(self, seq: int | None, a: float = 1.0, *, device: str = "d1", **more: Any) -> int:
        """A message with one event arrives; returns its packet id. ts: a second per seq."""
        body: dict[str, Any] = {"a": a}
        if seq is not None:
            body |= {"seq": seq, "ts": 1_700_000_000_000 + 1000 * seq}
        return self.link.arrive(f"in/{device}", msgspec.json.encode(body | more))

    def results(self) -> list[dict[str, Any]]:
        """Every result published so far, repeats included."""
        return [msgspec.json.decode(item.payload) for item in self._published("result/")]

    def told(self, below: str) -> list[dict[str, Any]]:
        """Every non-empty payload published so far below `R/{below}`."""
        return [msgspec.json.decode(item.payload) for item in self._published(below) if item.payload]

    def _published(self, below: str) -> list[Outbound]:
        prefix = f"{ROOT}/{below}".encode()
        return [item for item in self.link.published if item.topic.startswith(prefix)]
