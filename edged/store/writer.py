"""The one thread that writes. Runs whole transactions in order and repeats each until it is durable.

Nobody can split a transaction: the waiting side may go away, the thread commits or rolls back by itself.
"""

from __future__ import annotations

import errno
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from edged.store.database import as_own, close_clean, is_damage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from edged.ports import Clock
    from edged.store.checkpointer import Checkpointer

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
PASSING = (apsw.FullError, apsw.BusyError, apsw.LockedError, apsw.IOError)  # faults that may go away by themselves
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Job(NamedTuple):
    """One transaction: `encode` runs once, `apply` inside the transaction and again after each failure."""

    encode: Callable[[], Any]
    apply: Callable[[apsw.Connection, Any], Any]
    done: Callable[[Any, int], None]  # on the loop: result of apply, µs from start to durable


class Writer:
    """Owns the writing connection from `start` to `stop`.

    on_trouble(code, active, detail): a fault that is retried began or ended. on_failure(error): the thread has ended by
    damage or a bug and the process must end. Both run on the loop. on_damage(cause): runs in the thread, before that.
    beside: brings the WAL home when it has `wal_pages`; what has come meanwhile follows here. At twice as many pages
    the thread does it all itself, and at once when `is_urgent()` says so. `is_due()`: it may come home now, although it
    is short. on_rollback: runs in the thread when a transaction has come to nothing.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        beside: Checkpointer,
        wal_pages: int,
        is_urgent: Callable[[], bool],
        is_due: Callable[[], bool] = bool,
        on_rollback: Callable[[], None] = lambda: None,
        on_trouble: Callable[[str, bool, str], None],
        on_failure: Callable[[BaseException], None],
        on_damage: Callable[[str], None],
    ) -> None:
        self.checkpoints = 0
        self.trouble = ""
        self._connection = connection
        self._loop = loop
        self._clock = clock
        self._beside = beside
        self._checkpoint_at = wal_pages
        self._is_urgent = is_urgent
        self._is_due = is_due
        self._owed = False
        self._on_rollback = on_rollback
        self._on_trouble = on_trouble
        self._on_failure = on_failure
        self._on_damage = on_damage
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._wal_pages = 0
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        connection.set_wal_hook(self._note_wal)

    def start(self) -> None:
        self._beside.start()
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._queue.put(job)

    def stop(self, patience_s: float, last: Callable[[apsw.Connection], None]) -> None:
        """Finish what was submitted, end the thread, close. Blocks; call it off the loop.

        After `patience_s` a job that cannot be committed is given up: its waiter is never told that it is durable.
        last: a transaction of its own after everything else; left out when something could not be committed.
        """
        self._queue.put(None)
        self._thread.join(patience_s)
        self._stopping.set()
        self._thread.join()
        self._beside.stop()
        try:
            if not self.trouble:
                last(self._connection)
                close_clean(self._connection)
        except apsw.Error:
            pass  # the WAL keeps everything: the next start brings it home
        self._connection.close()

    def _run(self) -> None:
        try:
            while (job := self._queue.get()) is not None and self._perform(job):
                self._bring_home()
        except BaseException as error:  # noqa: BLE001  the thread's rim: without word of it the process would wait for ever
            self.trouble = "store_failed"
            if is_damage(error):
                self._on_damage(str(error))
            self._tell(self._on_failure, as_own(error, "writing the store"))

    def _bring_home(self) -> None:
        self._owed = self._is_due() or self._owed
        if self._is_urgent() or self._wal_pages >= 2 * self._checkpoint_at or self._beside.done:
            self._checkpoint()
        elif (self._wal_pages >= self._checkpoint_at or self._owed) and self._beside.ask():
            self._owed = False

    def _perform(self, job: Job) -> bool:
        """Commit `job`, however long it takes; False when stopped before that."""
        started_ns = self._clock.mono_ns()
        encoded = job.encode()
        delay_s = 0.0
        while True:
            try:
                result = self._transact(job, encoded)
            except PASSING as error:
                if is_damage(error):
                    raise
                if delay_s:
                    self._report(*classify(error, self._connection.system_errno))
                if self._stopping.wait(delay_s):
                    return False
                self._checkpoint()  # a WAL that has come home is written from its start again: that needs no room
                delay_s = min(delay_s * 2, RETRY_MAX_S) or RETRY_FIRST_S
            else:
                self._report("", "")
                self._tell(job.done, result, (self._clock.mono_ns() - started_ns) // 1000)
                return True

    def _transact(self, job: Job, encoded: Any) -> Any:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            result = job.apply(self._connection, encoded)
            execute("COMMIT")
        except BaseException:  # whatever it was, no transaction may stay open
            if self._connection.in_transaction:
                execute("ROLLBACK")
            self._on_rollback()
            raise
        return result

    def _checkpoint(self) -> None:
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except PASSING:
            return  # nothing is lost: the WAL still has it, and the next commit reports a real fault
        self.checkpoints += 1
        self._owed = False
        self._wal_pages = 0
        self._beside.rest()

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _report(self, code: str, detail: str) -> None:
        if code == self.trouble:
            return
        if self.trouble:
            self._tell(self._on_trouble, self.trouble, False, "")
        if code:
            self._tell(self._on_trouble, code, True, detail)
        self.trouble = code

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told


def classify(error: apsw.Error, system_errno: int) -> tuple[str, str]:
    """(stable code, detail) of a fault that may pass."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return "store_locked", detail
    if isinstance(error, apsw.FullError) or system_errno in NO_ROOM:
        return "store_full", detail
    return "store_io", f"{detail} (errno {system_errno})"
