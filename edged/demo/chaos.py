"""What is broken on purpose, and how long it takes until nobody notices any more."""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple, Protocol

from edged.demo.proxy import Mode

What = Literal["link_cut", "link_stalled", "kill9"]

_REPEAT_S = 30.0  # an endless demo breaks everything once in this time
_LONGEST_S = 3.0
_STRAY_NS = 200_000_000  # a result this soon after a fault was on its way before; no daemon starts that fast

_SAYS: dict[What, str] = {
    "link_cut": "the cable to the broker is cut",
    "link_stalled": "the network to the broker is a black hole",
    "kill9": "kill -9 of the daemon, started again",
}


class Fault(NamedTuple):
    """`at_s`: since the plant started. `lasts_s`: until the repair; a killed daemon is started again at once."""

    at_s: float
    what: What
    lasts_s: float


class Damage(NamedTuple):
    """A fault that happened. `recovered_s`: from the repair until every result owed by then had arrived, or None."""

    at_s: float
    what: What
    lasted_s: float
    recovered_s: float | None


def plan(seconds: float) -> tuple[Fault, ...]:
    """Three faults in the first two thirds of `seconds`, so that the last third shows that all is well again."""
    lasts_s = min(_LONGEST_S, seconds / 10)
    return (
        Fault(seconds * 0.18, "link_cut", lasts_s),
        Fault(seconds * 0.40, "link_stalled", lasts_s),
        Fault(seconds * 0.60, "kill9", 0.0),
    )


class Cable(Protocol):
    """The link that can be broken (a `Proxy`)."""

    def switch(self, mode: Mode) -> None: ...


class Victim(Protocol):
    """The daemon that can be killed (a `Child`)."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Chaos:
    """Plays the plan. `tick` is called often; times are nanoseconds of the monotonic clock.

    seconds: length of the demo, None for an endless one, which repeats the plan.
    """

    def __init__(self, cable: Cable, victim: Victim, *, start_ns: int, seconds: float | None) -> None:
        self._cable = cable
        self._victim = victim
        self._start_ns = start_ns
        self._round_s = seconds or _REPEAT_S
        self._endless = seconds is None
        self._coming = deque(plan(self._round_s))
        self._fault: Fault | None = None
        self._begun_ns = 0
        self._repaired_ns: int | None = None
        self._back_ns: int | None = None
        self.damages: list[Damage] = []

    @property
    def doing(self) -> str:
        """What goes on, for people; empty while all is well."""
        if self._fault is None:
            return ""
        return _SAYS[self._fault.what] + (": recovering" if self._repaired_ns is not None else "")

    def tick(self, now_ns: int, *, last_result_ns: int, oldest_owed_ns: int | None) -> None:
        """Break, repair, and notice recovery.

        last_result_ns: when SCADA last heard a result. oldest_owed_ns: the event whose result is awaited longest.
        """
        if self._fault is None:
            self._begin(now_ns)
        elif self._repaired_ns is None:
            if now_ns >= self._begun_ns + int(self._fault.lasts_s * 1e9):
                self._repair(now_ns)
        elif self._back_ns is None:
            if last_result_ns > self._repaired_ns + _STRAY_NS:
                self._back_ns = last_result_ns
        elif oldest_owed_ns is None or oldest_owed_ns > self._back_ns:
            self._close(now_ns)

    def end(self, now_ns: int) -> None:
        """The demo ends: repair what is broken; what has not recovered is kept as such."""
        if self._fault is not None and self._repaired_ns is None:
            self._repair(now_ns)
        self._coming.clear()
        self._endless = False

    def report(self) -> list[Damage]:
        """All damages, an unfinished one last."""
        return [*self.damages, *([self._damage(None)] if self._fault is not None else [])]

    def _begin(self, now_ns: int) -> None:
        if not self._coming and self._endless:
            passed_s = (now_ns - self._start_ns) / 1e9
            self._coming.extend(fault._replace(at_s=fault.at_s + passed_s) for fault in plan(self._round_s))
        if not self._coming or now_ns < self._start_ns + int(self._coming[0].at_s * 1e9):
            return
        self._fault = self._coming.popleft()
        self._begun_ns, self._repaired_ns, self._back_ns = now_ns, None, None
        if self._fault.what == "kill9":
            self._victim.kill()
            self._repair(now_ns)
        else:
            self._cable.switch("cut" if self._fault.what == "link_cut" else "stalled")

    def _repair(self, now_ns: int) -> None:
        assert self._fault is not None
        if self._fault.what == "kill9":
            self._victim.start()
        else:
            self._cable.switch("open")
        self._repaired_ns = now_ns

    def _close(self, now_ns: int) -> None:
        assert self._repaired_ns is not None
        self.damages.append(self._damage((now_ns - self._repaired_ns) / 1e9))
        self._fault = None

    def _damage(self, recovered_s: float | None) -> Damage:
        assert self._fault is not None
        until_ns = self._repaired_ns if self._repaired_ns is not None else self._begun_ns
        return Damage(
            at_s=round((self._begun_ns - self._start_ns) / 1e9, 2),
            what=self._fault.what,
            lasted_s=round((until_ns - self._begun_ns) / 1e9, 2),
            recovered_s=None if recovered_s is None else round(recovered_s, 2),
        )
