"""From a state directory to a running journal: the one way in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edged.store import place
from edged.store.checkpointer import Checkpointer
from edged.store.commit import RowCommitter
from edged.store.database import connect_checkpointer, connect_reader, own_errors
from edged.store.journal import SqliteJournal
from edged.store.reader import Reader
from edged.store.startup import start
from edged.store.values import Recovered, StoreSettings
from edged.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edged.ports import Clock


@dataclass(frozen=True)
class OpenedStore:
    """A running journal and what it found at start."""

    journal: SqliteJournal
    recovered: Recovered


async def open_store(
    settings: StoreSettings,
    *,
    clock: Clock,
    on_trouble: Callable[[str, bool, str], None],
    on_failure: Callable[[BaseException], None],
    other_bytes: Callable[[], int] = int,
    free_bytes: Callable[[Path], int] = place.free_bytes,
) -> OpenedStore:
    """Open or create the store and start its three threads.

    on_trouble(code, active, detail): `store_full`, `store_io`, `store_locked` begin or end; units wait meanwhile.
    on_failure(error): retrying cannot help (damage, a bug): the process must end; the next start salvages.
    other_bytes: bytes of other files that share the budget (models). free_bytes: room on the file system of a folder.
    Both are called in the writer thread for each commit and must be quick; the `on_` callbacks run on the loop.

    Raises `StoreError` (unfit or unwritable directory, newer schema) and `StoreLocked`. The directory stays locked
    until the journal is closed.
    """
    loop = asyncio.get_running_loop()
    started = await asyncio.to_thread(start, settings, clock, free_bytes)
    mark_damaged = partial(place.mark_damaged, settings.state_dir)
    committer = RowCommitter(
        started.path, started.limits, clock, other_bytes, free_bytes, settings.alarm_surroundings_s
    )
    writer = Writer(
        started.connection,
        loop,
        clock,
        beside=Checkpointer(partial(connect_checkpointer, started.path)),
        wal_pages=started.limits.wal_pages,
        is_urgent=committer.is_urgent,
        is_due=committer.is_home_due,
        on_rollback=committer.rolled_back,
        on_trouble=on_trouble,
        on_failure=on_failure,
        on_damage=mark_damaged,
    )
    with own_errors(f"opening {started.path} for reading"):
        reader = Reader(await asyncio.to_thread(connect_reader, started.path), loop, on_damage=mark_damaged)
    writer.start()
    reader.start()
    journal = SqliteJournal(started.recovered, writer, reader, committer, loop, on_closed=started.lock.release)
    return OpenedStore(journal, started.recovered)
