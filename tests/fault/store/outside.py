"""A store as this version's daemon fills it, and what a receiver would be told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec

from edged.messages import Notice, Unit
from edged.store import OpenedStore
from edged.store.outward import OutwardStore
from edged.sync import ranges
from edged.sync.protocol import STREAMS, Stream
from tests.unit.store.plant import Listener, commit, opened
from tests.unit.store.samples import unit

BUDGET = 1_000_000
PER_UNIT = 10
SENT: frozenset[Stream] = frozenset(("alarm", "health", "result"))


class Making:
    """Units with an alarm now and then, as this version's daemon numbers them; what is home is said by the test."""

    def __init__(self, store: OpenedStore) -> None:
        self.store = store
        self.event, self.result = store.recovered.next_event, store.recovered.next_result
        self.next = {"alarm": store.recovered.next_alarm, "health": store.recovered.next_health}
        self.mono_ns = 10**9
        self.home: dict[str, ranges.Ranges] = {"alarm": (), "health": (), "result": ()}

    def arrived(self, stream: Stream, last: int) -> None:
        """Everything of a stream up to here is home."""
        self.home[stream] = ((1, last),)
        self.store.journal.set_synced(stream, self.home[stream])

    async def make(self, units: int, alarm_every: int = 40) -> None:
        journal = self.store.journal
        for i in range(units):
            notices = [self.notice("health")] if i % 7 == 0 else []
            notices += [self.notice("alarm")] if i % alarm_every == 5 else []
            await commit(journal, self.unit(notices))
            self.event, self.result = self.event + PER_UNIT, self.result + PER_UNIT
            journal.delivered_upto, journal.answered_upto = self.result - 1, self.event - 1
            if i % 20 == 0:
                await journal.save_snapshot(self.event - 1, b"folded")

    def meta(self) -> bytes:
        """What the engine keeps in each row and the store looks at after damage."""
        last = {stream: seq - 1 for stream, seq in self.next.items()}
        return msgspec.json.encode({"synced": self.home, "receiver": "hub-1", "records": last})

    def notice(self, stream: str) -> Notice:
        seq = self.next[stream]
        self.next[stream] = seq + 1
        return Notice(f"{stream}/{seq}", b"{}", stream=stream, seq=seq, kind=stream, plant=False)

    def unit(self, notices: list[Notice]) -> Unit:
        made = unit(self.event, PER_UNIT, self.result, PER_UNIT, noise=200)
        made.notices, self.mono_ns = notices, self.mono_ns + 10**9
        made.meta = self.meta()
        made.arrival_mono_ns = self.mono_ns
        made.arrival_wall_ms += self.mono_ns // 1_000_000
        return made


async def current(folder: Path, streams: frozenset[Stream] = SENT) -> OpenedStore:
    listener = Listener()
    store = await opened(folder, listener, budget_bytes=BUDGET, alarm_surroundings_s=4.0)
    store.journal.outward_streams = streams
    store.journal.noticed_upto = store.recovered.next_batch - 1
    return store


@dataclass
class Told:
    """What a receiver without any row would be told of one stream, number by number."""

    rows: list[int] = field(default_factory=list)
    lost: dict[str, list[int]] = field(default_factory=dict)

    def all(self) -> list[int]:
        return sorted(self.rows + [seq for seqs in self.lost.values() for seq in seqs])


async def tell(folder: Path) -> dict[Stream, Told]:
    """Read everything as the uplink does."""
    return await asyncio.to_thread(_tell, folder)


def _tell(folder: Path) -> dict[Stream, Told]:
    told: dict[Stream, Told] = {stream: Told() for stream in STREAMS}
    with closing(OutwardStore(folder)) as outward:
        for extent in outward.extents():
            seq = extent.base
            while seq < extent.next:
                piece = outward.piece(extent.stream, seq, 500)
                assert piece is not None
                assert piece.epoch == extent.epoch
                numbers = range(piece.first, piece.last + 1)
                if piece.lost is None:
                    told[extent.stream].rows += numbers
                else:
                    told[extent.stream].lost.setdefault(piece.lost.reason, []).extend(numbers)
                seq = piece.last + 1
    return told


def ask(folder: Path, query: str) -> Iterator[tuple[Any, ...]]:
    with closing(apsw.Connection(str(folder / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        yield from list(connection.execute(query))


def only(folder: Path, query: str) -> Any:
    return next(ask(folder, query))[0]


async def aged(folder: Path) -> Making:
    """A store of this version, closed: some rows are gone, some stripped, some protected, few are home."""
    store = await current(folder)
    making = Making(store)
    await making.make(20)
    making.arrived("result", 150)
    making.arrived("health", 2)
    await making.make(400)
    await store.journal.close()
    for table in ("tombstone", "aggregate", "protected", "record", "start"):
        assert only(folder, f"SELECT count(*) FROM {table}") > 0, table
    assert only(folder, "SELECT count(*) FROM journal WHERE event_n = 0") > 0
    return making
