"""A disk that others have filled for hours: the store goes on inside its size, gives up by class, and recovers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from edged.messages import ResultColumns
from edged.store import OpenedStore, StoreSettings, open_store
from edged.store.outward import OutwardStore
from edged.sync.piece import Piece
from tests.doubles.clock import FakeClock
from tests.unit.store.homeward import Gateway
from tests.unit.store.plant import Listener

HOURS = 8
FLOOR = 50_000_000


async def opened(folder: Path, clock: FakeClock, free: list[int]) -> OpenedStore:
    listener = Listener()
    return await open_store(
        StoreSettings(folder, budget_bytes=20_000_000, free_floor_bytes=FLOOR, keep_bytes=300_000),
        clock=clock,
        on_trouble=listener.on_trouble,
        on_failure=listener.failures.append,
        free_bytes=lambda _folder: free[0],
    )


def told(folder: Path, upto: int) -> list[Piece]:
    """What the receiver would be told of the results, from the first to the last."""
    with closing(OutwardStore(folder)) as outward:
        pieces: list[Piece] = []
        while (pieces[-1].last if pieces else 0) < upto:
            piece = outward.piece("result", pieces[-1].last + 1 if pieces else 1, 20_000)
            assert piece is not None
            pieces.append(piece)
        return pieces


async def minutes(home: Gateway, clock: FakeClock, n: int, from_minute: int) -> None:
    """A unit a minute, an alarm every second hour, a snapshot every ten minutes."""
    for minute in range(from_minute, from_minute + n):
        clock.advance_s(60)
        await home.unit(10, 10, alarms=int(minute % 120 == 60), health=1, at_s=minute * 60)
        if minute % 10 == 0:
            await home.delivered()


@pytest.mark.allow_blocking(reason="the uplink is another process; here it reads between two steps")
async def test_a_disk_full_for_eight_hours_costs_what_has_to_go_and_nothing_that_was_told(tmp_path: Path) -> None:
    clock, free = FakeClock(), [10**12]
    streams = frozenset(("alarm", "result", "health"))
    home = Gateway(tmp_path, await opened(tmp_path, clock, free), streams)  # type: ignore[arg-type]  # their names
    await minutes(home, clock, 120, 0)
    home.home(result=600)
    before = (await home.journal.statistics()).file_bytes

    free[0] = 0
    await minutes(home, clock, HOURS * 60, 120)
    assert (await home.journal.statistics()).file_bytes <= before + 100_000, "it grew no more"
    await home.journal.close()

    free[0] = 10**12
    again = Gateway(tmp_path, await opened(tmp_path, clock, free), streams)  # type: ignore[arg-type]
    assert again.store.recovered.salvage is None
    assert again.next == home.next
    assert again.next_record == home.next_record
    again.home(result=600)
    lost_before = (await again.journal.statistics()).tombstones
    await minutes(again, clock, 120, 120 + HOURS * 60)
    assert (await again.journal.statistics()).tombstones == lost_before, "with room again nothing more is given up"

    made = again.next["result"] - 1
    pieces = told(tmp_path, made)
    assert [piece.first for piece in pieces[1:]] == [piece.last + 1 for piece in pieces[:-1]], "dense"
    kept = sum(piece.last - piece.first + 1 for piece in pieces if piece.rows is not None)
    lost = sum(p.last - p.first + 1 for p in pieces if p.lost is not None and p.lost.reason == "budget")
    assert made - 600 <= kept + lost <= made, "every number is there, or lost for a reason, or home"
    assert all(p.lost is None or p.lost.reason == "budget" for p in pieces if p.first > 600)
    summed = sum(row.n for p in pieces if p.lost is not None for row in p.lost.summary)
    assert summed == sum(p.last - p.first + 1 for p in pieces if p.lost is not None and p.lost.summary)
    assert summed > 0
    newest = pieces[-1]
    assert isinstance(newest.rows, ResultColumns)
    assert newest.first <= made - 1500, "two hours and more are there as they were made"

    with closing(OutwardStore(tmp_path)) as outward:
        alarm = outward.piece("alarm", 1, 100)
        assert alarm is not None
        assert (alarm.first, alarm.last, alarm.lost) == (1, again.next_record["alarm"] - 1, None), "alarms stay"
    await again.journal.close()
    with closing(apsw.Connection(str(tmp_path / "store.db"))) as connection:
        assert list(connection.execute("PRAGMA integrity_check")) == [("ok",)]
