"""The database of one worker: opened when it is there, looked at regularly, and called away as soon as it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from edged.errors import EdgedError
from edged.hub.ports import DatabaseAway

if TYPE_CHECKING:
    from edged.hub.ports import Database
    from edged.ops.logs import Log
    from edged.ports import Clock

PROBE_EVERY_S = 5.0
IDLE_AFTER_S = 4.0  # a commit within this time says more than a look
PAUSES_S = (0.5, 1.0, 2.0, 5.0)  # between two attempts while it is away; the last one is kept
PEACEFUL_LOOKS = 2  # that end a trouble which commits met, when no commit comes to show it
OPEN_TIMEOUT_S = 120.0  # of an attempt; migrating a schema is part of the first one
CLOSE_TIMEOUT_S = 5.0

Open = Callable[[], Awaitable["Database"]]
Probe = Callable[["Database"], Awaitable[None]]


class Keeper:
    """Says whether the database serves. Batches are handed to it only while it does; one task looks after it."""

    def __init__(
        self, open_database: Open, probe: Probe, clock: Clock, log: Log, *, remembered: str = "", pause_s: float = 1.0
    ) -> None:
        self._open = open_database
        self._probe = probe
        self._clock = clock
        self._log = log
        self._pause_scale = pause_s
        self._database: Database | None = None
        self._receiver = remembered
        self._fault = "not opened yet"
        self._troubled_since_ns: int | None = clock.mono_ns()
        self._doubts = 0
        self._committed_ns = 0
        self._poked = asyncio.Event()

    # --- what others see ---

    @property
    def receiver(self) -> str:
        """Identity of the database; the remembered one until it was open for the first time."""
        return self._receiver

    @property
    def fault(self) -> str:
        """Why it does not serve; "" while it does."""
        return self._fault

    def serving(self) -> Database | None:
        """The database, or None while it is away."""
        return None if self._fault else self._database

    def troubled_s(self) -> float:
        """For how long commits have not been possible, or failed; 0 while all is well."""
        since_ns = self._troubled_since_ns
        return 0.0 if since_ns is None else (self._clock.mono_ns() - since_ns) / 1e9

    # --- what the receiver tells ---

    def failed(self, error: EdgedError) -> None:
        """Away: nothing more is handed over until a look at it succeeds."""
        self._call_away(error)
        self._doubts = PEACEFUL_LOOKS
        self._poked.set()

    def slow(self) -> None:
        """A commit did not end in time; the next one may."""
        self._log.warning("database_slow")
        self._trouble()
        self._doubts = PEACEFUL_LOOKS

    def committed(self) -> None:
        self._troubled_since_ns = None
        self._doubts = 0
        self._committed_ns = self._clock.mono_ns()

    def _trouble(self) -> None:
        if self._troubled_since_ns is None:
            self._troubled_since_ns = self._clock.mono_ns()

    def _call_away(self, error: EdgedError) -> None:
        self._trouble()
        if self._fault != str(error):
            self._fault = str(error)
            self._log.warning("database_away", detail=self._fault)

    # --- the task ---

    async def run(self) -> None:
        """Look after it until cancelled."""
        failures = 0
        while True:
            failures = 0 if await self._look() else failures + 1
            pause_s = PAUSES_S[min(failures, len(PAUSES_S)) - 1] if failures else PROBE_EVERY_S
            self._poked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s * self._pause_scale):
                    await self._poked.wait()  # what a commit meets is looked into at once

    async def _look(self) -> bool:
        """Open it, or see whether it answers; True when it serves."""
        if not self._fault and self._clock.mono_ns() - self._committed_ns < IDLE_AFTER_S * 1e9:
            return True
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                if self._database is None:
                    self._database = await self._open()
                else:
                    await self._probe(self._database)
        except TimeoutError:
            self._call_away(DatabaseAway(f"no answer within {OPEN_TIMEOUT_S:.0f} s"))
            return False
        except EdgedError as error:  # away, or a schema that does not fit: somebody may repair it at any time
            self._call_away(error)
            return False
        if self._fault:
            self._receiver = self._database.receiver
            self._fault = ""
            self._log.info("database_serves", receiver=self._receiver, after_s=round(self.troubled_s(), 1))
        self._doubts = max(0, self._doubts - 1)
        if not self._doubts:
            self._troubled_since_ns = None
        return True

    async def close(self) -> None:
        if self._database is not None:
            with suppress(TimeoutError, EdgedError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._database.close()
            self._database = None
        self._fault = "closed"
