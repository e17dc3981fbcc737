"""A store in a folder, and short words for using it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edged.messages import Unit
from edged.ports import Committed
from edged.store import OpenedStore, StoreSettings, open_store
from edged.store.journal import SqliteJournal
from tests.unit.store.samples import SteppingClock, unit


class Listener:
    """Keeps what the store reports."""

    def __init__(self) -> None:
        self.troubles: list[tuple[str, bool, str]] = []
        self.failures: list[BaseException] = []

    def on_trouble(self, code: str, active: bool, detail: str) -> None:
        self.troubles.append((code, active, detail))

    def codes(self) -> list[tuple[str, bool]]:
        return [(code, active) for code, active, _ in self.troubles]


async def opened(folder: Path, listener: Listener | None = None, **settings: object) -> OpenedStore:
    listener = listener or Listener()
    return await open_store(
        StoreSettings(folder, **settings),  # type: ignore[arg-type]  # the tests pass the fields they need by name
        clock=SteppingClock(),
        on_trouble=listener.on_trouble,
        on_failure=listener.failures.append,
    )


async def commit(journal: SqliteJournal, what: Unit) -> Committed:
    answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
    journal.submit(what, answer.set_result)
    return await answer


async def fill(store: OpenedStore, units: int, per_unit: int = 25, n_notices: int = 0) -> list[Committed]:
    """Commit `units` units of `per_unit` events and results each, following what the store recovered."""
    event, result = store.recovered.next_event, store.recovered.next_result
    return [
        await commit(store.journal, unit(event + i * per_unit, per_unit, result + i * per_unit, per_unit, n_notices))
        for i in range(units)
    ]
