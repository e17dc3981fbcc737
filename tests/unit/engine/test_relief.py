"""A pipeline under pressure: what it leaves out is declared, counted, and survives a restart; nothing else is lost."""

from __future__ import annotations

from edged.policy.governor import declares
from tests.doubles.engine_rig import ALARM, Rig


def seqs(rig: Rig) -> list[int]:
    return [result["input"]["seq"] for result in rig.results()]


async def test_a_pipeline_that_may_be_slowed_answers_half_and_counts_the_rest() -> None:
    rig = Rig(may_slow=True)
    await rig.start()
    rig.runner.relieve(declares("lower_rate"))
    for seq in range(10):
        rig.event(seq)
        await rig.engine.settled()
    assert seqs(rig) == [0, 2, 4, 6, 8]
    assert rig.ledger.left_out == {"p": {"slowed": 5}}
    assert rig.ledger.inputs["p"].stored == 10
    assert rig.ledger.balanced()
    assert all(result["degraded"] for result in rig.results())
    assert (rig.runner.report()["left_out"], rig.runner.report()["share"]) == (5, 0.5)


async def test_a_pipeline_that_declares_nothing_answers_everything_and_is_not_degraded() -> None:
    rig = Rig(alarms=[ALARM])
    await rig.start()
    rig.runner.relieve(declares("essential"))
    for seq in range(4):
        rig.event(seq)
    await rig.engine.settled()
    assert seqs(rig) == [0, 1, 2, 3]
    assert not any(result["degraded"] for result in rig.results())


async def test_without_alarms_nothing_is_answered_when_only_alarms_count_and_all_of_it_afterwards() -> None:
    rig = Rig()
    await rig.start()
    rig.runner.relieve(declares("essential"))
    rig.event(0)
    rig.event(1)
    await rig.engine.settled()
    assert seqs(rig) == []
    assert rig.runner.done() == 2  # left out is dealt with: a restart must not answer it
    rig.runner.relieve(declares("full"))
    rig.event(2)
    await rig.engine.settled()
    assert seqs(rig) == [2]
    assert rig.ledger.left_out == {"p": {"not_essential": 2}}


async def test_after_a_restart_what_was_left_out_is_neither_answered_nor_counted_again() -> None:
    first = Rig(may_slow=True)
    await first.start()
    first.runner.relieve(declares("lower_rate"))
    for seq in range(6):
        first.event(seq)
        await first.engine.settled()
    second = Rig(may_slow=True, journal=first.journal)
    await second.start()
    second.event(6)
    await second.engine.settled()
    assert second.ledger.left_out == {"p": {"slowed": 3}}
    units = [unit.results for unit in second.journal.units if unit.results is not None]
    assert sum(len(results.context) for results in units) == 4  # 0, 2, 4 and 6
    assert second.ledger.inputs["p"].stored == 4 + 3


async def test_what_was_left_out_behind_an_open_call_is_counted_once_also_when_the_process_dies() -> None:
    first = Rig(may_slow=True, lane=True, max_batch=1)
    await first.start()
    first.runner.relieve(declares("lower_rate"))
    for seq in range(2):  # the first is at work, the second left out: neither is settled
        first.event(seq)
        await first.engine.settled()
    assert first.ledger.left_out == {"p": {}}
    second = Rig(may_slow=True, lane=True, max_batch=1, journal=first.journal)
    assert second.lane is not None
    second.runner.relieve(declares("lower_rate"))
    await second.start()
    while second.lane.jobs:
        second.lane.answer()
    second.event(2)
    await second.engine.settled()
    while second.lane.jobs:
        second.lane.answer()
    await second.engine.settled()
    assert seqs(second) == [0, 2]
    assert second.ledger.left_out == {"p": {"slowed": 1}}


async def test_windows_that_wait_for_a_lane_are_judged_once() -> None:
    rig = Rig(may_slow=True, lane=True, max_batch=1)
    assert rig.lane is not None
    await rig.start()
    rig.runner.relieve(declares("lower_rate"))
    for seq in range(12):
        rig.event(seq)
    await rig.engine.settled()
    for _ in range(5):
        rig.upkeep.tick()  # what waits is looked at again and again
    while rig.lane.jobs:
        rig.lane.answer()
    await rig.engine.settled()
    assert seqs(rig) == [0, 2, 4, 6, 8, 10]
    assert rig.ledger.left_out == {"p": {"slowed": 6}}


async def test_the_smaller_model_answers_under_pressure_and_its_results_say_so() -> None:
    rig = Rig(smaller=True)
    await rig.start()
    for seq, level in enumerate(("full", "smaller_model", "full")):
        rig.runner.relieve(declares(level))  # type: ignore[arg-type]
        rig.event(seq)
        await rig.engine.settled()
    told = [(result["model"], result["model_version"], result["degraded"]) for result in rig.results()]
    assert told == [("mean", "1", False), ("small", "2", True), ("mean", "1", False)]


async def test_the_model_changes_only_when_nothing_is_on_its_way_so_that_answers_keep_their_order() -> None:
    rig = Rig(smaller=True, lane=True)
    assert rig.lane is not None
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    rig.runner.relieve(declares("smaller_model"))
    rig.event(1)
    await rig.engine.settled()
    assert rig.runner.report()["model"] == "mean"  # its lane still works on the first
    rig.lane.answer()
    await rig.engine.settled()
    assert [(result["input"]["seq"], result["model"]) for result in rig.results()] == [(0, "mean"), (1, "small")]


async def test_how_long_the_oldest_input_waits_is_known_of_lanes_that_keep_up() -> None:
    rig = Rig(lane=True)
    assert rig.lane is not None
    await rig.start()
    assert rig.runner.oldest_ns() is None
    arrived_ns = rig.clock.mono_ns()
    rig.event(0)
    await rig.engine.settled()
    rig.clock.advance_s(1)
    assert rig.runner.oldest_ns() == arrived_ns
    rig.runner.lagging = True
    assert rig.runner.oldest_ns() is None
