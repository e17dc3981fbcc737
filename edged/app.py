"""Composition root: a configuration in, connected parts out. The only module that knows everybody."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edged import __version__
from edged.engine.accelerator_state import worst_of
from edged.engine.accelerators import Accelerators, processes_of
from edged.engine.build import Built, load_models
from edged.engine.build import build as build_pipelines
from edged.engine.catch_up import CatchUp
from edged.engine.compute import Compute
from edged.engine.delivery import RESULTS, Delivery
from edged.engine.devices import Devices
from edged.engine.draft import Present
from edged.engine.engine import Engine, EngineParts, TurnLimits
from edged.engine.governing import Governing, Surroundings
from edged.engine.herald import Herald
from edged.engine.home import Home, record
from edged.engine.homeward import Homeward
from edged.engine.intake import Intake
from edged.engine.last_values import LastValues
from edged.engine.meta import load_meta
from edged.engine.mode_keeper import ModeKeeper
from edged.engine.recovery import recover
from edged.engine.report import Report, Sections
from edged.engine.snapshot import Snapshots
from edged.engine.summaries import Summaries
from edged.engine.upkeep import Upkeep
from edged.errors import EdgedError
from edged.ingest.routes import Routes
from edged.messages import Outbound
from edged.mqtt.configured import link_settings
from edged.mqtt.link import MqttLink
from edged.ops.host import folder_bytes, read_host
from edged.ops.metrics import EngineMetrics
from edged.ops.sensors.memory import read_memory
from edged.ops.sensors.nvml import Nvml
from edged.ops.sensors.report import read_devices
from edged.ops.sensors.watch import DeviceWatch
from edged.ops.status_samples import status_samples
from edged.ops.status_server import Page, StatusServer, open_loopback, open_unix
from edged.publish.board import Board
from edged.publish.letters import LetterBox, gap_notice
from edged.publish.notices import NoticeBox
from edged.publish.outbox import Outbox
from edged.publish.result_json import ResultEncoder
from edged.store.opening import OpenedStore, open_store
from edged.store.values import StoreSettings

if TYPE_CHECKING:
    from edged.config.settings import Config
    from edged.engine.meta import Meta
    from edged.ops.logs import Log
    from edged.policy.mode import ModeState
    from edged.ports import Clock, SessionInfo
    from edged.store.values import Recovered, SalvageReport
    from edged.sync.protocol import StreamExtent
    from edged.uplink.receipts import ReceiptFolder
    from edged.uplink.supervisor import Uplink

CLOSE_STORE_S = 3.0
CLOSE_LANE_S = 1.0  # a lane's running call may finish; a stuck one is left to the end of the process
HOST_EVERY_S = 5.0


async def build(config: Config, *, clock: Clock, log: Log, sensors_root: Path = Path("/")) -> App:
    """Open the store, load the models, fold what is stored, and connect the parts. Nothing is taken yet.

    sensors_root: where the folders of /sys and /proc are read.

    Raises:
        EdgedError: the store cannot be used, or the configuration contradicts itself.
    """
    app = App(config, clock, log, sensors_root)
    opened = await open_store(
        StoreSettings(
            Path(config.gateway.state_dir),
            budget_bytes=config.store.budget_bytes,
            free_floor_bytes=config.store.free_floor_bytes,
            keep_bytes=config.store.keep_bytes,
            alarm_surroundings_s=config.store.alarm_surroundings_s,
            instance=app.herald.instance,
        ),
        clock=clock,
        on_trouble=app.on_store_trouble,
        on_failure=app.on_failure,
        other_bytes=lambda: app.models_bytes,
    )
    try:
        loaded = await asyncio.to_thread(load_models, config, clock, app.accelerators)
        await app.connect(opened, build_pipelines(config, loaded, clock, app.present, app.post))
    except BaseException:
        await app.accelerators.close()
        await opened.journal.close()
        raise
    return app


def _free_bytes(sensors_root: Path) -> int | None:
    return read_memory(sensors_root).available_bytes


class App:
    """The running daemon's parts and what the process needs of them."""

    def __init__(self, config: Config, clock: Clock, log: Log, sensors_root: Path = Path("/")) -> None:
        self.config = config
        self.sensors_root = sensors_root
        self.clock = clock
        self.log = log
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.present = Present(clock.boot_id)
        self.board = Board()
        self.herald = Herald(self.board, config.root, secrets.token_hex(8), clock.wall_ms())
        self.modes = ModeKeeper(clock, log, self._mode_changed)
        self.post = asyncio.get_running_loop().call_soon_threadsafe
        self._host: dict[str, object] = {}
        self._store: dict[str, object] = {}
        self.models_bytes = 0
        """Models below the state directory share its byte budget; read by the store's writer thread."""
        self._troubles: set[str] = set()
        self._status = StatusServer({})
        self._session: SessionInfo | None = None
        self._progress = (0, clock.mono_ns())
        self.uplink: Uplink | None = None
        free = partial(_free_bytes, sensors_root)
        self.accelerators = Accelerators(processes_of(clock, log, config.hardware, free), log)

    # --- connecting the parts ---

    async def connect(self, opened: OpenedStore, built: Built) -> None:
        config, recovered = self.config, opened.recovered
        self.epoch = recovered.epoch
        self.journal = opened.journal
        self.built = built
        meta = load_meta(recovered.meta)
        # The same, unless numbers were left out because a damaged store had used them: those are told.
        meta.ledger.result(RESULTS).stored = recovered.next_result - 1
        meta.records = {"alarm": recovered.next_alarm - 1, "health": recovered.next_health - 1}
        self.engine = self._engine(recovered, meta, built)
        self._connect_engine(recovered)
        will = self.herald.state_payload("offline", self.modes.mode)
        self.link = MqttLink(link_settings(config, will), self.engine, self.clock, random.random)
        self.herald.introduce(config, built.runners, self.epoch)
        self._mode_changed(self.modes.state)  # who comes later finds a mode, also when it never changes
        for runner in built.runners:
            self.present.attend(runner)
        self._say_smaller()
        await self._recover(opened)
        self.engine.attach(self.link)
        if config.upstream is not None:
            self.upkeep.sample_every_s = config.upstream.health_interval_s
            if config.upstream.url:
                self._connect_upstream(config)

    def _engine(self, recovered: Recovered, meta: Meta, built: Built) -> Engine:
        """The engine and what it works with."""
        config, clock = self.config, self.clock
        letters = LetterBox()
        encoder = ResultEncoder(
            config.root, config.gateway.site, config.gateway.id, self.epoch, expiry_s=config.results.result_expiry_s
        )
        delivery = Delivery(
            journal=self.journal,
            encoder=encoder,
            outbox=Outbox(meta.sent, recovered.next_result - 1),
            notices=NoticeBox(config.root, meta.notices, recovered.next_batch - 1),
            board=self.board,
            ledger=meta.ledger,
        )
        engine = Engine(
            EngineParts(
                journal=self.journal,
                intake=Intake(built.sources, Routes(built.filters), meta.ledger, letters, self.present),
                runners=built.runners,
                delivery=delivery,
                encoder=encoder,
                letters=letters,
                last_values=LastValues(config.root, self.board, config.results.last_interval_ms),
                modes=self.modes,
                metrics=EngineMetrics(clock),
                meta=meta,
                present=self.present,
                clock=clock,
                home=Home(meta, self.journal, frozenset(config.upstream.streams) if config.upstream else frozenset()),
            ),
            TurnLimits(config.store.commit_linger_ms / 1000, config.store.max_batch_events),
            next_event=recovered.next_event,
            next_result=recovered.next_result,
        )
        engine.newest_batch = recovered.next_batch - 1
        return engine

    def _connect_engine(self, recovered: Recovered) -> None:
        """Everything that stands around the engine: devices, snapshots, the way home, reports, governor, catch-up."""
        config, engine = self.config, self.engine
        self.devices = Devices(
            stale_ms=config.limits.device_stale_s * 1000,
            offline_ms=config.limits.device_offline_s * 1000,
            limit=config.limits.max_devices,
        )
        self.snapshots = Snapshots(
            engine, self.devices, self.journal, self.clock, self.log, config.store.snapshot_interval_s
        )
        self.homeward = Homeward(engine, self.log, self.on_failure, self._receipts(config))
        read = partial(read_devices, self.sensors_root, nvml=Nvml(), state_dir=Path(config.gateway.state_dir))
        self.governing = Governing(
            engine, self.log, DeviceWatch(read), self._surroundings, config.hardware.limits.p99_ms
        )
        self.summaries = Summaries(engine, self.governing.summaries_wanted)
        self.report = Report(engine, self.devices, self.clock, identity=self._identity(), sections=self._sections())
        self.upkeep = Upkeep(engine, self.devices, self.report, self.snapshots, config.root)
        engine.on_devices = self.upkeep.saw
        engine.on_session = self.on_session
        self.present.on_alarm = self.upkeep.alarm
        compute = Compute(self.modes, engine.parts.metrics.registry, self.log)
        self.present.computed = compute.computed
        self.present.attend = compute.attend
        self.catch_up = CatchUp(engine, self.journal, self.present.stir)
        self.catch_up.on_lost = self.upkeep.unanswered

    def _say_smaller(self) -> None:
        """A smaller model that cannot be used is missed only under pressure: people are told before."""
        for pipeline, runner in zip(self.config.pipelines, self.built.runners, strict=True):
            if pipeline.model.smaller is not None and len(runner.models) == 1:
                self.log.warning("smaller_model_unusable", pipeline=pipeline.name, hint="edged model verify it")

    def _identity(self) -> dict[str, str]:
        gateway = self.config.gateway
        instance = self.herald.instance
        return {
            "site": gateway.site,
            "gateway": gateway.id,
            "instance": instance,
            "epoch": self.epoch,
            "version": __version__,
        }

    def _sections(self) -> Sections:
        return Sections(
            host=lambda: self._host,
            store=lambda: self._store,
            link=lambda: self.link.statistics()._asdict(),
            uplink=lambda: self.homeward.status,
            pressure=self.governing.pressure,
            device=self.governing.device,
            accelerators=self.accelerators.report,
        )

    def _surroundings(self) -> Surroundings:
        """What the governor cannot see from the engine."""
        room_days = self._store.get("days_of_room")
        chains = (pipeline.model.chain for pipeline in self.config.pipelines)
        accelerator = worst_of(zip(chains, self.built.runners, strict=True))
        return Surroundings(room_days if isinstance(room_days, float) else None, accelerator)

    def _receipts(self, config: Config) -> ReceiptFolder | None:
        """Where receipts of sticks are laid; None where the configuration trusts no hub's keys."""
        if config.upstream is None or config.upstream.hub_keys_file is None:
            return None
        from edged.store.outward import OutwardStore
        from edged.uplink.receipts import ReceiptFolder

        state_dir = Path(config.gateway.state_dir)

        def extents() -> Sequence[StreamExtent]:
            with closing(OutwardStore(state_dir)) as outward:
                return outward.extents()

        keys_file = Path(config.upstream.hub_keys_file)
        return ReceiptFolder(state_dir, keys_file, config.gateway.site, config.gateway.id, extents)

    def _connect_upstream(self, config: Config) -> None:
        from edged.uplink.supervisor import Callbacks, Uplink, start_of  # most gateways without a centre never need it

        homeward = self.homeward
        self.uplink = Uplink(
            start_of(config, __version__, self.engine.parts.home.receiver),
            Callbacks(
                on_synced=homeward.on_synced,
                on_rejected=homeward.on_rejected,
                on_fork=homeward.on_fork,
                on_status=lambda status: homeward.on_status(msgspec.structs.asdict(status)),
                on_reason=homeward.on_reason,
            ),
            clock=self.clock,
            log=self.log,
            chance=random.random,
        )
        homeward.gave_up = self.uplink.gave_up
        self.engine.on_durable = self._tell_uplink
        self._tell_uplink(urgent=True)

    def _tell_uplink(self, urgent: bool) -> None:
        """What is durable now; nothing that is still being committed."""
        engine = self.engine
        assert self.uplink is not None
        newest = engine.parts.home.newest(result=engine.next_result - 1, event=engine.committed_event)
        self.uplink.news({stream: seq + 1 for stream, seq in newest.items()}, urgent=urgent)

    async def _recover(self, opened: OpenedStore) -> None:
        recovered = opened.recovered
        now_ms = self.clock.mono_ns() // 1_000_000
        outcome = await recover(self.engine, self.journal, self.devices, recovered.snapshot, now_ms)
        self.upkeep.announce_known()
        for gap in outcome.gaps:
            self.upkeep.report_gap(gap)
        if recovered.salvage is not None:
            self._report_salvage(recovered.salvage)
        await self.catch_up.inline_ready()
        self.log.info(
            "recovered",
            epoch=self.epoch,
            events=outcome.replayed_events,
            results=outcome.replayed_results,
            snapshot=outcome.snapshot_used,
            waiting_results=self.waiting_results(),
        )

    def _report_salvage(self, salvage: SalvageReport) -> None:
        """A damaged store: its loss is published like every other one."""
        self.modes.set("store_recovered", True, detail=f"{salvage.cause}; set aside as {salvage.set_aside}")
        self.modes.set("store_recovered", False)
        notices = self.present.draft.notices
        now_ms = self.clock.wall_ms()
        for stream, first, last in salvage.holes:
            kind, count = f"store_{stream}", last - first + 1
            notices.append(gap_notice(device=None, first=first, last=last, count=count, kind=kind, wall_ms=now_ms))
        if not salvage.holes:
            kind = "store_damaged"  # how much was lost after the newest row that could be read, nobody can know
            notices.append(gap_notice(device=None, first=0, last=0, count=0, kind=kind, wall_ms=now_ms))
        if self.config.upstream is not None:
            body = {"v": "edged.damage/1", "cause": salvage.cause, "rows": salvage.rows, "results": salvage.results}
            notices.append(record("damage", {**body, "events": salvage.events, "complete": salvage.complete}))
        self.engine.wake()

    # --- what runs ---

    def tasks(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [
            ("link", self.link.run()),
            ("refill", self.engine.parts.delivery.refill()),
            ("catch-up", self.catch_up.run()),
            ("upkeep", self.upkeep.run()),
            ("host", self._look_at_host()),
            ("governor", self.governing.run()),
            ("summaries", self.summaries.run()),
            ("accelerators", self.accelerators.run()),
            ("homeward", self.homeward.run()),
            *([("uplink", self.uplink.run())] if self.uplink is not None else []),
        ]

    async def serve_status(self) -> None:
        """Open the sockets of `edged status` and Prometheus; a daemon without them still does its job."""
        registry = self.engine.parts.metrics.registry
        registry.add_source(self.report.samples)
        registry.add_source(lambda: status_samples(self.report.status()))
        self._status = StatusServer(
            {
                "/status": Page("application/json", lambda: msgspec.json.encode(self.report.status())),
                "/metrics": Page("text/plain; version=0.0.4", registry.prometheus_text),
            }
        )
        status = self.config.status
        try:
            sockets = [await asyncio.to_thread(open_unix, Path(status.socket))]
            if status.metrics_listen:
                host, _, port = status.metrics_listen.rpartition(":")
                sockets.append(await asyncio.to_thread(open_loopback, host.strip("[]"), int(port)))
            await self._status.start(*sockets)
        except EdgedError as error:
            self.log.error("status_unavailable", detail=str(error))

    async def _look_at_host(self) -> None:
        state_dir = Path(self.config.gateway.state_dir)
        while True:
            self.models_bytes = await asyncio.to_thread(folder_bytes, state_dir / "models")
            host = await asyncio.to_thread(read_host, state_dir)
            self._host = {name: value for name, value in host._asdict().items() if value is not None}
            self._store = asdict(await self.journal.statistics())
            await asyncio.sleep(HOST_EVERY_S)

    # --- what happens ---

    def on_store_trouble(self, code: str, active: bool, detail: str) -> None:
        (self._troubles.add if active else self._troubles.discard)(code)
        self.modes.set(code, active, detail=detail)

    def on_failure(self, error: BaseException) -> None:
        """The store's writer cannot go on: the process must end, and systemd starts it anew."""
        self.failure = error
        self.failed.set()

    def _mode_changed(self, state: ModeState) -> None:
        self.present.mode = state
        root = self.config.root
        payload = self.modes.payload()
        self.board.put(f"{root}/mode", payload)
        if self.config.upstream is not None:
            self.present.draft.notices.append(record("mode", payload))
            self.present.wake()
        if self._session is not None:
            self._put_state()

    def on_session(self, session: SessionInfo | None, why: str) -> None:
        """The link is up or down. `R/state` says online only when every subscription is granted."""
        self._session = session
        if session is None:
            self.log.warning("disconnected", why=why)
        else:
            self._put_state()
            self.log.info("connected", protocol=session.protocol, session_present=session.session_present)

    def _put_state(self) -> None:
        granted = self._session is not None and not self._session.refused
        self.herald.state("online" if granted else "offline", self.modes.mode)

    # --- what the process asks ---

    def waiting_results(self) -> int:
        return self.engine.parts.delivery.outbox.waiting

    def moving(self, now_ns: int, stalled_after_s: float) -> bool:
        """False when a unit has been in flight too long: progress, not life, feeds the watchdog.

        A full or failing disk is not a stall: the store retries and says so, a restart would not help.
        """
        progress, since_ns = self._progress
        if self.engine.progress != progress or not self.engine.busy or self._troubles:
            self._progress = (self.engine.progress, now_ns)
            return True
        return now_ns - since_ns < stalled_after_s * 1_000_000_000

    def status_line(self) -> str:
        """One line for `systemctl status`."""
        link = "connected" if self._session is not None else "broker away"
        return (
            f"{self.modes.mode}; {link}; {self.engine.next_event - 1} events, {self.engine.next_result - 1} results, "
            f"{self.waiting_results()} waiting"
        )

    def reload(self, before: Config, after: Config) -> tuple[list[str], list[str]]:
        """Take over what may change while running; returns (applied, needs a restart) by table name."""
        applied, restart = [], []
        for name in before.__dataclass_fields__:
            if getattr(before, name) == getattr(after, name):
                continue
            if name == "store" and replace(before.store, commit_linger_ms=0) == replace(
                after.store, commit_linger_ms=0
            ):
                self.engine.set_linger(after.store.commit_linger_ms / 1000)
                applied.append("store.commit_linger_ms")
            else:
                restart.append(name)
        return applied, restart

    # --- stopping ---

    async def drain(self) -> None:
        """Take nothing more, commit what was taken, wait until the broker has acknowledged every result."""
        self.engine.stop_taking()
        await self.engine.settled()
        await self.engine.parts.delivery.idle.wait()

    async def close_link(self) -> None:
        payload = self.herald.state_payload("offline", self.modes.mode)
        farewell = Outbound(f"{self.config.root}/state".encode(), payload, 0, retain=True)
        await self.link.close(farewell, drain_s=1.0)

    async def close(self) -> None:
        """Release everything; the state is saved so that the next start replays nothing."""
        self._status.close()
        if self.uplink is not None:
            await self.uplink.stop()
        for parts in (parts for runner in self.built.runners for parts in runner.models):
            if parts.lane is not None:
                await asyncio.to_thread(parts.lane.close, CLOSE_LANE_S)
            elif parts.model is not None:
                parts.model.close()
        for chain in self.built.chains:
            await asyncio.to_thread(chain.close)
        await self.accelerators.close()
        if self.failure is None:
            # A full disk keeps its unit for ever: what is not durable by then is not acknowledged, so nothing is lost.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_STORE_S):
                    await self.engine.settled()
                    await self.journal.save_meta(self.engine.meta())
                    await self.snapshots.save()
        await self.journal.close()
