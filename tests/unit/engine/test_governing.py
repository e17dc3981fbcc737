"""The governor wired in: what the box says becomes a level, reasons of the mode, measures, and numbers people see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest

from edged.engine.governing import BACKLOG_AFTER_S, Backlog, Governing, Surroundings
from edged.engine.report import Report, Sections
from edged.ops.sensors.report import DeviceReport, read_devices
from edged.policy.batching import Cost
from edged.policy.governor import LEVELS, SAMPLE_INTERVAL_S, STEP_HOLD_S, Facts
from tests.doubles.engine_rig import Rig
from tests.doubles.sysfs import Box

pytestmark = pytest.mark.allow_blocking(reason="the box is a folder of small files, read where the test stands")


class OneReport:
    """Always the same answer, and how often it was asked for."""

    def __init__(self, report: DeviceReport | None, trouble: str = "") -> None:
        self.report = report
        self.trouble = trouble
        self.looks = 0

    async def look(self) -> DeviceReport | None:
        self.looks += 1
        return self.report


class Live(NamedTuple):
    cost: Cost


class Served:
    """As much of a chain as the governor looks at."""

    def __init__(self, cost: Cost) -> None:
        self.serving = Live(cost)


class Governed:
    """A rig with a governor over the box in `root`."""

    def __init__(self, rig: Rig, root: Path) -> None:
        self.rig = rig
        self.box = Box(root)
        self.around = Surroundings()
        self.governing = Governing(rig.engine, rig.log, OneReport(None), lambda: self.around)

    def samples(self, count: int = 1) -> None:
        """Let so many sampling intervals pass."""
        for _ in range(count):
            self.governing.take(read_devices(self.box.root))
            self.rig.clock.advance_s(SAMPLE_INTERVAL_S)
            self.rig.upkeep.tick()

    @property
    def level(self) -> int:
        return LEVELS.index(self.governing.pressure()["level"])

    @property
    def reasons(self) -> dict[str, str]:
        return {reason.code: reason.detail for reason in self.rig.modes.state.reasons}


@pytest.fixture
async def governed(tmp_path: Path) -> Governed:
    rig = Rig(may_slow=True)
    await rig.start()
    return Governed(rig, tmp_path)


async def test_a_cool_box_is_left_alone(governed: Governed) -> None:
    governed.box.zone(0, "cpu", 50, ("passive", 85), ("critical", 100))
    governed.samples(5)
    assert (governed.rig.modes.mode, governed.reasons, governed.level) == ("normal", {}, 0)


async def test_heat_slows_what_may_be_slowed_says_why_with_figures_and_all_work_returns(governed: Governed) -> None:
    rig, box = governed.rig, governed.box
    box.zone(0, "cpu", 82, ("passive", 85), ("critical", 105))
    governed.samples(3)
    assert rig.modes.mode == "degraded"
    assert "throttle_margin_c: 3.0" in governed.reasons["heat_near_throttling"]
    for seq in range(4):
        rig.event(seq)
    await rig.engine.settled()
    assert [result["input"]["seq"] for result in rig.results()] == [0, 2]
    assert all(result["degraded"] for result in rig.results())
    box.zone(0, "cpu", 60, ("passive", 85), ("critical", 105))
    governed.samples((60 + STEP_HOLD_S) // SAMPLE_INTERVAL_S + 3)
    assert (rig.modes.mode, governed.reasons, governed.level) == ("normal", {}, 0)
    rig.event(4)
    rig.event(5)
    await rig.engine.settled()
    assert [result["input"]["seq"] for result in rig.results()] == [0, 2, 4, 5]


async def test_while_the_level_comes_down_the_mode_says_what_still_holds(governed: Governed) -> None:
    governed.box.zone(0, "cpu", 103, ("passive", 85), ("critical", 105))
    governed.samples(3)
    assert governed.rig.modes.mode == "shedding"
    governed.box.zone(0, "cpu", 82, ("passive", 85), ("critical", 105))  # no longer critical, still close to slowing
    seen = set()
    while governed.level > 1:
        governed.samples()
        seen.add((governed.governing.pressure()["level"], governed.rig.modes.mode))
    assert {("essential", "shedding"), ("summaries", "shedding"), ("smaller_model", "degraded")} <= seen
    assert not {("essential", "degraded"), ("summaries", "degraded")} & seen
    governed.box.zone(0, "cpu", 40, ("passive", 85), ("critical", 105))
    governed.samples(200 // SAMPLE_INTERVAL_S)
    assert (governed.rig.modes.mode, governed.reasons) == ("normal", {})


async def test_after_the_last_reason_the_level_eases_and_says_so(governed: Governed) -> None:
    governed.box.zone(0, "cpu", 103, ("passive", 200), ("critical", 105))
    governed.samples()
    governed.box.zone(0, "cpu", 40, ("passive", 200), ("critical", 105))
    governed.samples(300 // SAMPLE_INTERVAL_S + 2)
    assert set(governed.reasons) == {"pressure_easing", "shedding_lingers"}
    assert governed.rig.modes.mode == "shedding"
    governed.samples(4 * STEP_HOLD_S // SAMPLE_INTERVAL_S + 2)
    assert governed.reasons == {}


async def test_a_box_that_says_nothing_is_unknown_not_well_and_not_zero(governed: Governed) -> None:
    governed.governing.take(None)
    pressure = governed.governing.pressure()
    unknown = pressure["unknown"]
    assert isinstance(unknown, list)
    assert {"throttle_margin_c", "throttled", "memory_available_share", "disk_free_share", "accelerator"} <= {*unknown}
    assert pressure["facts"] == {"backlog_age_s": 0.0, "queue_deadline_ratio": 0.0}
    assert governed.governing.device() == {}
    assert pressure["level"] == "full"


async def test_before_the_first_sample_nothing_is_known(governed: Governed) -> None:
    assert governed.governing.pressure() == {
        "level": "full", "codes": [], "facts": {}, "unknown": list(Facts._fields),
    }  # fmt: skip


async def test_a_reason_stays_while_the_box_says_nothing(governed: Governed) -> None:
    governed.box.zone(0, "cpu", 82, ("passive", 85), ("critical", 105))
    governed.samples(3)
    for _ in range(100):
        governed.governing.take(None)
        governed.rig.clock.advance_s(SAMPLE_INTERVAL_S)
    assert "heat_near_throttling" in governed.governing.pressure()["codes"]  # type: ignore[operator]


async def test_an_input_that_waits_for_most_of_its_deadline_presses(tmp_path: Path) -> None:
    rig = Rig(lane=True, deadline_ms=1000)
    assert rig.lane is not None
    await rig.start()
    governed = Governed(rig, tmp_path)
    rig.event(0)
    await rig.engine.settled()
    governed.samples(4)  # it waits for 2, 4, 6 s
    assert "queue_very_late" in governed.reasons
    while rig.lane.jobs:
        rig.lane.answer()
    governed.samples(100)
    assert governed.reasons == {}


async def test_little_room_is_no_matter_while_everything_leaves(governed: Governed) -> None:
    governed.around = Surroundings(room_days=0.1)
    governed.rig.event(0)
    await governed.rig.engine.settled()
    governed.rig.link.settle_all()
    governed.samples(1000)
    assert governed.reasons == {}


async def test_results_that_wait_for_long_make_the_room_of_the_store_a_matter_of_concern(tmp_path: Path) -> None:
    rig = Rig(streams=frozenset({"result"}))
    await rig.start()
    governed = Governed(rig, tmp_path)
    governed.around = Surroundings(room_days=2.0)
    rig.event(0)
    await rig.engine.settled()
    governed.samples(10)
    assert governed.reasons == {}
    rig.clock.advance_s(BACKLOG_AFTER_S)
    governed.samples(3)
    assert "store_room_short" in governed.reasons
    rig.home.arrived("result", [(1, 1)])
    governed.samples(700 // SAMPLE_INTERVAL_S)
    assert governed.reasons == {}


async def test_summaries_are_wanted_under_heat_and_not_where_only_room_presses(tmp_path: Path) -> None:
    rig = Rig(streams=frozenset({"result"}))
    await rig.start()
    governed = Governed(rig, tmp_path)
    governed.around = Surroundings(room_days=0.5)
    rig.event(0)
    await rig.engine.settled()
    governed.samples()
    rig.clock.advance_s(BACKLOG_AFTER_S)
    governed.samples(3)
    assert governed.governing.pressure()["level"] == "summaries"
    assert not governed.governing.summaries_wanted()  # the store gives up by class, the oldest first
    governed.box.zone(0, "cpu", 98, ("passive", 200), ("critical", 105))
    governed.samples(2)
    assert governed.governing.summaries_wanted()


async def test_an_accelerator_that_is_away_presses(governed: Governed) -> None:
    governed.around = Surroundings(accelerator="fallback")
    governed.samples(1)
    assert "accelerator_fallback" in governed.reasons


def test_the_age_of_the_backlog_is_that_of_the_oldest_row_that_has_not_left() -> None:
    backlog = Backlog()
    assert backlog.age_s(0, 0, 0) == 0
    assert backlog.age_s(10, 10, 1000) == 0
    assert backlog.age_s(11, 10, 2000) == 0  # made just now
    assert backlog.age_s(12, 10, 5000) == 3
    assert backlog.age_s(12, 11, 6000) == 1  # the twelfth was made at 5000
    assert backlog.age_s(12, 12, 9000) == 0


def test_a_long_backlog_is_remembered_coarsely_but_its_beginning_exactly() -> None:
    backlog = Backlog()
    age_s = 0.0
    for second in range(1, 5001):
        age_s = backlog.age_s(second, 0, second * 1000)
    assert age_s == 4999


async def test_the_numbers_are_in_the_heartbeat_and_in_the_metrics(governed: Governed) -> None:
    rig, governing = governed.rig, governed.governing
    governed.box.zone(0, "cpu", 82, ("passive", 85))
    governed.samples(3)
    sections = Sections(pressure=governing.pressure, device=governing.device)
    report = Report(rig.engine, rig.devices, rig.clock, identity={}, sections=sections)
    health = report.health(1)
    assert health["device"] == {"zone_cpu_c": 82.0, "zone_cpu_passive_c": 85.0}
    assert health["pressure"]["level"] == "lower_rate"  # type: ignore[index]
    for seq in range(2):
        rig.event(seq)
    await rig.engine.settled()
    samples = {(sample.name, *sample.labels.values()): sample.value for sample in report.samples()}
    assert samples["edged_governor_level",] == 1
    assert samples["edged_device", "zone_cpu_c"] == 82.0
    assert samples["edged_left_out", "p", "slowed"] == 1


@pytest.mark.parametrize("trouble", ["", "a read has not returned within 5.0 s"])
async def test_it_samples_for_ever_and_says_once_why_the_box_could_not_be_read(
    governed: Governed, trouble: str
) -> None:
    watch = OneReport(None if trouble else read_devices(governed.box.root), trouble)
    governing = Governing(governed.rig.engine, governed.rig.log, watch, Surroundings)
    running = asyncio.create_task(governing.run())
    async with asyncio.timeout(10):
        while not watch.looks:
            await asyncio.sleep(0)
    running.cancel()
    assert governing.pressure().get("trouble", "") == trouble
    assert sum("devices_not_read" in line for line in governed.rig.lines) == bool(trouble)


async def test_a_model_that_is_slower_than_its_class_of_hardware_promises_is_told_and_serves(tmp_path: Path) -> None:
    rig = Rig()
    await rig.start()
    chain = Served(Cost(call_us=150_000, item_us=50_000))
    rig.runner.parts = rig.runner.parts._replace(chain=chain)  # type: ignore[arg-type]
    governing = Governing(rig.engine, rig.log, OneReport(None), Surroundings, slowest_ms=199)
    governing.take(None)
    (reason,) = rig.modes.state.reasons
    assert (reason.code, reason.subject) == ("model_slow", "p")
    assert reason.detail == "a call takes 200 ms, limits.p99_ms is 199"
    assert rig.modes.mode == "normal"
    chain.serving = Served(Cost(100, 0)).serving
    governing.take(None)
    rig.clock.advance_s(11)
    rig.upkeep.tick()
    assert rig.modes.state.reasons == ()
