"""A gateway's store and its receiver, driven step by step by a seeded schedule, and checked after each step."""

from __future__ import annotations

import shutil
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

import apsw

from edged.store import OpenedStore, StoreSettings, open_store
from edged.store.budget import Limits, Usage, row_bytes, shortage
from edged.store.database import PAGE_BYTES
from edged.store.journal import SqliteJournal
from edged.store.outward import OutwardStore
from edged.store.segment import Packer, Segment
from edged.sync import ranges
from edged.sync.piece import Piece
from edged.sync.protocol import STREAMS, Stream
from tests.doubles.clock import FakeClock
from tests.fault.store.ledger import Ledger, contents, make_unit
from tests.unit.store.plant import Listener, commit, crash_image

BUDGET = 700_000
FLOOR = 1_000_000
SURROUNDINGS_S = 4.0
LIMITS = Limits(BUDGET, FLOOR, PAGE_BYTES)
RANGES_MAX = 64
FLYING_MAX = 4
TRANSACTION_BYTES = 40_000  # by which the WAL may be longer for a moment, until it is brought home
SETTLED_COMMITS = 30  # after other files took room, the store is within its budget again


class RowFacts(NamedTuple):
    """What is looked at of a stored row."""

    event_first: int
    event_n: int
    result_first: int
    result_n: int
    size: int


