"""What time brings rather than messages: gaps that are due, silent devices, retained values, health, snapshots."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from edged.engine.delivery import EVICTED
from edged.engine.devices import DeviceChange
from edged.engine.home import ClockWatch, record
from edged.messages import Notice, Outbound
from edged.publish.letters import gap_notice
from edged.timestamps import rfc3339_ms

if TYPE_CHECKING:
    from edged.engine.devices import Devices
    from edged.engine.engine import Engine
    from edged.engine.report import Report
    from edged.engine.snapshot import Snapshots
    from edged.ingest.sequence import Gap
    from edged.pipeline.alarm import AlarmChange

TICK_S = 0.25  # a quarter of the shortest grace and interval that can be configured in seconds
CONNECT_PATIENCE_S = 3  # at start: until then nobody calls the broker away
HEALTH_EVERY_S = 10
HEALTH_EXPIRY_S = 30


class Upkeep:
    """`run` ticks until cancelled; `tick` is synchronous and also called by tests with a clock of their own."""

    sample_every_s = 300
    """How often a sample of the health goes home."""

    def __init__(self, engine: Engine, devices: Devices, report: Report, snapshots: Snapshots, root: str) -> None:
        self._engine = engine
        self._devices = devices
        self._report = report
        self._snapshots = snapshots
        self._root = root
        self._health_due_ns = 0
        self._greeted = 0
        """The connection that has had its first heartbeat: a SCADA must not wait ten seconds for it."""
        self._started_ns = engine.parts.clock.mono_ns()
        self._beat = 0
        self._clock_watch = ClockWatch()
        self._sample_due_ns = 0

    async def run(self) -> None:
        """Tick for ever; between ticks save what moved while nothing arrived."""
        engine = self._engine
        while True:
            self.tick()
            if not engine.busy:
                await self._snapshots.save_if_due()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        parts = self._engine.parts
        now_ns = parts.clock.mono_ns()
        now_ms = now_ns // 1_000_000
        for source in parts.intake.sources.values():
            for gap in source.tracker.expire(now_ms):
                self.report_gap(gap)
        for first, last, reason in parts.delivery.give_up():
            self.report_loss("result", first, last)
            if reason == EVICTED:
                self.pressed("store_full", "results", f"results {first} to {last} were given up undelivered")
        if parts.home.streams and self._engine.given_up:
            self.pressed("backlog_aged", "", f"{self._engine.given_up} results were given up before they were home")
            self._engine.given_up = 0
        for change in self._devices.tick(now_ms):
            self.announce(change)
        parts.present.draft.notices += parts.letters.overdue(mono_ms=now_ms, wall_ms=parts.clock.wall_ms())
        parts.last_values.tick(now_ms)
        if parts.home.streams and (corrected := self._clock_watch.look(parts.clock)) is not None:
            parts.present.draft.notices.append(corrected)
        parts.modes.set("clock_unsynced", parts.clock.quality() == "unsynced")
        if (
            self._engine.session is None
            and "broker_away" not in parts.modes.state.codes
            and (now_ns - self._started_ns > CONNECT_PATIENCE_S * 1_000_000_000)
        ):
            parts.modes.set("broker_away", True, detail="not connected yet")
        parts.modes.tick()
        for runner in parts.runners:
            runner.tick(now_ns)
        parts.journal.trim()
        generation = self._engine.session.generation if self._engine.session is not None else 0
        if now_ns >= self._health_due_ns or generation > self._greeted:
            self._greeted = generation
            self._health_due_ns = now_ns + HEALTH_EVERY_S * 1_000_000_000
            self._publish_health()
        if parts.home.streams and now_ns >= self._sample_due_ns:
            self._sample_due_ns = now_ns + self.sample_every_s * 1_000_000_000
            parts.present.draft.notices.append(record("health", self._report.health(self._beat)))
        if parts.present.draft:
            self._engine.wake()
        parts.delivery.pump()

    def report_gap(self, gap: Gap) -> None:
        """A durable notice on `R/gap`, and the reason in the mode."""
        parts = self._engine.parts
        parts.present.draft.notices.append(
            gap_notice(
                device=gap.device,
                first=gap.first,
                last=gap.last,
                count=gap.count,
                kind=gap.kind,
                wall_ms=parts.clock.wall_ms(),
            )
        )
        parts.metrics.gap(gap.kind, gap.count)
        if gap.kind == "sequence":
            parts.modes.set("gap", True, subject="sequence", detail=f"{gap.device}: {gap.first} to {gap.last}")
            parts.modes.set("gap", False, subject="sequence")

    def report_loss(self, stream: str, first: int, last: int) -> None:
        """Rows that are gone from the store before they had done their service; the numbers are the store's."""
        parts = self._engine.parts
        kind, count, wall_ms = f"store_{stream}", last - first + 1, parts.clock.wall_ms()
        gap = gap_notice(device=None, first=first, last=last, count=count, kind=kind, wall_ms=wall_ms)
        parts.present.draft.notices.append(gap)
        parts.metrics.gap(kind, count)

    def unanswered(self, pipeline: str, first: int, last: int) -> None:
        """Events that were given up for room before a slow model came to them."""
        self.report_loss("event", first, last)
        self.pressed("events_shed", pipeline, f"events {first} to {last} were given up unanswered")

    def pressed(self, code: str, subject: str, detail: str) -> None:
        """A declared loss happened now; the reason stays for its holding time."""
        modes = self._engine.parts.modes
        modes.set(code, True, subject=subject, detail=detail)
        modes.set(code, False, subject=subject)

    def alarm(self, pipeline: str, change: AlarmChange, *, known: bool = False) -> None:
        """Retained while active; a cleared alarm is said once and then taken off the broker. Both go home.

        known: a restart puts it on the board again; it has been recorded before.
        """
        parts = self._engine.parts
        below = f"alarm/{change.device}/{change.code}"
        body = {
            "v": "edged.alarm/1",
            "device": change.device,
            "code": change.code,
            "state": "active" if change.active else "cleared",
            "severity": change.severity,
            "since": rfc3339_ms(change.since_ts),
            "ts": rfc3339_ms(change.ts),
            "pipeline": pipeline,
            "label": change.label,
            "score": change.score,
        }
        payload = msgspec.json.encode(body)
        if change.active:
            parts.delivery.board.put(f"{self._root}/{below}", payload)
        else:
            parts.delivery.board.clear(f"{self._root}/{below}")
        if not known:
            notice = Notice(below, payload, stream="alarm", kind="alarm", plant=not change.active)
            parts.present.draft.notices.append(notice)

    def saw(self, devices: list[str], now_ms: int) -> None:
        """Events of these devices were accepted in this turn."""
        for change in self._devices.seen(devices, now_ms, self._engine.parts.clock.wall_ms()):
            self.announce(change)

    def announce_known(self) -> None:
        """After a restart: every known device and active alarm stands on the board again."""
        for device, state in self._devices.states.items():
            self.announce(DeviceChange(device, state, new=True))
        for runner in self._engine.parts.runners:
            if runner.parts.alarms is not None:
                for change in runner.parts.alarms.active():
                    self.alarm(runner.name, change, known=True)

    def announce(self, change: DeviceChange) -> None:
        """The retained state of a device; a new one is introduced on `R/meta/device/{device}` as well."""
        parts = self._engine.parts
        board = parts.delivery.board
        since = rfc3339_ms(parts.clock.wall_ms())
        body = {"v": "edged.device/1", "device": change.device, "state": change.state, "since": since}
        board.put(f"{self._root}/device/{change.device}/state", msgspec.json.encode(body))
        if change.new:
            first = rfc3339_ms(self._devices.first_seen[change.device])
            meta = {"v": "edged.meta.device/1", "device": change.device, "first_seen": first}
            board.put(f"{self._root}/meta/device/{change.device}", msgspec.json.encode(meta))

    def _publish_health(self) -> None:
        self._beat += 1
        health = self._report.health(self._beat)
        topic = f"{self._root}/health".encode()
        self._engine.parts.delivery.send_unreliably(
            Outbound(topic, msgspec.json.encode(health), 0, expiry_s=HEALTH_EXPIRY_S, qos0=True)
        )
