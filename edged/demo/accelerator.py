"""The demo's accelerator: a stand-in in a process of its own, and what happens when that process is killed.

The stand-in computes on the processor, with onnxruntime; what it shares with a real accelerator is everything around
the computing: its process, its death, the fall to the next runtime and the return.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.infer.registry import find_runtime
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy as np

    from edged.infer.loading import ModelFile
    from edged.messages import ModelInfo
    from edged.ports import Model

RUNG = "demo:accelerator"
CHAIN = (RUNG, "onnxruntime:cpu")
REASON = "fallback_runtime"
RETURN_S = 40.0
"""Within this time after its death all is as before: a pause, a start, the proof that it stays, a reason's hold."""
_WORKER = b"edged.infer.hosting.worker"
_KILL_AT = 0.15  # of the run, so that the rest shows the return
_ROUND_S = 60.0


class StandIn:
    """Implements `edged.infer.runtime.Runtime`; an entry point of the group `edged.runtimes`, as any plug-in's."""

    name = "demo"

    def abilities(self, device: str) -> Abilities:
        return Abilities(("onnx",), isolation="process")

    def probe(self, device: str) -> Probe:
        return Probe(True, (Device(device, "cpu", "the demo's stand-in, which computes on the processor"),))

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> Model:
        return _Renamed(find_runtime("onnxruntime").load(model, "cpu", options))

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth("ok")


RUNTIME = StandIn()


class _Renamed:
    """A model under the name of the stand-in, so that SCADA can tell who answered."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.info: ModelInfo = model.info._replace(runtime=RUNG)

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        return self._model.infer(batch, deadline_s=deadline_s)

    def close(self) -> None:
        self._model.close()


class Outage(NamedTuple):
    """One death of the accelerator as SCADA saw it. Times in seconds since the kill; None: it did not come to that.

    fallback_s: first result of another runtime. results: how many those were; degraded: how many of them said so.
    told_s: the mode gave the reason. return_s: first result of the accelerator again. ended_s: the reason had left.
    """

    at_s: float
    fallback_s: float | None = None
    results: int = 0
    degraded: int = 0
    told_s: float | None = None
    return_s: float | None = None
    ended_s: float | None = None

    @property
    def complete(self) -> bool:
        """Fallen, told, returned, and the reason left."""
        return self.honest and None not in (self.told_s, self.return_s, self.ended_s)

    @property
    def honest(self) -> bool:
        """Another runtime answered, and each of its results said that something was not as configured."""
        return self.results > 0 and self.degraded == self.results


class Accelerator:
    """Kills the process of the accelerator and writes down what SCADA sees. Times are nanoseconds, monotonic."""

    def __init__(self, kill: Callable[[], int], *, start_ns: int, seconds: float | None) -> None:
        self._kill = kill
        self._start_ns = start_ns
        self._every_s = seconds or _ROUND_S
        self._endless = seconds is None
        self._next_s = self._every_s * _KILL_AT
        self._killed_ns = 0
        self._over = True
        self.outages: list[Outage] = []
        self.serving = ""

    def tick(self, now_ns: int) -> None:
        """Kill when it is time and the accelerator serves."""
        passed_s = (now_ns - self._start_ns) / 1e9
        if passed_s < self._next_s or self.serving != RUNG or not self._over or not self._kill():
            return
        self._next_s = passed_s + self._every_s if self._endless else float("inf")
        self._killed_ns, self._over = now_ns, False
        self.outages.append(Outage(round(passed_s, 2)))

    def result(self, runtime: str, degraded: bool, at_ns: int) -> None:
        """SCADA heard a result."""
        self.serving = runtime
        if self._over:
            return
        outage = self.outages[-1]
        if runtime != RUNG:
            first_s = self._since_s(at_ns) if outage.fallback_s is None else outage.fallback_s
            outage = outage._replace(
                fallback_s=first_s, results=outage.results + 1, degraded=outage.degraded + int(degraded)
            )
        elif outage.results and outage.return_s is None:
            outage = outage._replace(return_s=self._since_s(at_ns))
        self.outages[-1] = outage

    def reasons(self, codes: Collection[str], at_ns: int) -> None:
        """SCADA heard why the mode is what it is."""
        if self._over:
            return
        outage = self.outages[-1]
        if REASON in codes and outage.told_s is None:
            self.outages[-1] = outage._replace(told_s=self._since_s(at_ns))
        elif REASON not in codes and outage.return_s is not None:
            self.outages[-1] = outage._replace(ended_s=self._since_s(at_ns))
            self._over = True

    def _since_s(self, at_ns: int) -> float:
        return round((at_ns - self._killed_ns) / 1e9, 3)


def kill_workers(daemon_pid: int) -> int:
    """SIGKILL to the processes that the daemon has for devices; how many there were."""
    killed = 0
    for children in Path(f"/proc/{daemon_pid}/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            if _WORKER in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed
