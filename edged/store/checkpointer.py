"""Brings the WAL home beside the writer: the copying of megabytes never holds up a commit.

A passive checkpoint on a connection of its own waits for nobody and blocks nobody. What the writer added meanwhile is
left over; the writer brings that little bit home itself, after which the WAL begins anew.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable


class Checkpointer:
    """One thread, one connection. `ask` and `done` belong to the writer's thread.

    connect: opens the connection, in the thread that uses it.
    """

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._queue: SimpleQueue[bool] = SimpleQueue()
        self._round: Literal["none", "asked", "over"] = "none"
        self._thread = threading.Thread(target=self._run, name="store-checkpointer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> bool:
        """Begin a round; False when there is one already, which may end before what was written last."""
        if self._round != "none":
            return False
        self._round = "asked"
        self._queue.put(True)
        return True

    @property
    def done(self) -> bool:
        """A round is over: what was added meanwhile waits for the writer."""
        return self._round == "over"

    def rest(self) -> None:
        """The writer has brought home what was left. A round under way goes on and will be told as over."""
        if self._round == "over":
            self._round = "none"

    def stop(self) -> None:
        """End after the round under way. Blocks for it."""
        self._queue.put(False)
        self._thread.join()

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while self._queue.get():
            try:
                connection = connection or self._connect()
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error:
                pass  # busy, full, damaged: the writer meets the same and has the means to deal with it
            self._round = "over"
        if connection is not None:
            connection.close()