def rows_of(folder: Path) -> dict[int, RowFacts]:
    """Every stored row, by batch."""
    query = """
        SELECT batch, event_first, event_n, result_first, result_n, length(meta) + ifnull(length(notices), 0)
            + ifnull(length(results), 0) + ifnull(length(events), 0) FROM journal
    """
    with closing(apsw.Connection(str(folder / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return {batch: RowFacts(*facts) for batch, *facts in connection.execute(query)}


def protected_of(folder: Path, batches: set[int]) -> set[int]:
    """Those of the batches that are marked as the surroundings of an alarm."""
    with closing(apsw.Connection(str(folder / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        stretches = list(connection.execute("SELECT first_batch, last_batch FROM protected"))
    return {batch for batch in batches if any(first <= batch <= last for first, last in stretches)}


class World:
    """One gateway from its first start to the end of the schedule."""

    def __init__(self, folder: Path, seed: int, streams: frozenset[Stream] = frozenset(STREAMS)) -> None:
        self.rng = Random(seed)
        self.clock = FakeClock()
        self.streams = streams
        self.ledger = Ledger()
        self.listener = Listener()
        self.lives = 0
        self.disk_free = 10**12
        self.other = 0
        self.alarms_come = 0.0
        self.log: list[str] = []
        self.counts: dict[str, int] = {}
        self.flying: list[tuple[Stream, Piece]] = []
        self._folder = folder
        self._image: tuple[Path, Ledger, dict[str, int], list[dict[Stream, int]]] | None = None
        self._cursors = {"delivered": 0, "answered": 0, "noticed": 0, "folded": 0}
        self._starts: list[dict[Stream, int]] = []
        self._since_squeeze = 0
        self._released: set[int] = set()
        self.store: OpenedStore
        self.outward: OutwardStore

    @property
    def journal(self) -> SqliteJournal:
        return self.store.journal

    @property
    def dir(self) -> Path:
        return self._folder / f"life-{self.lives}"

    def _usage(self) -> Usage:
        with closing(apsw.Connection(str(self.dir / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            pages, free_pages = connection.pragma("page_count"), connection.pragma("freelist_count")
        return Usage(pages, free_pages, (self.dir / "store.db-wal").stat().st_size, self.other, self.disk_free)

    def _count(self, what: str, n: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + n

    # --- opening and closing ---

    async def open(self) -> None:
        self.dir.mkdir(mode=0o700, exist_ok=True)
        self.store = await open_store(
            StoreSettings(
                self.dir,
                budget_bytes=BUDGET,
                free_floor_bytes=FLOOR,
                keep_bytes=100_000,
                alarm_surroundings_s=SURROUNDINGS_S,
            ),
            clock=self.clock,
            on_trouble=self.listener.on_trouble,
            on_failure=self.listener.failures.append,
            other_bytes=lambda: self.other,
            free_bytes=lambda _folder: self.disk_free,
        )
        recovered, ledger = self.store.recovered, self.ledger
        assert recovered.salvage is None
        assert (recovered.next_event, recovered.next_result) == (ledger.next("telemetry"), ledger.next("result"))
        assert (recovered.next_alarm, recovered.next_health) == (ledger.next("alarm"), ledger.next("health"))
        self._starts.append({stream: ledger.next(stream) for stream in STREAMS})
        self.journal.outward_streams = self.streams
        for stream in self.streams:
            self.journal.set_synced(stream, ledger.home[stream])
        self._set_cursors()
        self.outward = OutwardStore(self.dir)
        around = ledger.around_alarms(int(SURROUNDINGS_S * 1e9))
        self._released = around - protected_of(self.dir, around)

    def _set_cursors(self) -> None:
        self.journal.delivered_upto = self._cursors["delivered"]
        self.journal.answered_upto = self._cursors["answered"]
        self.journal.noticed_upto = self._cursors["noticed"]

    async def close(self) -> None:
        self.outward.close()
        self.flying = []
        await self.journal.close()
        assert self.listener.failures == []

    async def killed(self, image: Path | None = None) -> None:
        """Go on with what a power cut leaves, or with an older image."""
        before = self.dir
        self.lives += 1
        if image is None:
            crash_image(before, self.dir)
        else:
            shutil.copytree(image, self.dir)
        await self.close()
        shutil.rmtree(before)

    # --- steps ---

    async def make(self) -> None:
        alarm = self.rng.random() < self.alarms_come
        unit = make_unit(self.ledger, self.rng, self.clock, alarm=alarm)
        before, usage = rows_of(self.dir), self._usage()
        committed = await commit(self.journal, unit)
        self.ledger.committed(committed.batch, unit, self.journal.epoch)
        self._check_commit(before, rows_of(self.dir), usage, Packer().segment(unit))
        self._since_squeeze += 1
        self._count("lost", committed.evicted_unsent_results)
        self.clock.advance_s(self.rng.choice([0.1, 0.5, 1.0, 5.0]))

    async def make_many(self) -> None:
        for _ in range(self.rng.randint(5, 25)):
            await self.make()

    async def deliver(self) -> None:
        """The plant's broker takes results and notices."""
        made = self.ledger.next("result") - 1
        self._cursors["delivered"] = self.rng.randint(self._cursors["delivered"], made)
        if self.ledger.units:
            self._cursors["noticed"] = self.rng.randint(self._cursors["noticed"], self.ledger.units[-1][0])
        self._set_cursors()

    async def answer(self) -> None:
        self._cursors["answered"] = self.rng.randint(self._cursors["answered"], self.ledger.next("telemetry") - 1)
        self._set_cursors()

    async def snapshot(self) -> None:
        self._cursors["folded"] = self.rng.randint(self._cursors["folded"], self._cursors["answered"])
        await self.journal.save_snapshot(self._cursors["folded"], self.rng.randbytes(50))

    async def everything_delivered(self) -> None:
        made = self.ledger.next("telemetry") - 1
        self._cursors = {
            "delivered": self.ledger.next("result") - 1,
            "answered": made,
            "noticed": self.ledger.units[-1][0] if self.ledger.units else 0,
            "folded": made,
        }
        self._set_cursors()
        await self.journal.save_snapshot(made, b"all")

    async def send(self) -> None:
        """The oldest that is not home goes on its way; a few pieces at once."""
        stream = self.rng.choice(sorted(self.streams))
        taken = self.ledger.home[stream]
        for other, sent in self.flying:
            if other == stream:
                taken = ranges.add(taken, sent.first, sent.last)
        hole = next(iter(ranges.missing(taken, 1, self.ledger.next(stream) - 1)), None)
        if hole is None or len(self.flying) >= FLYING_MAX:
            return
        piece = self.outward.piece(stream, hole[0], min(hole[1] - hole[0] + 1, self.rng.choice([1, 7, 40, 300])))
        assert piece is not None
        self.flying.append((stream, piece))

    async def arrive(self) -> None:
        """The receiver commits something that is on its way, in any order, and says so."""
        if self.flying:
            self._home(*self.flying.pop(self.rng.randrange(len(self.flying))))

    async def live(self) -> None:
        """Something in the middle or at the end comes home at once."""
        stream = self.rng.choice(sorted(self.streams))
        holes = ranges.missing(self.ledger.home[stream], 1, self.ledger.next(stream) - 1)
        if not holes or len(self.ledger.home[stream]) >= RANGES_MAX:
            return
        first, last = holes[-1]
        seq = self.rng.randint(first, last)
        piece = self.outward.piece(stream, seq, min(self.rng.choice([1, 10, 80]), last - seq + 1))
        assert piece is not None
        if piece.rows is not None:
            self._home(stream, piece)

    async def drain(self) -> None:
        """Everything goes home."""
        self.flying = []
        for stream in sorted(self.streams):
            while hole := next(iter(ranges.missing(self.ledger.home[stream], 1, self.ledger.next(stream) - 1)), None):
                whole = self.outward.piece(stream, hole[0], min(hole[1] - hole[0] + 1, 500))
                assert whole is not None
                self._home(stream, whole)

    def _home(self, stream: Stream, piece: Piece) -> None:
        if piece.lost is not None:
            self.ledger.check_lost(stream, piece.first, piece.last, piece.lost)
        self.ledger.arrived(stream, piece.first, piece.last)
        self.journal.set_synced(stream, self.ledger.home[stream])

    async def give_up(self) -> None:
        """The receiver refuses a few rows that stand at the front."""
        stream = self.rng.choice(sorted(self.streams))
        hole = next(iter(ranges.missing(self.ledger.home[stream], 1, self.ledger.next(stream) - 1)), None)
        if hole is None:
            return
        first = self.rng.randint(hole[0], min(hole[1], hole[0] + 30))
        last = min(hole[1], first + self.rng.choice([0, 3, 20]))
        if any(other == stream and not (piece.last < first or piece.first > last) for other, piece in self.flying):
            return  # it is refused when its answer comes, not before
        await self.journal.give_up(stream, first, last, "refused")

    async def trim(self) -> None:
        for _ in range(self.rng.randint(1, 20)):
            self.journal.trim()
            await self.journal.save_meta(b"{}")

    async def squeeze(self) -> None:
        """Other files take room, or give it back."""
        self.other = self.rng.choice([0, 0, 100_000, 200_000])
        self._since_squeeze = 0

    async def disk(self) -> None:
        self.disk_free = self.rng.choice([10**12, 10**12, FLOOR + 5_000, FLOOR // 2])

    async def alarms(self) -> None:
        self.alarms_come = self.rng.choice([0.0, 0.0, 0.02, 0.3])

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def kill(self) -> None:
        await self.killed()
        await self.open()

    async def reboot(self) -> None:
        """Power is back: another boot, whose monotonic clock begins anew."""
        await self.killed()
        self.clock = FakeClock(
            mono_ns=self.rng.randint(1, 10**10), wall_ms=self.clock.wall_ms(), boot_id=f"boot-{self.lives + 1}"
        )
        await self.open()

    async def keep_image(self) -> None:
        if self._image is not None:
            shutil.rmtree(self._image[0])
        image = crash_image(self.dir, self._folder / f"image-{self.rng.getrandbits(60)}")
        self._image = image, self.ledger.copy(), dict(self._cursors), [dict(start) for start in self._starts]

    async def restore(self) -> None:
        """Somebody puts the image back; the receiver notices, and a new epoch begins where the histories part."""
        if self._image is None:
            return None
        image, ledger, self._cursors, self._starts = self._image
        self._cursors = dict(self._cursors)
        self._image = None
        await self.killed(image)
        shutil.rmtree(image)
        truth, self.ledger = self.ledger, ledger
        await self.open()
        begun = dict(self._starts[-1])
        for _ in range(self.rng.randint(1, 12)):
            await self.make()
        if self.ledger.next("result") == begun["result"]:
            return await self._finish_restore(truth, begun)
        epoch = await self.journal.fork(begun["result"])
        # starts that made nothing have the same numbers
        for stream in STREAMS:
            for seq in self.ledger.epoch[stream]:
                if seq >= begun[stream]:
                    self.ledger.epoch[stream][seq] = epoch
        return await self._finish_restore(truth, begun)

    async def _finish_restore(self, truth: Ledger, begun: dict[Stream, int]) -> None:
        for stream in STREAMS:
            self.ledger.home[stream] = ranges.clip(truth.home[stream], 1, begun[stream] - 1)
        await self.restart()

    # --- invariants ---

    def _check_commit(
        self, before: dict[int, RowFacts], after: dict[int, RowFacts], usage: Usage, segment: Segment
    ) -> None:
        """What a commit took away: nothing while there was room, and the surroundings of alarms last."""
        gone = {batch: row for batch, row in before.items() if batch not in after and self._is_waited_for(row)}
        if not gone:
            return
        need = row_bytes(sum(len(blob) for blob in segment if blob), LIMITS.page_bytes)
        assert shortage(usage, LIMITS, need) > 0
        self._check_surroundings(before, after, gone)

    def _check_surroundings(
        self, before: dict[int, RowFacts], after: dict[int, RowFacts], gone: dict[int, RowFacts]
    ) -> None:
        """They are released only when nothing else is left, or when they hold more than their share; then they go."""
        stood = before.keys() & (after.keys() | gone.keys())  # without those that were free
        around = self.ledger.around_alarms(int(SURROUNDINGS_S * 1e9)) & stood
        released = around - protected_of(self.dir, around) - self._released
        ordinary = after.keys() - around - {max(before), max(after)}
        if released and ordinary:
            held = sum(row.size for batch, row in before.items() if batch in around)
            assert held > LIMITS.protected_bytes // 2, (sorted(released), sorted(ordinary))
        self._released |= released
        assert around & gone.keys() <= self._released
        self._count("surroundings released", len(released))
        self._count("surroundings spared", len(around - gone.keys()))

    def _is_waited_for(self, row: RowFacts) -> bool:
        """Whether the receiver has not got everything of a row."""
        spans = {"result": (row.result_first, row.result_n), "telemetry": (row.event_first, row.event_n)}
        return any(
            not ranges.covers(self.ledger.home[stream], first, first + n - 1)
            for stream, (first, n) in spans.items()
            if stream in self.streams
        )

    def check(self) -> None:
        self._check_extents()
        for stream in sorted(self.streams):
            self._walk(stream)
        with closing(apsw.Connection(str(self.dir / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            self._check_summaries(connection)
            self._check_protection(connection)
        self._check_size()

    def _check_extents(self) -> None:
        extents = self.outward.extents()
        for stream in STREAMS:
            mine = [extent for extent in extents if extent.stream == stream]
            assert mine[0].base == 1
            assert [extent.base for extent in mine[1:]] == [extent.next for extent in mine[:-1]]
            assert mine[-1].next == self.ledger.next(stream)
            assert mine[-1].epoch == self.journal.epoch

    def _walk(self, stream: Stream) -> None:
        """From base to next: each number is there as it was made, lost for a known reason, or home."""
        seq, end = 1, self.ledger.next(stream)
        while seq < end:
            limit = self.rng.choice([3, 50, 400])
            piece = self.outward.piece(stream, seq, limit)
            assert piece is not None
            assert piece.first == seq <= piece.last
            assert {self.ledger.epoch[stream][n] for n in range(seq, piece.last + 1)} == {piece.epoch}
            if piece.rows is not None:
                assert piece.last - seq < limit
                made = [self.ledger.rows[stream][n] for n in range(seq, piece.last + 1)]
                assert contents(piece.rows) == made
                for n in range(seq, piece.last + 1):
                    assert n not in self.ledger.lost[stream] or self.ledger.is_home(stream, n), (stream, n)
            else:
                assert piece.lost is not None
                self.ledger.check_lost(stream, seq, piece.last, piece.lost)
            seq = piece.last + 1
        assert self.outward.piece(stream, end, 1) is None

    def _check_summaries(self, connection: apsw.Connection) -> None:
        query = """
            SELECT stream, first, last, tombstone.n, reason, aggregate.tombstone IS NOT NULL FROM tombstone
            LEFT JOIN aggregate ON aggregate.tombstone = tombstone.id
        """
        spans: dict[str, list[tuple[int, int]]] = {}
        for stream, first, last, n, reason, has_summary in connection.execute(query):
            assert n == last - first + 1 or stream == "notice"
            if stream != "notice":  # ranges of batches, of which some may be left
                spans.setdefault(stream, []).append((first, last))
            assert not has_summary or reason == "budget"
            if reason == "budget" and stream in ("event", "result"):
                waited = not ranges.clip(self.ledger.home["telemetry" if stream == "event" else "result"], first, last)
                self._count("summaries" if has_summary else "waited without summary" if waited else "home")
        for stream, found in spans.items():
            found.sort()
            assert all(a[1] < b[0] for a, b in pairwise(found)), (stream, found)
        orphans = connection.execute(
            "SELECT count(*) FROM aggregate WHERE tombstone NOT IN (SELECT id FROM tombstone)"
        ).fetchone()
        assert orphans == (0,)

    def _check_protection(self, connection: apsw.Connection) -> None:
        """What is known of alarms is in order: stretches do not overlap, no record is where no row is."""
        rows = list(connection.execute("SELECT first_batch, last_batch, bytes FROM protected ORDER BY first_batch"))
        assert all(a[1] < b[0] for a, b in pairwise(rows)), rows
        records = list(connection.execute("SELECT stream, first, n, batch FROM record ORDER BY stream, first"))
        batches = {batch for (batch,) in connection.execute("SELECT batch FROM journal")}
        assert all(batch in batches for *_, batch in records)

    def _check_size(self) -> None:
        taken = self.other + sum((self.dir / f"store.db{suffix}").stat().st_size for suffix in ("", "-wal"))
        if self._since_squeeze > SETTLED_COMMITS:
            self.counts["taken"] = max(self.counts.get("taken", 0), taken)
            assert taken <= BUDGET + TRANSACTION_BYTES, (taken, self.other, self._usage())
