"""Between the engine and the uplink: what the child says becomes cursors, tombstones and reasons."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import EdgedError

if TYPE_CHECKING:
    from edged.engine.engine import Engine
    from edged.ops.logs import Log
    from edged.sync.protocol import Range, Stream

PENDING_MAX = 1000  # the uplink has four batches in flight: more would be a bug of ours


class HistoryParted(EdgedError):
    """Raised when the store turned out to be an old copy: its rows got a new epoch, and the daemon starts again."""


class Rejected(NamedTuple):
    stream: Stream
    first: int
    last: int
    reason: str


class Parted(NamedTuple):
    epoch: str
    seq: int


class Homeward:
    """Implements the callbacks of the uplink. `run` does what must wait for the store.

    fail: ends the process with this error.
    """

    def __init__(self, engine: Engine, log: Log, fail: Callable[[BaseException], None]) -> None:
        self._engine = engine
        self._log = log
        self._fail = fail
        self._pending: deque[Rejected | Parted] = deque(maxlen=PENDING_MAX)
        self._wanted = asyncio.Event()
        self.status: Mapping[str, object] = {}
        """The newest status line of the uplink."""

    def on_synced(self, stream: Stream, arrived: Sequence[Range]) -> None:
        self._engine.parts.home.arrived(stream, arrived)

    def on_rejected(self, stream: Stream, first: int, last: int, reason: str) -> None:
        self._log.error("batch_rejected", stream=stream, first=first, last=last, reason=reason)
        self._pending.append(Rejected(stream, first, last, reason))
        self._wanted.set()

    def on_fork(self, epoch: str, seq: int) -> None:
        self._pending.append(Parted(epoch, seq))
        self._wanted.set()

    def on_status(self, status: Mapping[str, object]) -> None:
        self.status = status
        receiver = status.get("receiver")
        if isinstance(receiver, str) and receiver:
            self._engine.parts.home.adopt(receiver)

    def on_reason(self, code: str, active: bool, detail: str) -> None:
        self._engine.parts.modes.set(code, active, detail=detail)

    async def run(self) -> None:
        """Write what the uplink asked for, one thing after the other."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._pending:
                await self._do(self._pending.popleft())

    async def _do(self, what: Rejected | Parted) -> None:
        journal = self._engine.parts.journal
        if isinstance(what, Rejected):
            await journal.give_up(what.stream, what.first, what.last, f"rejected:{what.reason}")
            return
        await journal.fork(what.seq)
        self._log.error("history_parted", epoch=what.epoch, seq=what.seq)
        self._fail(
            HistoryParted(
                f"continuing epoch {what.epoch}: the receiver has other rows from result {what.seq} on, "
                "so this store is an older copy of itself; its rows have got a new epoch",
                hint="nothing: the daemon starts again by itself",
                retryable=True,
            )
        )
