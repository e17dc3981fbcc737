"""A slow model never delays acknowledgements: its events are committed first and answered later, each exactly once."""

import asyncio

from edged.engine.runner_parts import READY_LIMIT
from edged.errors import InferenceError
from tests.doubles.engine_rig import Rig


async def catch_up(rig: Rig) -> None:
    """Let the catch-up work until nothing moves any more."""
    task = asyncio.ensure_future(rig.catch_up.run())
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()


def lagging(rig: Rig) -> bool:
    return rig.runner.lagging


async def test_events_are_acknowledged_while_the_model_still_computes() -> None:
    rig = Rig(lane=True)
    await rig.start()
    packet_id = rig.event(0)
    await rig.engine.settled()
    assert rig.link.acks == [packet_id]
    assert rig.results() == []
    assert rig.lane is not None
    rig.lane.answer(infer_us=50_000)
    await rig.engine.settled()
    (result,) = rig.results()
    assert result["latency_ms"]["infer"] == 50.0
    assert rig.runner.done() == 1


async def test_what_the_lane_has_no_room_for_waits_in_memory_and_is_submitted_when_it_has() -> None:
    rig = Rig(lane=True, max_batch=2)
    await rig.start()
    assert rig.lane is not None
    for seq in range(7):
        rig.event(seq)
    await rig.engine.settled()
    assert (len(rig.lane.jobs), rig.runner.waiting(), rig.runner.done()) == (2, 7, 0)
    while rig.lane.jobs:
        rig.lane.answer()
        await rig.engine.settled()
    assert [r["input"]["seq"] for r in rig.results()] == list(range(7))
    assert rig.runner.done() == 7


async def test_a_pipeline_far_behind_leaves_events_in_the_store_and_catches_up_in_order() -> None:
    rig = Rig(lane=True, max_batch=512)
    await rig.start()
    assert rig.lane is not None
    total = READY_LIMIT + 3000
    for seq in range(total):
        rig.event(seq)
        if seq % 1000 == 999:
            await rig.engine.settled()
    await rig.engine.settled()
    assert lagging(rig)
    assert rig.modes.state.codes == ("lane_behind",)
    assert rig.runner.waiting() < total
    for _ in range(200):
        if rig.lane.jobs:
            rig.lane.answer()
        await rig.engine.settled()
        await catch_up(rig)
        rig.link.settle_all()
        await rig.delivery.refill_once()
        if not rig.lane.jobs and not lagging(rig):
            break
    assert not lagging(rig)
    assert [r["input"]["seq"] for r in rig.results()] == list(range(total))


async def test_after_a_crash_unanswered_windows_are_computed_again_and_answered_ones_are_not() -> None:
    for snapshot in (False, True):
        first = Rig(lane=True, window=2, stride=1, max_batch=1)
        await first.start()
        assert first.lane is not None
        for seq in range(5):
            first.event(seq, float(seq))
        await first.engine.settled()
        first.lane.answer()
        await first.engine.settled()
        if snapshot:
            await first.snapshots.save()
        second = Rig(journal=first.journal, lane=True, window=2, stride=1, max_batch=1)
        await second.start()
        assert second.lane is not None
        await second.delivery.refill_once()
        while second.lane.jobs:
            second.lane.answer()
            await second.engine.settled()
        assert [r["input"]["seq"] for r in second.results()] == [1, 2, 3, 4]


async def test_an_error_of_the_lane_is_a_bad_result_and_the_next_window_is_answered() -> None:
    rig = Rig(lane=True, max_batch=1)
    await rig.start()
    assert rig.lane is not None
    rig.event(0)
    rig.event(1)
    await rig.engine.settled()
    _, done = rig.lane.jobs.pop(0)
    done(InferenceError("infer_timeout", "no answer"), 0, None)
    rig.lane.answer()
    await rig.engine.settled()
    assert [r["quality_reasons"] for r in rig.results()] == [["infer_timeout"], []]


async def test_a_stuck_call_is_a_reason_of_the_mode_until_it_returns_and_an_unusable_model_makes_it_safe() -> None:
    rig = Rig(lane=True)
    await rig.start()
    assert rig.lane is not None
    rig.lane.abandoned = 1
    rig.upkeep.tick()
    assert "runtime_stuck" in rig.modes.state.codes
    rig.lane.abandoned = 0
    rig.lane.state = "unusable"
    rig.upkeep.tick()
    rig.clock.advance_s(61)
    rig.upkeep.tick()
    assert rig.modes.state.codes == ("model_unusable",)
    assert rig.modes.mode == "safe"


async def test_of_latest_inputs_only_the_newest_window_of_each_device_waits() -> None:
    rig = Rig(lane=True, latest_only=True, max_batch=8)
    await rig.start()
    assert rig.lane is not None
    rig.event(0)
    await rig.engine.settled()
    for seq in (1, 2, 3):
        rig.event(seq)
        rig.event(seq, device="d2")
    await rig.engine.settled()
    rig.lane.answer()
    await rig.engine.settled()
    rig.lane.answer()
    await rig.engine.settled()
    assert [(r["device"], r["input"]["seq"]) for r in rig.results()] == [("d1", 0), ("d1", 3), ("d2", 3)]
    assert rig.runner.skipped == 4
    assert rig.runner.report()["skipped"] == 4
