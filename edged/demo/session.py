"""One run on the main thread: takes the facts from the queue, keeps the books, drives chaos, shows the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import Empty
from typing import Any

from edged.demo.accelerator import Accelerator
from edged.demo.accounting import Accounts
from edged.demo.chaos import Chaos
from edged.demo.facts import Acknowledged, Broken, Facts, Heard, Published
from edged.demo.hub import HubBooks, Line
from edged.demo.processes import Child, DemoError
from edged.demo.scada import Picture
from edged.demo.settings import CONDITION, PIPELINES, ROOT
from edged.demo.show import Show
from edged.demo.summary import Centre, Summary
from edged.demo.view import Screen
from edged.demo.waiting import Waiter

_RECENT = 1000  # latencies that the live percentiles are made of


class Session:
    """From "is it online?" to the summary; every wait is bounded and keeps the books up to date."""

    def __init__(
        self, waiter: Waiter, broker: Child, edged: Child, facts: Facts, show: Show, *, hub: Child | None = None
    ) -> None:
        self._waiter = waiter
        self._clock = waiter.clock
        self._broker = broker
        self._edged = edged
        self._children = [child for child in (broker, edged, hub) if child is not None]
        self._facts = facts
        self._show = show
        self._accounts = Accounts(PIPELINES)
        self._picture = Picture(ROOT, CONDITION.name)
        self._phase = "starting"
        self._seconds: float | None = None
        self._start_ns = self._clock.mono_ns()
        self.chaos: Chaos | None = None
        self.line: Line | None = None
        self.accelerator: Accelerator | None = None

    def wait_until_online(self, within_s: float) -> None:
        """The plant must not start before the daemon has subscribed: what comes earlier nobody owes an answer."""
        done = self._waiter.until(
            lambda: self._picture.state == "online" or self._waiter.interrupted.is_set(), within_s, each=self._turn
        )
        if not done:
            raise DemoError(
                f"the daemon did not say `online` on {ROOT}/state within {within_s:g} s; its log ends with:\n"
                f"{self._edged.log_tail()}"
            )

    def begin(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._start_ns = self._clock.mono_ns()
        self._phase = "running"

    def watch(self) -> None:
        """Until time is up or somebody asks to end."""
        while not self._waiter.interrupted.is_set() and (self._seconds is None or self._elapsed_s() < self._seconds):
            self._turn()
            self._waiter.pause(0.02)
        self._seconds = self._elapsed_s()
        if self.chaos is not None:
            self.chaos.end(self._clock.mono_ns())
        if self.line is not None:
            self.line.end(self._clock.mono_ns())

    def drain(self, plant_busy: Callable[[], bool], within_s: float) -> None:
        """Wait for what is still owed; what is owed after that counts as lost."""
        self._phase = "plant stopped, waiting for what is owed"
        self._waiter.until(
            lambda: not plant_busy() and not self._take() and not self._accounts.owed and self._at_home(),
            within_s,
            each=self._turn,
        )

    def _at_home(self) -> bool:
        """Whether the hub has called home everything that SCADA saw."""
        return self.line is None or self._picture.home >= self._picture.made

    def linger(self, seconds: float) -> None:
        self._waiter.until(lambda: False, seconds, each=self._turn)

    def close(
        self,
        ask_ledger: Callable[[], Mapping[str, Any] | None],
        ask_hub: Callable[[], HubBooks | None] = lambda: None,
    ) -> Summary:
        """Ask for the books, stop the daemon as systemd would, hear its last words, and sum up.

        ask_ledger: `R/health` comes every ten seconds only; None when nobody answers, then the last one heard counts.
        """
        self._phase = "stopping the daemon"
        self._show.frame(self._screen)
        mode, ledger = self._picture.mode, ask_ledger() or self._picture.ledger
        status = self._edged.stop()
        self._waiter.pause(0.1)
        self._take()
        self._picture.mode = mode
        return Summary(
            seconds=self._seconds or 0.0,
            tally=self._accounts.tally(),
            picture=self._picture,
            ledger=ledger,
            damages=self.chaos.report() if self.chaos is not None else (),
            daemon_exit=status,
            centre=Centre(self._picture.made, ask_hub(), self.line.cut_s) if self.line is not None else None,
            outages=self.accelerator.outages if self.accelerator is not None else None,
        )

    def _turn(self) -> None:
        self._take()
        for child in self._children:
            if child.ended() is not None:
                raise DemoError(
                    f"{child.name} ended by itself with status {child.ended()}; its log ends with:\n{child.log_tail()}"
                )
        if self.line is not None:
            self.line.tick(self._clock.mono_ns())
        if self.accelerator is not None and self._phase == "running":
            self.accelerator.tick(self._clock.mono_ns())
        if self.chaos is not None:
            self.chaos.tick(
                self._clock.mono_ns(),
                last_result_ns=self._picture.last_result_ns,
                oldest_owed_ns=self._accounts.oldest_owed_ns,
            )
        self._show.frame(self._screen)

    def _take(self) -> bool:
        """Take what the threads have reported; True when there was something."""
        some = False
        while True:
            try:
                fact = self._facts.get_nowait()
            except Empty:
                return some
            some = True
            match fact:
                case Heard():
                    seen = self._picture.hear(fact)
                    if seen is not None:
                        self._accounts.result(seen)
                    if self.accelerator is not None:
                        self._watch_accelerator(self.accelerator, fact, is_result=seen is not None)
                case Published():
                    self._accounts.published(fact.device, fact.seq, fact.at_ns)
                case Acknowledged():
                    self._accounts.acknowledged(fact.device, fact.seq, fact.at_ns)
                case Broken():
                    raise DemoError(f"{fact.what}; the broker's log ends with:\n{self._broker.log_tail()}")

    def _watch_accelerator(self, accelerator: Accelerator, fact: Heard, *, is_result: bool) -> None:
        picture = self._picture
        if is_result:
            accelerator.result(picture.runtime, picture.degraded, fact.at_ns)
        elif fact.topic.endswith("/mode"):
            accelerator.reasons(picture.reasons, fact.at_ns)

    def _elapsed_s(self) -> float:
        return (self._clock.mono_ns() - self._start_ns) / 1e9

    def _screen(self) -> Screen:
        return Screen(
            elapsed_s=self._elapsed_s(),
            seconds=self._seconds,
            picture=self._picture,
            tally=self._accounts.tally(),
            recent_ms=self._accounts.recent_ms(_RECENT),
            doing=self.chaos.doing if self.chaos is not None else "",
            damages=self.chaos.damages if self.chaos is not None else (),
            phase=self._phase,
            line=None if self.line is None else "cut" if self.line.cut else "open",
            outages=self.accelerator.outages if self.accelerator is not None else None,
        )
