"""The one thread that writes. Runs whole transactions in order and repeats each until it is durable.

Nobody can split a transaction: the waiting side may go away, the thread commits or rolls back by itself.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from edged.ports import Clock

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
CHECKPOINT_WAL_PAGES = 10_000


class Job(NamedTuple):
    """One transaction: `encode` runs once, `apply` inside the transaction and again after each failure."""

    encode: Callable[[], Any]
    apply: Callable[[apsw.Connection, Any], Any]
    done: Callable[[Any, int], None]  # on the loop: result of apply, µs from start to durable


class Writer:
    """Owns the writing connection from `start` to `stop`."""

    def __init__(
        self,
        connection: apsw.Connection,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        on_trouble: Callable[[str, bool, str], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._clock = clock
        self._on_trouble = on_trouble
        self._on_failure = on_failure
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._trouble = ""
        self._wal_pages = 0
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        connection.set_wal_hook(self._note_wal)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._queue.put(job)

    def stop(self, patience_s: float) -> None:
        """Finish what was submitted, end the thread, bring the WAL home and close. Blocks; call it off the loop.

        After `patience_s` a job that cannot be committed is given up: its waiter is never told that it is durable.
        """
        self._queue.put(None)
        self._thread.join(patience_s)
        self._stopping.set()
        self._thread.join()
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error:
            pass  # the WAL keeps it: the next start brings it home
        self._connection.close()

    def _run(self) -> None:
        try:
            while (job := self._queue.get()) is not None:
                if not self._perform(job):
                    return
                if self._wal_pages >= CHECKPOINT_WAL_PAGES and self._queue.empty():
                    self._checkpoint()
        except BaseException as error:  # noqa: BLE001  the thread's rim: the process must hear of it, or it would wait for ever
            self._tell(self._on_failure, error)

    def _perform(self, job: Job) -> bool:
        """Commit `job`, however long it takes; False when stopped before that."""
        started_ns = self._clock.mono_ns()
        encoded = job.encode()
        delay_s = RETRY_FIRST_S
        while True:
            try:
                result = self._transact(job, encoded)
            except (apsw.FullError, apsw.BusyError, apsw.LockedError, apsw.IOError) as error:
                self._report(*classify(error, self._connection))
                if self._stopping.wait(delay_s):
                    return False
                delay_s = min(delay_s * 2, RETRY_MAX_S)
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
            raise
        return result

    def _checkpoint(self) -> None:
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.LockedError, apsw.IOError, apsw.FullError):
            return  # nothing is lost: the WAL still has it, and the next commit reports a real fault
        self._wal_pages = 0

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _report(self, code: str, detail: str) -> None:
        if code == self._trouble:
            return
        if self._trouble:
            self._tell(self._on_trouble, self._trouble, False, "")
        if code:
            self._tell(self._on_trouble, code, True, detail)
        self._trouble = code

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told


def classify(error: apsw.Error, connection: apsw.Connection) -> tuple[str, str]:
    """(stable code, detail) of a fault that may pass."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, apsw.FullError):
        return "store_full", detail
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return "store_locked", detail
    return "store_io", detail
