"""The turn: take what arrived, compute, commit as one unit, then publish and acknowledge in one write.

One unit is in flight at a time. While it is being made durable messages gather, and the next turn takes them all;
that is the group commit. The engine listens to the link and to the journal; it owns no socket, file or thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edged.engine.home import number
from edged.engine.intake import Taken
from edged.errors import BugError
from edged.messages import Unit
from edged.publish.letters import LetterBox, gap_notice

if TYPE_CHECKING:
    from edged.engine.delivery import Delivery
    from edged.engine.draft import Draft, Present
    from edged.engine.home import Home
    from edged.engine.intake import Intake
    from edged.engine.last_values import LastValues
    from edged.engine.meta import Meta
    from edged.engine.mode_keeper import ModeKeeper
    from edged.engine.runner import Runner
    from edged.infer.lane import LaneStats
    from edged.messages import Inbound, Outbound
    from edged.ops.metrics import EngineMetrics
    from edged.ports import Clock, Committed, Journal, Link, SessionInfo
    from edged.publish.result_json import ResultEncoder


class TurnLimits(NamedTuple):
    """When a turn begins, and how large it may be.

    linger_s: how long messages gather before a commit when none is running. max_messages: most in one turn.
    crowd_messages: a turn of so many says that the daemon is busy; then the next one waits `crowd_wait_s` for company
    unless `crowd_full` are there already. Fewer, larger commits cost less CPU just where it is scarce, and what waits
    these milliseconds would have waited for the processor anyway. Below some thousand messages a second it never is so.
    """

    linger_s: float = 0.0
    max_messages: int = 1000
    crowd_messages: int = 24
    crowd_full: int = 256
    crowd_wait_s: float = 0.002


class EngineParts(NamedTuple):
    journal: Journal
    intake: Intake
    runners: tuple[Runner, ...]
    delivery: Delivery
    encoder: ResultEncoder
    letters: LetterBox
    last_values: LastValues
    modes: ModeKeeper
    metrics: EngineMetrics
    meta: Meta
    present: Present
    clock: Clock
    home: Home


class _Flight(NamedTuple):
    """The unit being made durable, and what leaves once it is."""

    draft: Draft
    ready: list[Outbound]
    generation: int
    acks: list[int]
    messages: int
    size_bytes: int
    arrived_ns: int
    last_event: int


class Engine:
    """Implements `edged.ports.LinkListener`. All methods belong to the loop.

    next_event/next_result: the seq of the next row, from the store's recovery.
    """

    def __init__(self, parts: EngineParts, limits: TurnLimits, *, next_event: int, next_result: int) -> None:
        self.parts = parts
        self.next_event = next_event
        self.next_result = next_result
        self.committed_event = next_event - 1
        self.newest_batch = 0
        self.session: SessionInfo | None = None
        self.progress = 0
        """Turns completed; the watchdog is fed by it."""
        self.given_up = 0
        """Results given up for room since the upkeep looked, before everybody had them."""
        self.on_devices: Callable[[list[str], int], None] = lambda _devices, _now_ms: None
        self.on_durable: Callable[[bool], None] = lambda _urgent: None
        """After each commit; True when it holds an alarm."""
        self.on_session: Callable[[SessionInfo | None, str], None] = lambda _session, _why: None
        self._limits = limits
        self._link: Link | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._flight: _Flight | None = None
        self._arrived_ns = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._waiting_for_turn: list[asyncio.Future[None]] = []
        self._draining = False
        for runner in parts.runners:
            runner.left_out = parts.meta.ledger.omissions(runner.name)
        parts.present.wake = self.wake
        parts.present.fell_behind = self.fell_behind
        parts.present.lane_stats = self.lane_stats
        parts.present.letter = self._letter

    def attach(self, link: Link) -> None:
        self._link = link
        self.parts.delivery.link = link

    # --- when to turn ---

    @property
    def busy(self) -> bool:
        """A unit is in flight or a turn is due."""
        return self._flight is not None or self._timer is not None

    def wake(self) -> None:
        """Something waits in the draft: turn soon."""
        if self._timer is None and self._flight is None:
            self._settled.clear()
            self._timer = self._loop.call_soon(self._turn)

    def on_inbox(self) -> None:
        """Messages arrived: turn at once when idle, after the linger when there is one, or when the commit is done."""
        if not self._arrived_ns:
            self._arrived_ns = self.parts.clock.mono_ns()
        if self._flight is not None:
            return
        if self._limits.linger_s <= 0:
            self.wake()
        else:
            self._gather(self._limits.linger_s)

    def _gather(self, wait_s: float) -> None:
        """Turn after `wait_s`, with everything that has arrived by then."""
        if self._timer is None:
            self._settled.clear()
            self._timer = self._loop.call_later(wait_s, self._turn)

    async def settled(self) -> None:
        """Wait until nothing is in flight and nothing waits in the draft."""
        await self._settled.wait()

    async def turned(self) -> None:
        """Wait for the end of the unit in flight or of the turn that is due; returns at once when there is neither.

        Unlike `settled` it comes soon even while messages never pause.
        """
        if self.busy:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting_for_turn.append(waiter)
            await waiter

    # --- the turn ---

    def _turn(self) -> None:
        self._timer = None
        if self._flight is not None:
            return
        parts = self.parts
        present = parts.present
        now_ns = parts.clock.mono_ns()
        present.arrived_ns = self._arrived_ns or now_ns
        self._arrived_ns = 0
        present.clock = parts.clock.quality()
        generation: int = 0
        messages: list[Inbound] = []
        taken = Taken([], 0, 0)
        if self._link is not None and not self._draining:
            generation, messages = self._link.take(self._limits.max_messages)
        if messages:
            taken = parts.intake.take(
                messages, first_seq=self.next_event, mono_ms=now_ns // 1_000_000, wall_ms=parts.clock.wall_ms()
            )
            self.on_devices(present.draft.events.device, now_ns // 1_000_000)
        for runner in parts.runners:
            if not runner.lagging:
                runner.run()
        if not messages and not present.draft:
            self._settled.set()
            self._tell_turned()
            return
        self._commit(present.fresh_draft(), generation, taken, len(messages))

    def _commit(self, draft: Draft, generation: int, taken: Taken, messages: int) -> None:
        parts = self.parts
        events, results = draft.events, draft.results
        first_event, first_result = self.next_event, self.next_result
        n_events, n_results = len(events.source), len(results.context)
        self.next_event += n_events
        self.next_result += n_results
        terms = parts.meta.ledger.result("result")
        terms.stored += n_results
        number(draft.notices, parts.meta.records)
        self._settled.clear()
        # The journal answers through the loop, never before this method has returned.
        parts.journal.submit(
            Unit(
                first_event,
                first_result,
                events if n_events else None,
                results if n_results else None,
                draft.notices,
                self.meta(),
                parts.clock.wall_ms(),
                parts.present.arrived_ns,
                parts.present.boot,
                parts.present.clock,
            ),
            self._on_committed,
        )
        # Encoding overlaps the fsync.
        ready = parts.encoder.encode(first_result, results) if n_results else []
        self._flight = _Flight(
            draft,
            ready,
            generation,
            taken.acks,
            messages,
            taken.size_bytes,
            parts.present.arrived_ns,
            self.next_event - 1,
        )

    def meta(self) -> bytes:
        """The books and cursors as of now."""
        meta, delivery, journal = self.parts.meta, self.parts.delivery, self.parts.journal
        meta.done = {runner.name: runner.done() for runner in self.parts.runners}
        for runner in self.parts.runners:
            runner.count_skips()
        meta.sent = journal.delivered_upto = delivery.outbox.delivered
        meta.notices = journal.noticed_upto = delivery.notices.delivered
        journal.answered_upto = min(meta.done.values(), default=0)
        return meta.dump()

    def _on_committed(self, unit: Committed) -> None:
        flight = self._flight
        if flight is None:
            raise BugError("a unit was committed that nobody submitted")
        self._flight = None
        parts = self.parts
        self.committed_event = flight.last_event
        self.newest_batch = unit.batch
        parts.delivery.committed(
            unit,
            flight.ready,
            flight.draft.notices,
            generation=flight.generation,
            acks=flight.acks,
            count=flight.messages,
            size=flight.size_bytes,
        )
        self.progress += 1
        self._tell_turned()
        self.given_up += unit.evicted_unsent_results
        self.on_durable(any(notice.stream == "alarm" for notice in flight.draft.notices))
        parts.last_values.update(flight.draft.results, flight.ready)
        parts.metrics.turn(flight.draft, unit, flight.messages, parts.clock.mono_ns() - flight.arrived_ns)
        if self._link is not None and self._link.waiting() and not self._draining:
            if flight.messages >= self._limits.crowd_messages and self._link.waiting() < self._limits.crowd_full:
                self._gather(max(self._limits.crowd_wait_s, self._limits.linger_s))
            else:
                self.on_inbox()
        elif parts.present.draft:
            self.wake()
        else:
            self._settled.set()

    def _tell_turned(self) -> None:
        waiting, self._waiting_for_turn = self._waiting_for_turn, []
        for waiter in waiting:
            if not waiter.done():  # the one who waited may have been cancelled
                waiter.set_result(None)

    # --- what the link says ---

    def on_up(self, session: SessionInfo) -> None:
        parts = self.parts
        self.session = session
        parts.metrics.connects += 1
        if parts.meta.session and not session.session_present:
            parts.present.draft.notices.append(
                gap_notice(device=None, first=0, last=0, count=0, kind="session_lost", wall_ms=parts.clock.wall_ms())
            )
            parts.modes.set("gap", True, subject="session", detail="the broker has forgotten our session")
            parts.modes.set("gap", False, subject="session")
            self.wake()
        parts.meta.session = True
        self.on_session(session, "")
        parts.modes.set("broker_away", False)
        parts.delivery.connected(session.generation)

    def on_down(self, code: str, detail: str) -> None:
        self.session = None
        self.on_session(None, f"{code}: {detail}")
        self.parts.metrics.disconnects[code] = self.parts.metrics.disconnects.get(code, 0) + 1
        self.parts.modes.set("broker_away", True, detail=f"{code}: {detail}")
        self.parts.delivery.disconnected()

    def on_settled(self, acknowledged: Sequence[int], refused: Sequence[tuple[int, str]]) -> None:
        letters = self.parts.delivery.settled(acknowledged, refused)
        for item, reason in letters:
            self._letter("publish_refused", f"the broker refused a result: {reason}", item.topic.decode(), item.payload)

    def on_alarm(self, code: str, active: bool, detail: str) -> None:
        self.parts.modes.set(code, active, detail=detail)

    def _letter(self, reason: str, detail: str, topic: str, payload: bytes) -> None:
        parts = self.parts
        notice = parts.letters.letter(
            reason,
            detail,
            topic=topic,
            payload=payload,
            mono_ms=parts.clock.mono_ns() // 1_000_000,
            wall_ms=parts.clock.wall_ms(),
        )
        if notice is not None:
            parts.present.draft.notices.append(notice)
            self.wake()

    def caught_up(self, runner: Runner) -> None:
        """The catch-up has brought a pipeline to the newest event."""
        self.parts.modes.set("lane_behind", False, subject=runner.name)

    def fell_behind(self, pipeline: str) -> None:
        self.parts.modes.set("lane_behind", True, subject=pipeline, detail="events wait in the store")

    def lane_stats(self, pipeline: str, stats: LaneStats) -> None:
        """What the lane of a pipeline says about itself, each tick."""
        modes = self.parts.modes
        stuck = bool(stats.abandoned) or stats.state == "stuck"
        if stuck or "runtime_stuck" in modes.state.codes:
            modes.set("runtime_stuck", stuck, subject=pipeline, detail=f"{stats.abandoned} calls never returned")
        if stats.state == "unusable":
            modes.set("model_unusable", True, subject=pipeline, detail="the model could not be loaded again")

    def set_linger(self, linger_s: float) -> None:
        self._limits = self._limits._replace(linger_s=linger_s)

    # --- stopping ---

    def stop_taking(self) -> None:
        """Take no more messages; what is taken is committed, what is not stays with the broker."""
        self._draining = True
