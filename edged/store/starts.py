"""Openings of the store and the epochs they belong to: with which numbers each began, and where histories part."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import StoreError
from edged.store import records

if TYPE_CHECKING:
    import apsw

STARTS_MAX = 1000
EPOCH_BYTES = 6  # 48 random bits
REASON_FORK = "fork"


class Start(NamedTuple):
    """One opening: the numbers that came next."""

    id: int
    epoch: str
    boot: str
    instance: str
    first_event: int
    first_result: int
    first_batch: int
    first_alarm: int
    first_health: int
    since_wall_ms: int

    def first(self, stream: str) -> int:
        """Stream as the tables name it."""
        return int(getattr(self, f"first_{stream}"))


class EpochRow(NamedTuple):
    epoch: str
    reason: str
    first_event: int
    first_result: int
    first_batch: int
    since_wall_ms: int


def epochs(connection: apsw.Connection) -> list[EpochRow]:
    """Oldest first; the last one is current."""
    query = "SELECT epoch, reason, first_event, first_result, first_batch, since_wall_ms FROM epoch ORDER BY id"
    return [EpochRow(*row) for row in connection.execute(query)]


def of_epoch(connection: apsw.Connection, epoch: str) -> Start | None:
    """The start that began an epoch."""
    row = connection.execute(
        "SELECT * FROM start WHERE epoch = ? ORDER BY first_batch, id LIMIT 1", (epoch,)
    ).fetchone()
    return Start(*row) if row else None


def newest(connection: apsw.Connection, limit: int) -> list[Start]:
    """Newest first."""
    return [Start(*row) for row in connection.execute("SELECT * FROM start ORDER BY id DESC LIMIT ?", (limit,))]


def note(
    connection: apsw.Connection,
    numbers: tuple[int, int, int],
    following: dict[str, int],
    boot: str,
    instance: str,
    wall_ms: int,
) -> None:
    """Remember this opening. numbers: next event, result and batch; following: next `alarm` and `health`."""
    known = epochs(connection)
    begun = following if newest(connection, 1) else dict.fromkeys(records.STREAMS, 1)
    for row in known:  # begun by a program that kept no starts, and numbered no records
        first = (row.first_event, row.first_result, row.first_batch)
        if first != numbers and of_epoch(connection, row.epoch) is None:
            _insert(connection, row.epoch, "", "", first, begun, row.since_wall_ms)
    _insert(connection, known[-1].epoch, boot, instance, numbers, following, wall_ms)
    connection.execute(
        "DELETE FROM start WHERE id <= (SELECT max(id) FROM start) - ?"
        " AND id NOT IN (SELECT min(id) FROM start GROUP BY epoch)",
        (STARTS_MAX,),
    )


def _insert(
    connection: apsw.Connection,
    epoch: str,
    boot: str,
    instance: str,
    numbers: tuple[int, int, int],
    following: dict[str, int],
    wall_ms: int,
) -> None:
    connection.execute(
        "INSERT INTO start(epoch, boot, instance, first_event, first_result, first_batch, first_alarm, first_health,"
        " since_wall_ms) VALUES (?,?,?,?,?,?,?,?,?)",
        (epoch, boot, instance, *numbers, following["alarm"], following["health"], wall_ms),
    )


def new_epoch() -> str:
    return secrets.token_hex(EPOCH_BYTES)


class Parting(NamedTuple):
    """Where an epoch is divided: its place among the epochs, and the starts that leave it, oldest first."""

    place: int
    leaving: list[Start]
    whole: bool  # nothing of the epoch is left


def place_of(connection: apsw.Connection, first_result: int) -> Parting:
    """From which start on a new epoch must begin so that `first_result` is in it. Raises `StoreError`."""
    known = epochs(connection)
    place = max((i for i, row in enumerate(known) if row.first_result <= first_result), default=0)
    starts = [
        Start(*row)
        for row in connection.execute("SELECT * FROM start WHERE epoch = ? ORDER BY id", (known[place].epoch,))
    ]
    begin = max((i for i, start in enumerate(starts) if start.first_result <= first_result), default=None)
    if begin is None:
        raise StoreError(
            f"beginning a new epoch at result {first_result}: no start of the daemon is known before it",
            hint="stop edged, move the store away and export its rows from there: `edged store export`",
        )
    while begin and starts[begin - 1].first_batch == starts[begin].first_batch:
        begin -= 1  # starts that made nothing have the same numbers
    return Parting(place, starts[begin:], begin == 0)


def fork(connection: apsw.Connection, first_result: int, wall_ms: int) -> str:
    """Move everything from the start on that made `first_result` to a new epoch, up to the next epoch's beginning.

    Returns the new epoch. Raises `StoreError`.
    """
    parting = place_of(connection, first_result)
    known, place, first = epochs(connection), parting.place, parting.leaving[0]
    row = EpochRow(new_epoch(), REASON_FORK, first.first_event, first.first_result, first.first_batch, wall_ms)
    keeps = [] if parting.whole else [known[place]]
    write_epochs(connection, [*known[:place], *keeps, row, *known[place + 1 :]])
    connection.executemany(
        "UPDATE start SET epoch = ? WHERE id = ?", [(row.epoch, start.id) for start in parting.leaving]
    )
    return row.epoch


def write_epochs(connection: apsw.Connection, rows: Iterable[EpochRow]) -> None:
    """These are the epochs, oldest first."""
    connection.execute("DELETE FROM epoch")
    connection.executemany(
        "INSERT INTO epoch(epoch, reason, first_event, first_result, first_batch, since_wall_ms) VALUES (?,?,?,?,?,?)",
        rows,
    )
