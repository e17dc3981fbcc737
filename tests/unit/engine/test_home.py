"""What goes home: dense numbers, what is remembered of it, records, and what the uplink's words do."""

import asyncio
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from edged.engine.home import ClockWatch
from edged.engine.homeward import HistoryParted, Homeward
from edged.messages import Notice
from edged.ops.logs import Log
from edged.sync.protocol import Fork, Range, Stream
from tests.doubles.clock import FakeClock
from tests.doubles.engine_rig import ALARM, Rig

STREAMS: frozenset[Stream] = frozenset({"alarm", "result", "health"})


def records(rig: Rig, stream: str) -> list[Notice]:
    """What the store holds of a stream of records, in order."""
    return [notice for unit in rig.journal.units for notice in unit.notices if notice.stream == stream]


async def test_an_alarm_goes_home_when_it_begins_and_when_it_ends_under_dense_numbers() -> None:
    rig = Rig(alarms=[ALARM], streams=STREAMS)
    await rig.start()
    for seq, a in enumerate([99.0, 99.0, 0.0, 0.0, 99.0]):
        rig.event(seq, a)
        await rig.engine.settled()

    found = records(rig, "alarm")

    assert [notice.seq for notice in found] == [1, 2, 3]
    assert [msgspec.json.decode(notice.payload)["state"] for notice in found] == ["active", "cleared", "active"]
    assert len([m for m in rig.told("alarm/d1/hot") if m["state"] == "cleared"]) == 1


async def test_numbers_of_records_go_on_after_a_restart_and_a_known_alarm_is_not_recorded_again() -> None:
    rig = Rig(alarms=[ALARM], streams=STREAMS)
    await rig.start()
    rig.event(0, 99.0)
    await rig.engine.settled()
    again = Rig(alarms=[ALARM], streams=STREAMS, journal=rig.journal)
    await again.start()
    again.event(1, 0.0)
    again.event(2, 0.0)
    await again.engine.settled()

    assert [notice.seq for notice in records(again, "alarm")] == [1, 2]


async def test_a_gap_goes_home_and_to_the_plant() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    rig.event(0)
    rig.event(4)
    await rig.engine.settled()
    rig.clock.advance_s(1.1)
    rig.upkeep.tick()
    await rig.engine.settled()

    assert [notice.kind for notice in records(rig, "health") if notice.kind == "gap"] == ["gap"]
    assert len(rig.told("gap")) == 1


async def test_what_only_the_receiver_gets_is_never_published_at_the_plant() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    rig.upkeep.tick()
    await rig.engine.settled()

    assert {notice.kind for notice in records(rig, "health")} >= {"clock", "health"}
    assert rig.told("event") == []
    assert rig.notices.delivered == rig.engine.newest_batch


async def test_without_an_upstream_nothing_is_recorded_for_it() -> None:
    rig = Rig()
    await rig.start()
    rig.upkeep.tick()
    await rig.engine.settled()

    assert records(rig, "health") == []
    assert "sync" not in rig.report.status()


async def test_what_is_home_is_remembered_with_the_next_unit_and_told_to_the_store() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    for seq in range(5):
        rig.event(seq)
    await rig.engine.settled()
    rig.homeward.on_synced("result", [(1, 2)])
    rig.homeward.on_synced("result", [(4, 4)])
    rig.homeward.on_status({"receiver": "hub-1", "state": "streaming"})
    await rig.snapshots.save_if_due()
    again = Rig(streams=STREAMS, journal=rig.journal)

    assert again.home.receiver == "hub-1"
    assert again.journal.synced["result"] == ((1, 2), (4, 4))
    books = again.report.status()["sync"]
    assert isinstance(books, dict)
    assert books["streams"]["result"] == {"made": 5, "home": 3, "waiting": 2}


async def test_the_same_word_twice_changes_nothing() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    rig.homeward.on_synced("result", [(1, 1)])
    before = rig.home.changes
    rig.homeward.on_synced("result", [(1, 1)])
    rig.homeward.on_status({"receiver": ""})

    assert rig.home.changes == before
    assert rig.home.receiver == ""


async def test_a_rejected_batch_becomes_a_tombstone() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(rig.homeward.run())
        rig.homeward.on_rejected("result", 3, 7, "bad_body")
        async with asyncio.timeout(5):
            while not rig.journal.given_up:
                await asyncio.sleep(0)
        running.cancel()

    assert rig.journal.given_up == [("result", 3, 7, "rejected:bad_body")]


