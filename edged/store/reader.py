"""The one thread that reads, so that a read never delays a commit and never blocks the loop."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from edged.errors import StoreCorrupt
from edged.store.database import own_errors
from edged.store.segment import Unpacker

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

T = TypeVar("T")


class Reader:
    """Owns the reading connection from `start` to `stop`; each call sees one consistent state."""

    def __init__(
        self, connection: apsw.Connection, loop: asyncio.AbstractEventLoop, *, on_damage: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._on_damage = on_damage
        self._unpacker = Unpacker()
        self._queue: SimpleQueue[tuple[Callable[[apsw.Connection, Unpacker], Any], asyncio.Future[Any]] | None]
        self._queue = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def read(self, query: Callable[[apsw.Connection, Unpacker], T]) -> T:
        """Run `query` in the thread, inside one read transaction. Raises `StoreError`, `StoreCorrupt`."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((query, answer))
        return await answer

    def stop(self) -> None:
        """Finish what was asked, end the thread and close. Blocks; call it off the loop."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            query, answer = request
            if not answer.cancelled():
                self._answer(query, answer)

    def _answer(self, query: Callable[[apsw.Connection, Unpacker], Any], answer: asyncio.Future[Any]) -> None:
        try:
            with own_errors("reading the store"):
                self._connection.execute("BEGIN")
                try:
                    value = query(self._connection, self._unpacker)
                finally:
                    self._connection.execute("COMMIT")
        except StoreCorrupt as error:
            self._on_damage(str(error))
            self._resolve(answer.set_exception, answer, error)
        except Exception as error:  # noqa: BLE001  the one who asked must get it, whatever it is
            self._resolve(answer.set_exception, answer, error)
        else:
            self._resolve(answer.set_result, answer, value)

    def _resolve(self, resolve: Callable[[Any], None], answer: asyncio.Future[Any], value: object) -> None:
        def on_loop() -> None:
            if not answer.done():  # the one who asked may have gone away
                resolve(value)

        try:
            self._loop.call_soon_threadsafe(on_loop)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told
