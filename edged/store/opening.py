"""From a state directory to a running journal: checks, lock, migrations, recovery."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edged.errors import StoreCorrupt
from edged.store import lookup, schema
from edged.store.database import connect_reader, connect_writer, own_errors
from edged.store.journal import SqliteJournal
from edged.store.reader import Reader
from edged.store.segment import Unpacker
from edged.store.values import Recovered, StoreSettings
from edged.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

    from edged.ports import Clock

STORE_NAME = "store.db"
EPOCH_BYTES = 6  # 48 random bits


@dataclass(frozen=True)
class OpenedStore:
    journal: SqliteJournal
    recovered: Recovered


async def open_store(
    settings: StoreSettings,
    *,
    clock: Clock,
    on_trouble: Callable[[str, bool, str], None],
    on_failure: Callable[[BaseException], None],
    other_bytes: Callable[[], int] = int,
) -> OpenedStore:
    """Open or create the store and start its two threads.

    on_trouble(code, active, detail): `store_full`, `store_io`, `store_locked` begin or end; the unit is kept.
    on_failure(error): the writer ended by an error that retrying cannot cure; the process must end.
    other_bytes: bytes of other files that share the budget (models); called in the writer thread.
    Callbacks run on the loop. Raises `StoreError`, `StoreLocked`.
    """
    loop = asyncio.get_running_loop()
    connection, recovered = await asyncio.to_thread(_open, settings, clock)
    writer = Writer(connection, loop, clock, on_trouble=on_trouble, on_failure=on_failure)
    reader = Reader(await asyncio.to_thread(connect_reader, settings.state_dir / STORE_NAME), loop)
    writer.start()
    reader.start()
    return OpenedStore(SqliteJournal(recovered, writer, reader, loop), recovered)


def _open(settings: StoreSettings, clock: Clock) -> tuple[apsw.Connection, Recovered]:
    path = settings.state_dir / STORE_NAME
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with own_errors(f"opening {path}"):
        connection = connect_writer(path)
        new_store = schema.version_of(connection) == 0
        migrated = schema.migrate(connection, clock.wall_ms())
        if new_store:
            begin_epoch(connection, "new", clock.wall_ms())
        return connection, recover(connection, new_store=new_store, migrated=tuple(migrated))


def begin_epoch(connection: apsw.Connection, reason: str, wall_ms: int) -> None:
    """From the next numbers on, a new epoch: what comes now can never be mistaken for what a lost row said."""
    last = lookup.newest(connection)
    first = (last.end("event"), last.end("result"), last.batch + 1) if last else (1, 1, 1)
    connection.execute(
        "INSERT INTO epoch(epoch, reason, first_event, first_result, first_batch, since_wall_ms) VALUES (?,?,?,?,?,?)",
        (secrets.token_hex(EPOCH_BYTES), reason, *first, wall_ms),
    )


def recover(connection: apsw.Connection, *, new_store: bool, migrated: tuple[str, ...]) -> Recovered:
    """Read what a restart needs: the numbers, the newest meta and the snapshot."""
    unpacker = Unpacker()
    current = connection.execute(
        "SELECT epoch, first_event, first_result, first_batch FROM epoch ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if current is None:
        raise StoreCorrupt("opening the store: it has no epoch")
    last = lookup.newest(connection)
    meta = connection.execute("SELECT meta FROM journal ORDER BY batch DESC LIMIT 1").fetchone()
    snapshot = connection.execute("SELECT event_seq, state FROM snapshot").fetchone()
    return Recovered(
        epoch=current[0],
        next_event=last.end("event") if last else current[1],
        next_result=last.end("result") if last else current[2],
        next_batch=last.batch + 1 if last else current[3],
        meta=unpacker.unpack_bytes(meta[0]) if meta else None,
        snapshot=(snapshot[0], unpacker.unpack_bytes(snapshot[1])) if snapshot else None,
        new_store=new_store,
        migrated=migrated,
    )
