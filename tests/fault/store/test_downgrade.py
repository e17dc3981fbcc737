"""One version down and up again: the real former program reads and writes the store; nothing is lost untold."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

from edged.messages import Notice, Unit
from edged.store import OpenedStore, inspection
from edged.store.outward import OutwardStore
from edged.sync.protocol import STREAMS, Stream
from tests.unit.store.plant import Listener, commit, opened
from tests.unit.store.samples import unit

ROOT = Path(__file__).parents[3]
NEW_IN_MESSAGES = "plant: bool = True"  # the first change on the way to schema 2; what was before it is the former one
BUDGET = 1_000_000
PER_UNIT = 10


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the former program."""
    log = ["git", "-C", str(ROOT), "log", "--reverse", "--format=%H", "-S", NEW_IN_MESSAGES, "--", "edged/messages.py"]
    try:
        found = subprocess.run(log, capture_output=True, text=True, check=True).stdout.split()
        archive = ["git", "-C", str(ROOT), "archive", f"{found[0]}^", "edged", "tests/unit", "tests/__init__.py"]
        packed = subprocess.run(archive, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("the former program is not in the history of this checkout")
    tree = tmp_path_factory.mktemp("former")
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(tree, filter="data")
    return tree


async def use(former: Path, folder: Path, units: int) -> dict[str, Any]:
    """Let the former program use the store; returns what it says."""
    script = Path(__file__).with_name("former_process.py")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-P", "-B", str(script), str(folder), str(BUDGET), str(units)],
        env={**os.environ, "PYTHONPATH": str(former)}, cwd=former, capture_output=True, text=True, check=False,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["schema"] == 1
    assert said["module"].startswith(str(former))
    return said


class Making:
    """Units with an alarm now and then, as this version's daemon numbers them; what is home is said by the test."""

    def __init__(self, store: OpenedStore) -> None:
        self.store = store
        self.event, self.result = store.recovered.next_event, store.recovered.next_result
        self.next = {"alarm": store.recovered.next_alarm, "health": store.recovered.next_health}
        self.mono_ns = 10**9

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

    def notice(self, stream: str) -> Notice:
        seq = self.next[stream]
        self.next[stream] = seq + 1
        return Notice(f"{stream}/{seq}", b"{}", stream=stream, seq=seq, kind=stream, plant=False)

    def unit(self, notices: list[Notice]) -> Unit:
        made = unit(self.event, PER_UNIT, self.result, PER_UNIT, noise=200)
        made.notices, self.mono_ns = notices, self.mono_ns + 10**9
        made.arrival_mono_ns = self.mono_ns
        return made


async def current(folder: Path, streams: frozenset[Stream] = frozenset(("alarm", "health", "result"))) -> OpenedStore:
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
    store.journal.set_synced("result", ((1, 150),))
    store.journal.set_synced("health", ((1, 2),))
    await making.make(400)
    await store.journal.close()
    for table in ("tombstone", "aggregate", "protected", "record", "start"):
        assert only(folder, f"SELECT count(*) FROM {table}") > 0, table
    assert only(folder, "SELECT count(*) FROM journal WHERE event_n = 0") > 0
    return making


async def test_the_former_program_opens_the_store_and_reads_what_is_in_it(tmp_path: Path, former: Path) -> None:
    making = await aged(tmp_path)
    rows = (await tell(tmp_path))["result"].rows
    said = await use(former, tmp_path, 0)
    assert said["salvage"] == ""
    assert said["warnings"] == []
    assert (said["next_event"], said["next_result"]) == (making.event, making.result)
    assert said["before"] == rows
    assert said["notices"] == only(tmp_path, "SELECT total(notice_n) FROM journal")


async def test_what_the_former_program_gives_up_is_told_when_this_one_is_back(tmp_path: Path, former: Path) -> None:
    making = await aged(tmp_path)
    before = await tell(tmp_path)
    said = await use(former, tmp_path, 150)
    assert said["evicted"] > 0
    store = await current(tmp_path)
    recovered = store.recovered
    assert recovered.salvage is None
    assert recovered.migrated == ()
    assert recovered.epoch == said["epoch"]
    assert (recovered.next_event, recovered.next_result) == (said["end_event"], said["end_result"])
    assert (recovered.next_alarm, recovered.next_health) == (making.next["alarm"], making.next["health"])
    again = Making(store)
    await again.make(30)
    await store.journal.close()
    told = await tell(tmp_path)
    made = {"result": again.result, "alarm": again.next["alarm"], "health": again.next["health"]}
    for stream in ("result", "alarm", "health"):
        assert told[stream].all() == list(range(1, made[stream])), stream
    gone = set(before["result"].rows) - set(said["after"])
    assert gone <= {seq for reason in ("missing", "budget") for seq in told["result"].lost.get(reason, [])}
    assert set(told["result"].lost) <= {"missing", "budget"}
    assert set(before["alarm"].rows) <= set(told["alarm"].all())
    assert only(tmp_path, "SELECT count(*) FROM record WHERE batch NOT IN (SELECT batch FROM journal)") == 0
    assert only(tmp_path, "SELECT count(*) FROM aggregate WHERE tombstone NOT IN (SELECT id FROM tombstone)") == 0
    verdict = await asyncio.to_thread(inspection.verify, tmp_path)
    assert (verdict.problems, verdict.holes) == ([], [])


async def test_up_down_and_up_again_keeps_every_number_and_a_copy_from_before(tmp_path: Path, former: Path) -> None:
    first = await use(former, tmp_path, 40)
    store = await current(tmp_path)
    assert store.recovered.migrated == ("create_beside",)
    assert store.recovered.epoch == first["epoch"]
    assert (tmp_path / "store-before-v2.db").exists()
    making = Making(store)
    await making.make(60)
    await store.journal.close()
    down = await use(former, tmp_path, 20)
    assert down["next_result"] == making.result
    again = await current(tmp_path)
    assert again.recovered.past_epochs == ()
    assert again.recovered.migrated == ()
    await again.journal.close()
    told = await tell(tmp_path)
    assert told["result"].all() == list(range(1, down["end_result"]))
    assert told["alarm"].rows == list(range(1, making.next["alarm"]))
    with closing(apsw.Connection(str(tmp_path / "store-before-v2.db"), flags=apsw.SQLITE_OPEN_READONLY)) as copy:
        assert copy.pragma("user_version") == 1
        assert copy.execute("SELECT max(result_first + result_n) FROM journal").get == first["end_result"]
    assert (await asyncio.to_thread(inspection.verify, tmp_path)).ok


async def test_the_copy_from_before_can_be_used_by_the_former_program(tmp_path: Path, former: Path) -> None:
    first = await use(former, tmp_path, 40)
    store = await current(tmp_path)
    await Making(store).make(10)
    await store.journal.close()
    (tmp_path / "store-before-v2.db").replace(tmp_path / "store.db")
    back = await use(former, tmp_path, 1)
    assert back["next_result"] == first["end_result"]
