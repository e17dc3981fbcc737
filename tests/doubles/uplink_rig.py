"""An `Uplink` with its child process over a store in a file, and everything it told."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from edged.config.settings import Upstream
from edged.mqtt.backoff import Backoff
from edged.ops.clock import SystemClock
from edged.ops.logs import Log
from edged.sync.protocol import Range, Stream
from edged.sync.ranges import Ranges, add
from edged.uplink.lines import Start, Status
from edged.uplink.supervisor import Callbacks, Uplink

CLOCK = SystemClock()  # reads files when made: not on a running loop
CHILD = (sys.executable, "-P", "-m", "tests.doubles.uplink_child")
FAST = Backoff(first_s=0.1, cap_s=0.2)
WITHIN_S = 30.0


class UplinkRig:
    """`make` rewrites the store and tells the news, as the daemon does after a commit."""

    def __init__(self, folder: Path, url: str, *, command: tuple[str, ...] = CHILD, **upstream: Any) -> None:
        settings: dict[str, Any] = {
            "client_id": "edged-up-s-g",
            "rate_limit_kbit_s": 10_000_000,
            "reconnect_spread_s": 0,
            "live_interval_ms": 100,
        }
        self.folder = folder
        self.next: dict[Stream, int] = {"alarm": 1, "result": 1, "health": 1}
        self.lost: list[tuple[Stream, int, int, str]] = []
        self.home: dict[Stream, Ranges] = {}
        self.rejected: list[tuple[Stream, int, int, str]] = []
        self.forks: list[tuple[str, int]] = []
        self.reasons: list[tuple[str, bool, str]] = []
        self.status: Status | None = None
        self.logged: list[str] = []
        self.calls = 0
        self.buries = True
        self._save()
        start = Start(
            site="s",
            gateway="g",
            version="1",
            state_dir=str(folder),
            upstream=replace(Upstream(url=url), **{**settings, **upstream}),
        )
        callbacks = Callbacks(
            on_synced=self._on_synced,
            on_rejected=self._on_rejected,
            on_fork=lambda epoch, seq: self.forks.append((epoch, seq)),
            on_status=self._on_status,
            on_reason=lambda code, active, detail: self.reasons.append((code, active, detail)),
        )
        self.uplink = Uplink(
            start,
            callbacks,
            clock=CLOCK,
            log=Log(CLOCK, write=self.logged.append, journal=False),
            chance=lambda: 0.5,
            command=command,
            backoff=FAST,
        )
        self._task: asyncio.Task[None] | None = None

    # --- the daemon's side ---

    def make(self, stream: Stream, rows: int) -> int:
        """Commit rows; returns the newest number."""
        self.next[stream] += rows
        self._save()
        self.uplink.news(dict(self.next.items()), urgent=stream == "alarm")
        return self.next[stream] - 1

    def _save(self) -> None:
        part = self.folder / "store.part"
        part.write_text(json.dumps({"next": self.next, "lost": self.lost}))
        part.replace(self.folder / "store.json")

    def _on_synced(self, stream: Stream, ranges: tuple[Range, ...]) -> None:
        self.calls += 1
        for first, last in ranges:
            self.home[stream] = add(self.home.get(stream, ()), first, last)

    def _on_rejected(self, stream: Stream, first: int, last: int, reason: str) -> None:
        self.rejected.append((stream, first, last, reason))
        if self.buries:
            self.lost.append((stream, first, last, "rejected"))
            loop = asyncio.get_running_loop()
            saved = loop.run_in_executor(None, self._save)
            saved.add_done_callback(lambda _: self.uplink.gave_up(stream, first, last))

    def _on_status(self, status: Status) -> None:
        self.status = status

    # --- the test's side ---

    async def __aenter__(self) -> UplinkRig:
        self._task = asyncio.get_running_loop().create_task(self.uplink.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.uplink.stop()
        assert self._task is not None
        await self._task

    @property
    def active(self) -> set[str]:
        found: set[str] = set()
        for code, on, _ in self.reasons:
            (found.add if on else found.discard)(code)
        return found

    def all_home(self) -> bool:
        return all(self.home.get(name, ()) == ((1, number - 1),) for name, number in self.next.items() if number > 1)

    async def until(self, condition: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"after {within_s} s still not: {what}; {self!r}")
            await asyncio.sleep(0.01)

    def __repr__(self) -> str:
        return f"home={self.home} next={self.next} reasons={self.reasons} status={self.status} log={self.logged}"