async def test_a_parted_history_gets_a_new_epoch_and_ends_the_process_so_that_it_starts_again() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(rig.homeward.run())
        rig.homeward.on_fork("e1", 17)
        async with asyncio.timeout(5):
            while not rig.homeward_errors:
                await asyncio.sleep(0)
        running.cancel()

    assert rig.journal.forked == [17]
    (error,) = rig.homeward_errors
    assert isinstance(error, HistoryParted)
    assert error.exit_code == 75


async def test_reasons_of_the_uplink_make_the_mode_and_take_nothing_from_a_result() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    rig.homeward.on_reason("upstream_rejecting", True, "bad_body")
    rig.event(0)
    await rig.engine.settled()
    assert (rig.results()[0]["mode"], rig.results()[0]["degraded"]) == ("degraded", False)
    rig.homeward.on_reason("upstream_away", True, "no_answer")
    assert set(rig.modes.state.codes) == {"upstream_rejecting", "upstream_away"}


class Taken(NamedTuple):
    file: Path
    receiver: str = "hub-1"
    home: tuple[tuple[Stream, tuple[Range, ...]], ...] = ()
    forks: tuple[Fork, ...] = ()
    refused: str = ""


class Folder:
    """A folder of receipts in memory."""

    def __init__(self, *taken: Taken) -> None:
        self.taken = list(taken)
        self.removed: list[Path] = []

    def look(self, receiver: str) -> list[Taken]:
        return [taken for taken in self.taken if taken.file not in self.removed]

    def remove(self, files: object) -> None:
        assert isinstance(files, list)
        self.removed += files


async def test_a_receipt_frees_rows_once_the_store_remembers_it_and_a_refused_one_frees_nothing() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    folder = Folder(
        Taken(Path("a.json"), home=(("result", ((1, 1),)),)), Taken(Path("b.json"), refused="bad_signature: ...")
    )
    lines: list[str] = []
    homeward = Homeward(rig.engine, Log(rig.clock, write=lines.append, journal=False), rig.homeward_errors.append)

    await homeward.take_receipts(folder)
    await homeward.take_receipts(folder)

    assert rig.journal.synced["result"] == ((1, 1),)
    assert Rig(streams=STREAMS, journal=rig.journal).journal.synced["result"] == ((1, 1),)
    assert folder.removed == [Path("a.json"), Path("b.json")]
    assert any("receipt_refused" in line for line in lines)


def test_a_clock_that_became_right_is_recorded_once_and_again_after_a_step() -> None:
    clock = FakeClock(mono_ns=5_000_000_000, wall_ms=1_000)
    clock.quality_now = "unsynced"
    watch = ClockWatch()
    assert watch.look(clock) is None
    clock.jump_wall_ms(1_700_000_000_000)
    clock.quality_now = "synced"

    first = watch.look(clock)
    assert first is not None
    body = msgspec.json.decode(first.payload)
    assert (body["boot"], body["offset_ns"]) == (clock.boot_id, (1_700_000_001_000 - 5_000) * 1_000_000)
    assert watch.look(clock) is None
    clock.jump_wall_ms(-20)
    assert watch.look(clock) is None
    clock.jump_wall_ms(3_600_000)
    assert watch.look(clock) is not None


@pytest.mark.parametrize("stream", sorted(STREAMS))
async def test_the_newest_numbers_are_those_of_what_is_durable(stream: Stream) -> None:
    rig = Rig(streams=frozenset({stream}))
    await rig.start()
    assert rig.home.newest(result=3, event=9) == {stream: 3 if stream == "result" else 0}


async def test_results_given_up_before_they_were_home_are_a_declared_loss() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    for seq in range(3):
        rig.event(seq)
    await rig.engine.settled()
    rig.journal.delivered_upto = 0
    rig.journal.evict_upto = 2
    rig.event(3)
    await rig.engine.settled()
    rig.upkeep.tick()

    assert "backlog_aged" in rig.modes.state.codes
    assert rig.modes.mode == "shedding"


async def test_a_history_that_cannot_be_parted_is_told_and_the_plant_is_served_on() -> None:
    rig = Rig(streams=STREAMS)
    await rig.start()
    rig.journal.unforkable = True
    async with asyncio.TaskGroup() as group:
        running = group.create_task(rig.homeward.run())
        rig.homeward.on_fork("e1", 17)
        async with asyncio.timeout(5):
            while "upstream_refused" not in rig.modes.state.codes:
                await asyncio.sleep(0)
        rig.event(0)
        await rig.engine.settled()
        running.cancel()

    assert (rig.journal.forked, rig.homeward_errors) == ([], [])
    assert len(rig.results()) == 1
