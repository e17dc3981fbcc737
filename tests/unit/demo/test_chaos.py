"""Faults come when planned, are repaired, and recovery is noticed only when nothing is owed any more."""

from __future__ import annotations

from itertools import pairwise

from edged.demo.chaos import Chaos, Damage, plan
from edged.demo.proxy import Mode

S = 1_000_000_000


class Plant:
    """Cable and daemon that write down what is done to them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def switch(self, mode: Mode) -> None:
        self.done.append(mode)

    def kill(self) -> None:
        self.done.append("kill")

    def start(self) -> None:
        self.done.append("start")


def chaos(plant: Plant, seconds: float | None = 30.0) -> Chaos:
    return Chaos(plant, plant, start_ns=0, seconds=seconds)


def test_every_kind_of_fault_is_over_before_the_last_third() -> None:
    for seconds in (3.0, 8.0, 30.0, 600.0):
        faults = plan(seconds)

        assert [fault.what for fault in faults] == ["link_cut", "link_stalled", "kill9"]
        for fault, after in pairwise(faults):
            assert fault.at_s + fault.lasts_s < after.at_s
        assert faults[-1].at_s + faults[-1].lasts_s <= seconds * 2 / 3


def test_a_cut_is_repaired_and_recovered_when_results_are_back_and_none_from_before_is_owed() -> None:
    plant = Plant()
    play = chaos(plant)
    play.tick(5 * S, last_result_ns=5 * S, oldest_owed_ns=None)
    assert plant.done == []

    play.tick(6 * S, last_result_ns=5 * S, oldest_owed_ns=None)
    assert plant.done == ["cut"]
    assert play.doing == "the cable to the broker is cut"

    play.tick(8 * S, last_result_ns=5 * S, oldest_owed_ns=6 * S)
    assert plant.done == ["cut"]

    play.tick(9 * S, last_result_ns=5 * S, oldest_owed_ns=6 * S)
    assert plant.done == ["cut", "open"]
    assert "recovering" in play.doing

    play.tick(10 * S, last_result_ns=10 * S, oldest_owed_ns=6 * S)
    play.tick(11 * S, last_result_ns=11 * S, oldest_owed_ns=7 * S)
    assert play.damages == []

    play.tick(12 * S, last_result_ns=12 * S, oldest_owed_ns=11 * S)
    assert play.damages == [Damage(6.0, "link_cut", 3.0, 3.0)]
    assert play.doing == ""


def test_a_result_that_was_on_its_way_when_the_daemon_was_killed_is_no_sign_of_life() -> None:
    plant = Plant()
    play = chaos(plant)
    for second in range(19):
        play.tick(second * S, last_result_ns=second * S, oldest_owed_ns=None)
    assert plant.done == ["cut", "open", "stalled", "open", "kill", "start"]

    play.tick(18 * S + S // 10, last_result_ns=18 * S + S // 10, oldest_owed_ns=None)
    play.tick(19 * S, last_result_ns=18 * S + S // 10, oldest_owed_ns=None)
    assert len(play.damages) == 2

    play.tick(20 * S, last_result_ns=20 * S, oldest_owed_ns=None)
    play.tick(20 * S, last_result_ns=20 * S, oldest_owed_ns=None)
    assert play.damages[2:] == [Damage(18.0, "kill9", 0.0, 2.0)]


def test_an_endless_demo_breaks_things_again_and_again() -> None:
    plant = Plant()
    play = chaos(plant, seconds=None)
    for tick in range(1000):
        now = tick * S // 10
        play.tick(now, last_result_ns=now, oldest_owed_ns=None)

    assert len(play.damages) >= 8
    assert [damage.what for damage in play.damages[:4]] == ["link_cut", "link_stalled", "kill9", "link_cut"]


def test_the_end_repairs_what_is_broken_and_says_what_has_not_recovered() -> None:
    plant = Plant()
    play = chaos(plant)
    play.tick(6 * S, last_result_ns=0, oldest_owed_ns=None)
    play.end(7 * S)
    play.end(8 * S)

    assert plant.done == ["cut", "open"]
    assert play.report() == [Damage(6.0, "link_cut", 1.0, None)]

    play.tick(9 * S, last_result_ns=9 * S, oldest_owed_ns=None)
    play.tick(9 * S, last_result_ns=9 * S, oldest_owed_ns=None)
    play.tick(30 * S, last_result_ns=9 * S, oldest_owed_ns=None)

    assert plant.done == ["cut", "open"]
    assert play.report() == [Damage(6.0, "link_cut", 1.0, 2.0)]
