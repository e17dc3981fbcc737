"""Looks after the processes of the accelerators: are they alive, are they due to be replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from edged.errors import ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.parity import PROBE_S, check_parity, probe_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edged.config.hardware import HardwareClass
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions
    from edged.ops.logs import Log
    from edged.ports import Clock, Model

CHECK_S = 1.0
CLOSE_S = 4.0  # a process gets its grace, then it is ended


class Statistics(Protocol):
    """One device, as a named tuple."""

    def _asdict(self) -> dict[str, object]: ...


class Processes(Protocol):
    """What is needed of `edged.infer.hosting.devices.Devices`."""

    def load(self, rung: str, file: ModelFile, options: LoadOptions) -> Model: ...

    def prepare(self, rung: str, file: ModelFile, options: LoadOptions, timeout_s: float) -> None: ...

    def check(self) -> Sequence[str]: ...

    def due(self) -> Sequence[str]: ...

    def recycle(self, rung: str, prove: Callable[[Model, Model], None] | None = None) -> bool: ...

    def statistics(self) -> Sequence[Statistics]: ...

    def close(self, timeout_s: float) -> None: ...


class Accelerators:
    """All processes of accelerators of one daemon; implements `edged.infer.rung.Hosting`.

    make: called when the first one is needed; a gateway without an accelerator never pays for them.
    """

    def __init__(self, make: Callable[[], Processes], log: Log) -> None:
        self._make = make
        self._log = log
        self._processes: Processes | None = None
        self._lock = Lock()

    # --- for the chains, from their threads ---

    def load(self, rung: str, file: ModelFile, options: LoadOptions) -> Model:
        return self._needed().load(rung, file, options)

    def prepare(self, rung: str, file: ModelFile, options: LoadOptions, timeout_s: float) -> None:
        self._needed().prepare(rung, file, options, timeout_s)

    def _needed(self) -> Processes:
        with self._lock:
            if self._processes is None:
                self._processes = self._make()
            return self._processes

    # --- for the daemon ---

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            if self._processes is not None:
                await asyncio.to_thread(self.look)
            await asyncio.sleep(CHECK_S)

    def look(self) -> None:
        """One round. A replacement that does not succeed leaves the old process at work."""
        processes = self._needed()
        processes.check()
        for rung in processes.due():
            try:
                processes.recycle(rung, _prove)
            except ModelError as error:
                self._log.warning("recycling_failed", rung=rung, code=error.code, detail=error.message)

    def report(self) -> list[dict[str, object]]:
        """Every device that ever had a process, for `edged status`."""
        return [] if self._processes is None else [each._asdict() for each in self._processes.statistics()]

    async def close(self) -> None:
        if self._processes is not None:
            await asyncio.to_thread(self._processes.close, CLOSE_S)


def processes_of(
    clock: Clock, log: Log, hardware: HardwareClass, available_bytes: Callable[[], int | None]
) -> Callable[[], Processes]:
    """Makes the real ones, as the hardware class has them. available_bytes: free memory, None where nobody knows."""

    def make() -> Processes:
        from edged.infer.hosting.devices import Devices  # most gateways never need it
        from edged.infer.hosting.limits import WorkerLimits

        limits = WorkerLimits()
        limits = limits._replace(
            # The chain decides how often a device is started; this bound is never tighter.
            starts_count=max(limits.starts_count, hardware.fallback.restarts),
            recycle_calls=hardware.recycle.calls,
            recycle_rss_bytes=hardware.recycle.resident_bytes,
        )
        return Devices(clock, limits, log=log, available_bytes=available_bytes)

    return make


def _prove(model: Model, successor: Model) -> None:
    """A successor answers as the one before it did. Raises `ModelError`."""
    before, after = (probe_answers(free_batch(each), PROBE_S) for each in (model, successor))
    check_parity(after, before, f"the successor on {successor.info.runtime}", "its predecessor")
