"""Between the engine and the uplink: what the child says becomes cursors, tombstones and reasons."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edged.errors import EdgedError, StoreError

if TYPE_CHECKING:
    from edged.engine.engine import Engine
    from edged.ops.logs import Log
    from edged.sync.protocol import Fork, Range, Stream

RECEIPTS_EVERY_S = 5.0
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


class Taken(Protocol):
    """A receipt that was looked at (`edged.uplink.receipts.Taken`)."""

    @property
    def file(self) -> Path: ...
    @property
    def receiver(self) -> str: ...
    @property
    def home(self) -> Sequence[tuple[Stream, Sequence[Range]]]: ...
    @property
    def forks(self) -> Sequence[Fork]: ...
    @property
    def refused(self) -> str: ...


class Receipts(Protocol):
    """The folder where `edged store import-receipt` lays receipts. Blocking."""

    def look(self, receiver: str) -> Sequence[Taken]: ...

    def remove(self, files: Sequence[Path]) -> None: ...


class Homeward:
    """Implements the callbacks of the uplink. `run` does what must wait for the store.

    fail: ends the process with this error. receipts: see `Receipts`; None where no stick is used.
    """

    def __init__(
        self,
        engine: Engine,
        log: Log,
        fail: Callable[[BaseException], None],
        receipts: Receipts | None = None,
    ) -> None:
        self._engine = engine
        self._log = log
        self._fail = fail
        self._receipts = receipts
        self._pending: deque[Rejected | Parted] = deque(maxlen=PENDING_MAX)
        self._wanted = asyncio.Event()
        self.gave_up: Callable[[Stream, int, int], None] = lambda _stream, _first, _last: None
        """Tells the uplink that the tombstone it asked for is durable."""
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
        """Write what the uplink asked for, one thing after the other, and take the receipts of sticks."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RECEIPTS_EVERY_S):
                    await self._wanted.wait()
            self._wanted.clear()
            while self._pending:
                await self._do(self._pending.popleft())
            if self._receipts is not None:
                await self.take_receipts(self._receipts)

    async def take_receipts(self, receipts: Receipts) -> None:
        """What a receipt calls home is home; its file goes once the store remembers that."""
        engine, home = self._engine, self._engine.parts.home
        try:
            found = await asyncio.to_thread(receipts.look, home.receiver)
        except StoreError as error:  # another file stands there now, or the disk fails: the next look may do
            self._log.error("receipts_not_read", detail=str(error))
            return
        if not found:
            return
        for taken in found:
            if taken.refused:
                self._log.error("receipt_refused", file=taken.file.name, detail=taken.refused)
                continue
            self._log.info("receipt_taken", file=taken.file.name, receiver=taken.receiver)
            home.adopt(taken.receiver)
            for stream, numbers in taken.home:
                home.arrived(stream, numbers)
            for fork in taken.forks:
                self.on_fork(fork.epoch, fork.seq)
        while engine.busy:
            await engine.turned()
        await engine.parts.journal.save_meta(engine.meta())
        await asyncio.to_thread(receipts.remove, [taken.file for taken in found])

    async def _do(self, what: Rejected | Parted) -> None:
        journal = self._engine.parts.journal
        if isinstance(what, Rejected):
            await journal.give_up(what.stream, what.first, what.last, f"rejected:{what.reason}")
            self.gave_up(what.stream, what.first, what.last)
            return
        try:
            await journal.fork(what.seq)
        except StoreError as error:  # ending would only begin the same again: the plant is served, people are told
            self._log.error("history_not_parted", epoch=what.epoch, seq=what.seq, detail=str(error))
            self._engine.parts.modes.set("upstream_refused", True, detail=str(error))
            return
        self._log.error("history_parted", epoch=what.epoch, seq=what.seq)
        self._fail(
            HistoryParted(
                f"continuing epoch {what.epoch}: the receiver has other rows from result {what.seq} on, "
                "so this store is an older copy of itself; its rows have got a new epoch",
                hint="nothing: the daemon starts again by itself",
                retryable=True,
            )
        )
