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
        self._looking: asyncio.Future[DeviceReport | None] | None = None
        self.trouble = ""
        """Why there was no report the last time; "" when there was one."""

    async def look(self) -> DeviceReport | None:
        """What the box says now; None: no answer, so that nothing is known."""
        looking = self._looking = self._looking or self._begin()
        try:
            async with asyncio.timeout(self._patience_s):
                report = await asyncio.shield(looking)
        except TimeoutError:
            self.trouble = f"a read has not returned within {self._patience_s} s"
            return None
        self._looking = None
        return report

    def _begin(self) -> asyncio.Future[DeviceReport | None]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[DeviceReport | None] = loop.create_future()

        def deliver(report: DeviceReport | None, trouble: str) -> None:
            self.trouble = trouble
            if not found.done():
                found.set_result(report)

        def work() -> None:
            report, trouble = None, ""
            try:
                report = self._read()
            except Exception as error:  # noqa: BLE001  no reader should, but for a thermometer the plant is not left alone
                trouble = f"{type(error).__name__}: {error}"
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(deliver, report, trouble)

        threading.Thread(target=work, name="devices", daemon=True).start()
        return found
