"""Looks at the devices again and again without ever being kept waiting: a read that hangs costs its value, no more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from edged.ops.sensors.report import DeviceReport

PATIENCE_S = 5.0


class DeviceWatch:
    """`look` gives the newest report. Each look has a thread of its own that the end of the process does not wait for.

    read: the blocking look. While one hangs no other is begun: threads would pile up behind a sick driver.
    """

    def __init__(self, read: Callable[[], DeviceReport], patience_s: float = PATIENCE_S) -> None:
        self._read = read
        self._patience_s = patience_s
        self._looking: asyncio.Future[DeviceReport] | None = None
        self.stuck = 0
        """How often there was no report because a read did not return in time."""

    async def look(self) -> DeviceReport | None:
        """What the box says now; None: it has not answered in time, so that nothing is known."""
        if self._looking is None:
            self._looking = self._begin()
        looking = self._looking
        try:
            async with asyncio.timeout(self._patience_s):
                report = await asyncio.shield(looking)
        except TimeoutError:
            self.stuck += 1
            return None
        finally:
            if looking.done():
                self._looking = None
        return report

    def _begin(self) -> asyncio.Future[DeviceReport]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[DeviceReport] = loop.create_future()

        def deliver(report: DeviceReport | None, error: BaseException | None) -> None:
            if found.cancelled():
                return
            if error is not None:
                found.set_exception(error)
            elif report is not None:
                found.set_result(report)

        def work() -> None:
            report, fault = None, None
            try:
                report = self._read()
            except Exception as error:  # noqa: BLE001  handed to the loop: readers raise nothing, so it is our bug
                fault = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(deliver, report, fault)

        threading.Thread(target=work, name="devices", daemon=True).start()
        return found
