"""What a restart must not lose, repeat or change: the fold over the stored events gives the same state again."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.snapshot import unfold
from tests.doubles.clock import FakeClock
from tests.doubles.engine_rig import ALARM, Rig


async def run(rig: Rig, *seqs: int, a: float = 1.0) -> None:
    """Events arrive; everything that can leave has left."""
    for seq in seqs:
        rig.event(seq, a)
    await rig.engine.settled()
    await rig.delivery.refill_once()
    await rig.delivery.refill_once()


def ids(rig: Rig) -> list[tuple[str, int]]:
    return [(r["id"], r["input"]["seq"]) for r in rig.results()]


async def test_unacknowledged_results_are_sent_again_with_the_same_id_and_marked_historical() -> None:
    first = Rig()
    await first.start()
    await run(first, 0, 1, 2)
    second = Rig(journal=first.journal)
    await second.start()
    await second.delivery.refill_once()
    assert ids(second) == ids(first)
    assert [r["historical"] for r in second.results()] == [True] * 3
    strip = {"historical": None}
    assert [r | strip for r in second.results()] == [r | strip for r in first.results()]


async def test_acknowledged_results_are_not_sent_again() -> None:
    first = Rig()
    await first.start()
    await run(first, 0, 1)
    first.link.settle_all()
    await first.snapshots.save_if_due()
    second = Rig(journal=first.journal)
    await second.start()
    await second.delivery.refill_once()
    assert second.results() == []
    assert second.ledger.results["result"].delivered == 2


async def test_an_event_redelivered_after_a_crash_is_a_duplicate() -> None:
    first = Rig()
    await first.start()
    await run(first, 0, 1, 2)
    second = Rig(journal=first.journal)
    await second.start()
    packet_id = second.event(2)
    await run(second, 3)
    assert second.link.acks[0] == packet_id
    assert second.ledger.inputs["p"].duplicates == 1
    assert [r["input"]["seq"] for r in second.results() if not r["historical"]] == [3]


async def test_windows_go_on_where_they_were_with_and_without_a_snapshot() -> None:
    for snapshot in (False, True):
        first = Rig(window=4, stride=2)
        await first.start()
        await run(first, 0, 1, 2)
        if snapshot:
            await first.snapshots.save()
        await run(first, 3, 4)
        second = Rig(journal=first.journal, window=4, stride=2)
        await second.start()
        await run(second, 5, 6, 7)
        assert [r["input"]["seq"] for r in second.results() if not r["historical"]] == [5, 7]


async def test_a_damaged_snapshot_is_replaced_by_a_replay() -> None:
    first = Rig(window=3)
    await first.start()
    await run(first, 0, 1, 2, 3)
    first.journal.snapshot = (4, b"damaged")
    assert unfold(b"damaged") is None
    assert unfold(msgspec.msgpack.encode([99, 0, 0, 0, {}, {}, []])) is None
    second = Rig(journal=first.journal, window=3)
    recovery = await second.start()
    assert (recovery.snapshot_used, recovery.replayed_events) == (False, 4)
    await run(second, 3, 4)
    assert [r["input"]["seq"] for r in second.results() if not r["historical"]] == [4]


async def test_another_window_length_starts_afresh_and_answers_nothing_twice() -> None:
    first = Rig(window=3)
    await first.start()
    await run(first, 0, 1, 2, 3)
    await first.snapshots.save()
    second = Rig(journal=first.journal, window=2)
    await second.start()
    await run(second, 4, 5)
    assert [r["input"]["seq"] for r in second.results() if not r["historical"]] == [5]


async def test_an_active_alarm_stands_on_the_board_again_and_clears_as_if_nothing_had_happened() -> None:
    first = Rig(alarms=[ALARM])
    await first.start()
    await run(first, 0, a=20.0)
    await first.snapshots.save()
    await run(first, 1, a=1.0)
    second = Rig(journal=first.journal, alarms=[ALARM])
    await second.start()
    second.delivery.pump()
    assert second.told("alarm/d1/hot")[-1]["state"] == "active"
    await run(second, 2, a=1.0)
    assert second.told("alarm/d1/hot")[-1]["state"] == "cleared"
    assert second.board.value("edged/v1/lyon/gw/alarm/d1/hot") == b""


async def test_known_devices_are_announced_again_after_a_restart() -> None:
    first = Rig()
    await first.start()
    await run(first, 0)
    second = Rig(journal=first.journal)
    await second.start()
    assert second.told("device/d1/state")[0]["state"] == "online"
    assert second.told("meta/device/d1") == first.told("meta/device/d1")


async def test_a_gap_noticed_before_the_crash_is_not_told_twice_and_one_not_yet_told_is_told() -> None:
    clock = FakeClock()
    first = Rig(clock=clock)
    await first.start()
    await run(first, 0, 3)
    clock.advance_s(2)
    first.upkeep.tick()
    await first.engine.settled()
    await run(first, 7)
    second = Rig(journal=first.journal, clock=clock)
    recovery = await second.start()
    assert [(g.first, g.last) for g in recovery.gaps] == [(4, 6)]


async def test_a_pipeline_new_to_the_configuration_begins_with_the_next_event() -> None:
    first = Rig()
    await first.start()
    await run(first, 0, 1)
    meta = msgspec.json.decode(first.journal.meta or b"")
    first.journal.meta = msgspec.json.encode(meta | {"done": {}})
    second = Rig(journal=first.journal)
    await second.start()
    await run(second, 2)
    assert [r["input"]["seq"] for r in second.results() if not r["historical"]] == [2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["event", "skip", "settle", "snapshot", "crash", "tick"]), max_size=30))
async def test_wherever_it_crashes_each_window_is_answered_exactly_once(steps: list[str]) -> None:
    rig = Rig(window=3, stride=2)
    await rig.start()
    seq, expected = 0, 0
    seen: dict[str, dict[str, Any]] = {}
    for step in [*steps, "crash"]:
        if step == "event":
            await run(rig, seq, a=float(seq))
            expected += 1
            seq += 1
        elif step == "skip":
            seq += 1
        elif step == "settle":
            rig.link.settle_all()
        elif step == "snapshot":
            await rig.snapshots.save_if_due()
            await rig.snapshots.save()
        elif step == "tick":
            rig.clock.advance_s(1.5)
            rig.upkeep.tick()
            await rig.engine.settled()
        else:
            _remember(seen, rig)
            rig = Rig(journal=rig.journal, clock=rig.clock, window=3, stride=2)
            await rig.start()
            await rig.delivery.refill_once()
    _remember(seen, rig)
    assert len({r["input"]["seq"] for r in seen.values()}) == len(seen) == max(0, (expected - 1) // 2)
    assert rig.ledger.balanced()


def _remember(seen: dict[str, dict[str, Any]], rig: Rig) -> None:
    for result in rig.results():
        known = seen.setdefault(result["id"], result)
        assert known | {"historical": 0} == result | {"historical": 0}
