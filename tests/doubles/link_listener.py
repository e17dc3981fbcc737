"""A listener that writes down what the link tells it, and lets tests wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from edged.ports import SessionInfo

DEADLINE_S = 20.0


class RecordingListener:
    """Implements `edged.ports.LinkListener`."""

    def __init__(self) -> None:
        self.sessions: list[SessionInfo] = []
        self.downs: list[tuple[str, str]] = []
        self.acknowledged: list[int] = []
        self.refused: list[tuple[int, str]] = []
        self.alarms: list[tuple[str, bool, str]] = []
        self.inbox_calls = 0
        self.settled_calls = 0
        self._changed = asyncio.Event()
        self.when_inbox: Callable[[], None] | None = None
        self.when_up: Callable[[SessionInfo], None] | None = None
        self.when_settled: Callable[[], None] | None = None

    def on_inbox(self) -> None:
        self.inbox_calls += 1
        self._changed.set()
        if self.when_inbox is not None:
            self.when_inbox()

    def on_up(self, session: SessionInfo) -> None:
        self.sessions.append(session)
        self._changed.set()
        if self.when_up is not None:
            self.when_up(session)

    def on_down(self, code: str, detail: str) -> None:
        self.downs.append((code, detail))
        self._changed.set()

    def on_settled(self, acknowledged: Sequence[int], refused: Sequence[tuple[int, str]]) -> None:
        self.settled_calls += 1
        self.acknowledged += acknowledged
        self.refused += refused
        self._changed.set()
        if self.when_settled is not None:
            self.when_settled()

    def on_alarm(self, code: str, active: bool, detail: str) -> None:
        self.alarms.append((code, active, detail))
        self._changed.set()

    async def until(self, condition: Callable[[], object], what: str, *, within_s: float = DEADLINE_S) -> None:
        """Wait until `condition` holds; looked at after each call of the link, and 50 times a second besides."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {within_s} s for {what}; seen: {self}")
            self._changed.clear()
            try:
                async with asyncio.timeout(0.02):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def __repr__(self) -> str:
        return (
            f"sessions={self.sessions} downs={self.downs} acknowledged={self.acknowledged[-20:]} "
            f"refused={self.refused[-20:]} alarms={self.alarms}"
        )
