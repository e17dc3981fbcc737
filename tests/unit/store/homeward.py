"""A store whose rows are to go home: units with records, cursors in one word, and what stands in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw

from edged.messages import Notice, Unit
from edged.ports import Committed
from edged.store import OpenedStore
from edged.sync.protocol import STREAMS, Stream
from tests.unit.store.plant import commit, opened
from tests.unit.store.samples import unit

S = 1_000_000_000


class Gateway:
    """A store in `folder`, and the numbers of what was put into it."""

    def __init__(self, folder: Path, store: OpenedStore, streams: frozenset[Stream]) -> None:
        self.folder = folder
        self.store = store
        self.journal = store.journal
        self.journal.outward_streams = streams
        recovered = store.recovered
        self.next = {"event": recovered.next_event, "result": recovered.next_result}
        self.next_record = {"alarm": recovered.next_alarm, "health": recovered.next_health}

    async def unit(
        self,
        events: int = 5,
        results: int = 5,
        *,
        alarms: int = 0,
        health: int = 0,
        at_s: float = 0.0,
        boot: str = "boot-1",
        noise: int = 200,
    ) -> Committed:
        """Commit one unit that arrived `at_s` seconds after the boot."""
        made = unit(self.next["event"], events, self.next["result"], results, noise=noise)
        made.notices = [*self._records("alarm", alarms), *self._records("health", health)]
        made.arrival_mono_ns, made.boot = int(at_s * S), boot
        self.next["event"] += events
        self.next["result"] += results
        return await self.commit(made)

    async def commit(self, made: Unit) -> Committed:
        return await commit(self.journal, made)

    def _records(self, stream: str, n: int) -> list[Notice]:
        first = self.next_record[stream]
        self.next_record[stream] += n
        return [
            Notice(stream, b'{"n":%d}' % seq, stream=stream, seq=seq, kind=stream, plant=False)
            for seq in range(first, first + n)
        ]

    async def delivered(self, *, snapshot: bool = True) -> None:
        """Nothing on this side needs anything any more."""
        self.journal.delivered_upto = self.next["result"] - 1
        self.journal.answered_upto = self.next["event"] - 1
        self.journal.noticed_upto = 1 << 40
        if snapshot:
            await self.journal.save_snapshot(self.next["event"] - 1, b"folded")

    def home(self, **upto: int) -> None:
        """Everything up to these numbers is home."""
        for stream in STREAMS:
            if stream in upto:
                self.journal.set_synced(stream, ((1, upto[stream]),) if upto[stream] else ())

    def all_home(self) -> None:
        made = {"result": self.next["result"], "telemetry": self.next["event"], **self.next_record}
        self.home(**{stream: n - 1 for stream, n in made.items()})

    async def trimmed(self, steps: int = 200) -> None:
        """As the daemon does it: again and again, between other things."""
        for _ in range(steps):
            self.journal.trim()
            await self.journal.save_meta(b"{}")

    def rows(self, query: str, bindings: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with closing(apsw.Connection(str(self.folder / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            return list(connection.execute(query, tuple(bindings)))

    def tombstones(self, stream: str) -> list[tuple[object, ...]]:
        query = "SELECT first, last, reason FROM tombstone WHERE stream = ? AND reason != 'freed' ORDER BY first"
        return self.rows(query, (stream,))


async def gateway(
    folder: Path,
    *streams: Stream,
    budget_bytes: int = 400_000,
    keep_bytes: int = 100_000,
    alarm_surroundings_s: float = 60.0,
) -> Gateway:
    folder.mkdir(mode=0o700, exist_ok=True)
    store = await opened(
        folder, budget_bytes=budget_bytes, keep_bytes=keep_bytes, alarm_surroundings_s=alarm_surroundings_s
    )
    return Gateway(folder, store, frozenset(streams))
