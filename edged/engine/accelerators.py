"""Looks after the processes of the accelerators: are they alive, are they due to be replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from edged.errors import ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.hosting.devices import Devices, DeviceStats
from edged.infer.hosting.limits import WorkerLimits
from edged.infer.parity import PROBE_S, check_parity, probe_answers

if TYPE_CHECKING:
    from edged.ops.logs import Log
    from edged.ports import Clock, Model

CHECK_S = 1.0
CLOSE_S = 4.0  # a process gets its grace, then it is ended


class Accelerators:
    """All processes of accelerators of one daemon. `run` looks at them until it is cancelled.

    restarts: what a chain allows a device; the bound on starts of processes is never tighter. available_bytes: free
    memory, None where nobody knows.
    """

    def __init__(
        self, clock: Clock, log: Log, *, restarts: int, available_bytes: Callable[[], int | None] = lambda: None
    ) -> None:
        limits = WorkerLimits()
        limits = limits._replace(starts_count=max(limits.starts_count, restarts))
        self.devices = Devices(clock, limits, log=log, available_bytes=available_bytes)
        self._log = log

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(CHECK_S)

    def look(self) -> None:
        """One round. A replacement that does not succeed leaves the old process at work."""
        self.devices.check()
        for rung in self.devices.due():
            try:
                self.devices.recycle(rung, _prove)
            except ModelError as error:
                self._log.warning("recycling_failed", rung=rung, code=error.code, detail=error.message)

    def report(self) -> list[dict[str, object]]:
        """Every device that ever had a process, for `edged status`."""
        return [stats._asdict() for stats in self.statistics()]

    def statistics(self) -> tuple[DeviceStats, ...]:
        return self.devices.statistics()

    async def close(self) -> None:
        await asyncio.to_thread(self.devices.close, CLOSE_S)


def _prove(model: Model, successor: Model) -> None:
    """A successor answers as the one before it did. Raises `ModelError`."""
    before, after = (probe_answers(free_batch(each), PROBE_S) for each in (model, successor))
    check_parity(after, before, f"the successor on {successor.info.runtime}", "its predecessor")
