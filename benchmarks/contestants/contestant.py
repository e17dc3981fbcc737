"""What a contestant is: a process that answers in/<device>; where its results appear; which loads it is put under."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import Broker
from benchmarks.plan import SATURATED, STEADY_1000, Load
from benchmarks.processes import family

STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class Results:
    """How the load generator finds a contestant's answers.

    topic_filter: what to subscribe to.
    device_level: which level of the topic names the device, from 0.
    marker: text in the payload after which the event's "seq" is looked for; "" is anywhere.
    """

    topic_filter: str = "out/+"
    device_level: int = 1
    marker: str = ""


class Contestant(ABC):
    """A program under test. Subclasses say how it is made and started; this class owns the process."""

    name: str
    title: str  # for people
    durable = False  # stores event and result before it acknowledges
    results = Results()
    loads: tuple[Load, ...] = (SATURATED, STEADY_1000)
    window = 1000  # events outstanding at saturation
    _process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Build or install once, before the rounds. Raises NotMeasured, with the cure, where that is impossible."""

    @abstractmethod
    def command(self, port: int, workdir: Path) -> list[str]:
        """Write what it needs into `workdir` (empty, on a real disk); returns the command line."""

    def environment(self) -> dict[str, str] | None:
        """Environment of the process; None inherits ours."""
        return None

    def start(self, broker: Broker, workdir: Path) -> None:
        """Start it and wait until the broker has granted its subscription. Raises NotMeasured with the log's end."""
        before = broker.subscriptions()
        command = self.command(broker.port, workdir)
        with (workdir / "output.txt").open("wb") as sink:
            self._process = subprocess.Popen(command, cwd=workdir, stdout=sink, stderr=sink, env=self.environment())
        broker.await_subscription(before, self._process)

    def verify(self, broker: Broker, workdir: Path) -> Mapping[str, bool]:
        """After the loads: which features that cost time are shown to be on. Nothing to show by default."""
        return {}

    def pids(self) -> list[int]:
        """All its processes; empty when it does not run."""
        return [] if self._process is None or self._process.poll() is not None else family(self._process.pid)

    def stop(self) -> None:
        """Ask it to stop, insist after half a minute. Idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
