"""What SCADA knows of the gateway: a fold over the messages below its root. No clock, no I/O.

Nothing here looks into the daemon: everything is learnt from its published topics, as a control room would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edged.demo.accounting import Seen
from edged.demo.facts import Heard

_READ = frozenset({"sync", "result", "state", "mode", "health", "gap", "dlq", "alarm", "device"})
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass
class Device:
    """One pump as SCADA sees it."""

    label: str | None = None
    label_score: float | None = None
    anomaly: float | None = None
    quality: int | None = None
    state: str = "unknown"
    results: int = 0
    alarms: dict[str, str] = field(default_factory=dict)  # code -> active | acknowledged


@dataclass
class Picture:
    """Everything SCADA has heard so far. `root`: the gateway's topic root; `labelled`: the pipeline with labels."""

    root: str
    labelled: str
    state: str = "unknown"
    mode: str = "unknown"
    reasons: tuple[str, ...] = ()
    devices: dict[str, Device] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    last_result_ns: int = 0
    runtime: str = ""
    """What computed the newest result, and whether it says that something is not as configured."""
    degraded: bool = False
    alarms_raised: int = 0
    gaps: int = 0
    missing_events: int = 0
    letters: Counter[str] = field(default_factory=Counter)
    bad_results: int = 0
    unreadable: int = 0
    made: int = 0
    """Newest number of a result that SCADA has seen."""
    home: int = 0
    """Results that the hub has called home."""

    def hear(self, heard: Heard) -> Seen | None:
        """Take one message; returns the result it carried, if it was one."""
        branch, *rest = heard.topic.removeprefix(self.root + "/").split("/")
        if branch not in _READ:
            return None
        try:
            if branch == "sync" and rest != ["result", "ack"]:
                return None
            body = _decode(heard.payload) if heard.payload else {}
            if branch == "result":
                return self._result(body, heard.at_ns)
            self._notice(branch, rest, body, cleared=not heard.payload)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            self.unreadable += 1
        return None

    def _result(self, body: Mapping[str, Any], at_ns: int) -> Seen:
        seen = Seen(body["pipeline"], body["device"], int(body["input"]["seq"]), body["id"], at_ns)
        device = self._device(seen.device)
        device.results += 1
        device.quality = body["quality"]
        if not body["quality"]:
            self.bad_results += 1
        elif seen.pipeline == self.labelled:
            device.label, device.label_score = body["label"], body["score"]
        else:
            device.anomaly = body["score"]
        self.runtime, self.degraded = str(body.get("runtime", "")), bool(body.get("degraded"))
        self.made = max(self.made, int(body.get("seq") or 0))
        self.last_result_ns = at_ns
        return seen

    def _notice(self, branch: str, rest: list[str], body: Mapping[str, Any], *, cleared: bool) -> None:
        if branch == "state":
            self.state = str(body.get("state", "unknown"))
        elif branch == "mode":
            self.mode = str(body["mode"])
            self.reasons = tuple(_code(reason) for reason in body.get("reasons", ()))
        elif branch == "health":
            self.health = body
        elif branch == "gap":
            self.gaps += 1
            self.missing_events += int(body.get("count") or 0)
        elif branch == "dlq" and rest:
            self.letters[rest[0]] += 1 + int(body.get("suppressed") or 0)
        elif branch == "sync":
            beyond = sum(last - first + 1 for first, last in body.get("ranges", ()))
            self.home = max(self.home, int(body["upto"]) + beyond)
        elif branch == "alarm" and len(rest) == 2:
            self._alarm(self._device(rest[0]), rest[1], "cleared" if cleared else str(body["state"]))
        elif branch == "device" and len(rest) == 2:
            self._device(rest[0]).state = str(body.get("state", "unknown"))

    def _alarm(self, device: Device, code: str, state: str) -> None:
        if state == "cleared":
            device.alarms.pop(code, None)
            return
        if code not in device.alarms:
            self.alarms_raised += 1
        device.alarms[code] = state

    def _device(self, name: str) -> Device:
        return self.devices.setdefault(name, Device())

    @property
    def ledger(self) -> dict[str, Any]:
        """The terms of the newest `R/health`; empty before the first."""
        return dict(self.health.get("ledger") or {})


def _code(reason: object) -> str:
    """A reason is a code, or an object that has one."""
    return str(reason.get("code", reason)) if isinstance(reason, Mapping) else str(reason)
