"""What the daemon says about itself: `R/health`, `edged status`, metrics. One source of numbers for all three."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.engine.delivery import RESULTS
from edged.ops.meters import Sample
from edged.policy.causes import MODES
from edged.policy.governor import LEVELS
from edged.timestamps import rfc3339_ms

if TYPE_CHECKING:
    from edged.engine.devices import Devices
    from edged.engine.engine import Engine
    from edged.ports import Clock

HEALTH_SCHEMA = "edged.health/1"
STATUS_SCHEMA = "edged.status/1"


class Sections(NamedTuple):
    """Where the numbers of others come from; each is asked when a document is made.

    host: rss, free bytes, temperature, where known. store, link, uplink: their statistics. pressure: level, reasons and
    facts of the governor. device: every number that the box says. accelerators: the processes of devices.
    """

    host: Callable[[], Mapping[str, object]] = dict
    store: Callable[[], Mapping[str, object]] = dict
    link: Callable[[], Mapping[str, object]] = dict
    uplink: Callable[[], Mapping[str, object]] = dict
    pressure: Callable[[], Mapping[str, object]] = dict
    device: Callable[[], Mapping[str, float]] = dict
    accelerators: Callable[[], list[dict[str, object]]] = list


class Report:
    """Reads, never changes."""

    def __init__(
        self, engine: Engine, devices: Devices, clock: Clock, *, identity: Mapping[str, str], sections: Sections
    ) -> None:
        self._engine = engine
        self._devices = devices
        self._clock = clock
        self._identity = dict(identity)
        self._sections = sections
        self._started_ns = clock.mono_ns()

    def health(self, beat: int) -> dict[str, object]:
        """The heartbeat: small, every ten seconds, always different."""
        parts = self._engine.parts
        mode = parts.modes.state
        return {
            "v": HEALTH_SCHEMA,
            "beat": beat,
            "ts": rfc3339_ms(self._clock.wall_ms()),
            "uptime_s": (self._clock.mono_ns() - self._started_ns) // 1_000_000_000,
            "mode": mode.mode,
            "reasons": list(mode.codes),
            "clock": self._clock.quality(),
            "ledger": self.ledger(),
            "waiting_results": parts.delivery.outbox.waiting,
            "devices": self._devices.counts(),
            "latency_ms": parts.metrics.latencies_ms(),
            **self._sync(),
            "host": self._sections.host(),
            **self._governed(),
        }

    def _governed(self) -> dict[str, object]:
        """Level and facts of the governor, and the numbers behind them: only where there is one."""
        pressure = self._sections.pressure()
        return {"pressure": pressure, "device": self._sections.device()} if pressure else {}

    def _sync(self) -> dict[str, object]:
        """The way home: only where there is one."""
        engine = self._engine
        home = engine.parts.home
        if not home.streams:
            return {}
        return {
            "sync": {
                **self._sections.uplink(),
                "receiver": home.receiver,
                "streams": home.books(result=engine.next_result - 1, event=engine.next_event - 1),
            }
        }

    def status(self) -> dict[str, object]:
        """Everything, for `edged status --json`."""
        parts = self._engine.parts
        session = self._engine.session
        return {
            **self.health(0),
            "v": STATUS_SCHEMA,
            "identity": self._identity,
            "link": {
                "up": session is not None,
                "protocol": session.protocol if session else None,
                "receive_maximum": session.receive_maximum if session else None,
                "refused_filters": [list(pair) for pair in session.refused] if session else [],
                **self._sections.link(),
            },
            "store": self._sections.store(),
            "accelerators": self._sections.accelerators(),
            "pipelines": {runner.name: runner.report() for runner in parts.runners},
            "reasons": [
                {"code": r.code, "subject": r.subject, "since": rfc3339_ms(r.since_ms), "detail": r.detail}
                for r in parts.modes.state.reasons
            ],
            "outbox": {
                "in_flight": parts.delivery.outbox.in_flight,
                "resent": parts.delivery.outbox.resent,
                "notices_refused": parts.delivery.notices.refused,
                "retained_refused": parts.delivery.board.refused,
            },
            "next_event": self._engine.next_event,
            "next_result": self._engine.next_result,
        }

    def ledger(self) -> dict[str, object]:
        """The terms of every stream, and whether they add up."""
        ledger = self._engine.parts.meta.ledger
        terms: dict[str, object] = msgspec.to_builtins(ledger)
        waiting = self._engine.next_result - 1 - self._engine.parts.delivery.outbox.delivered
        return {**terms, "balanced": ledger.balanced({RESULTS: waiting})}

    def samples(self) -> Iterator[Sample]:
        """What only has a value at the moment of asking, for Prometheus."""
        engine = self._engine
        ledger = engine.parts.meta.ledger
        text = "Events by stream and outcome"
        for stream, terms in ledger.inputs.items():
            for outcome, n in (("received", terms.received), ("stored", terms.stored), ("duplicate", terms.duplicates)):
                yield Sample("counter", "edged_events", text, {"stream": stream, "outcome": outcome}, n)
            for reason, n in terms.refused.items():
                yield Sample("counter", "edged_refused", "Refused events", {"stream": stream, "reason": reason}, n)
            for reason, n in terms.shed.items():
                yield Sample("counter", "edged_shed", "Shed events", {"stream": stream, "reason": reason}, n)
        for pipeline, reasons in ledger.left_out.items():
            for reason, n in reasons.items():
                labels = {"pipeline": pipeline, "reason": reason}
                yield Sample("counter", "edged_left_out", "Windows left out by declared policy", labels, n)
        text = "Rows by what a cascade told: who answered instead, or why not the larger model"
        for runner in engine.parts.runners:
            for note, n in runner.told.items():
                yield Sample("counter", "edged_told", text, {"pipeline": runner.name, "note": note}, n)
        yield Sample("gauge", "edged_results_waiting", "Results the broker has not acknowledged", {}, self._waiting())
        for state, n in self._devices.counts().items():
            yield Sample("gauge", "edged_devices", "Devices by state", {"state": state}, n)
        home = engine.parts.home
        for stream, books in home.books(result=engine.next_result - 1, event=engine.next_event - 1).items():
            for term, n in books.items():
                labels = {"stream": stream, "term": term}
                yield Sample("gauge", "edged_sync_rows", "Rows made, home and waiting, by stream", labels, n)
        yield Sample("gauge", "edged_link_up", "Connected and subscribed", {}, int(engine.session is not None))
        yield from self._pressure_samples()
        mode = engine.parts.modes.mode
        for name in MODES:
            yield Sample("gauge", "edged_mode", "The mode (1) among all", {"mode": name}, int(name == mode))

    def _pressure_samples(self) -> Iterator[Sample]:
        level = self._sections.pressure().get("level")
        if level in LEVELS:
            text = "Level of the governor: 0 full work to 4 essential"
            yield Sample("gauge", "edged_governor_level", text, {}, LEVELS.index(level))
        for reading, value in self._sections.device().items():
            yield Sample("gauge", "edged_device", "What the box says; unknown is absent", {"reading": reading}, value)

    def _waiting(self) -> int:
        return self._engine.parts.delivery.outbox.waiting
