"""A store in a folder, and short words for using it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

from edged.messages import Unit
from edged.ports import Committed
from edged.store import OpenedStore, StoreSettings, open_store, place
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


async def opened(
    folder: Path,
    listener: Listener | None = None,
    *,
    other_bytes: Callable[[], int] = int,
    free_bytes: Callable[[Path], int] = place.free_bytes,
    **settings: object,
) -> OpenedStore:
    """A store in `folder`; `settings` are fields of `StoreSettings`."""
    listener = listener or Listener()
    return await open_store(
        StoreSettings(folder, **settings),  # type: ignore[arg-type]  # the tests pass the fields they need by name
        clock=SteppingClock(),
        on_trouble=listener.on_trouble,
        on_failure=listener.failures.append,
        other_bytes=other_bytes,
        free_bytes=free_bytes,
    )


async def commit(journal: SqliteJournal, what: Unit) -> Committed:
    answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
    journal.submit(what, answer.set_result)
    return await answer


async def fill(
    store: OpenedStore, units: int, per_unit: int = 25, n_notices: int = 0, noise: int = 0
) -> list[Committed]:
    """Commit `units` units of `per_unit` events and results each, following what the store recovered."""
    event, result = store.recovered.next_event, store.recovered.next_result
    return [
        await commit(
            store.journal, unit(event + i * per_unit, per_unit, result + i * per_unit, per_unit, n_notices, noise=noise)
        )
        for i in range(units)
    ]


def crash_image(store_dir: Path, to: Path) -> Path:
    """What a power cut now would leave of an open store (by another process: SQLite's locks are per process)."""
    to.mkdir(mode=0o700)
    names = [name for name in ("store.db", "store.db-wal") if (store_dir / name).exists()]
    subprocess.run(["cp", *(str(store_dir / name) for name in names), str(to)], check=True)
    return to


async def crashed(folder: Path, units: int = 40, per_unit: int = 25, noise: int = 100) -> Path:
    """The folder of a store that died with `units` units committed and nothing brought home since."""
    store = await opened(folder / "alive")
    await fill(store, units, per_unit, noise=noise)
    await store.journal.save_snapshot(per_unit, b"folded")
    image = crash_image(folder / "alive", folder / "crashed")
    await store.journal.close()
    return image


def flip(path: Path, offset: int, count: int = 1) -> None:
    """Invert `count` bytes of a file in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        broken = bytes(byte ^ 0xFF for byte in file.read(count))
        file.seek(offset)
        file.write(broken)


async def read_all_results(journal: SqliteJournal, first: int = 1) -> list[int]:
    """Every stored result number from `first` on."""
    seqs: list[int] = []
    while groups := await journal.read_results(first, 1000):
        for group in groups:
            seqs += range(group.first_seq, group.first_seq + len(group.columns.context))
            assert list(group.columns.event_seq) == list(
                range(group.first_seq, group.first_seq + len(group.columns.context))
            )
        first = seqs[-1] + 1
    return seqs
