"""A clock that is wrong for a day and then right: no row's time changes, and the hub knows when it really was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.doubles.daemon import pipeline
from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until
from tests.fault.daemon.test_clock import WallClock, years

DAY_S = 86_400


@pytest.fixture
def wall_clock(wall_clock_library: Path, tmp_path: Path) -> WallClock:
    clock = WallClock(wall_clock_library, tmp_path)
    clock.begin_in_1970()
    return clock


def test_rows_made_in_1970_keep_their_time_and_the_hub_knows_the_right_one(
    tmp_path: Path, single_model: Path, wall_clock: WallClock
) -> None:
    """The sensors have no clock: the gateway's stands in. A day passes in 1970, then the time server answers."""
    no_clock = pipeline("single", single_model, input_more='ts_source="arrival"')
    wrong_by_s = int(time.time()) - 60
    with UpstreamSite(tmp_path, single_model, pipelines=no_clock, daemon_env=wall_clock.env) as site:
        made_from = time.time()
        site.sensors.round(10)
        site.settle()
        wall_clock.say(DAY_S - wrong_by_s, "unsynced")  # a day later, still in 1970
        site.sensors.round(10)
        site.settle()
        made_to = time.time()
        before = site.books.ask("SELECT seq, ts FROM results ORDER BY seq")
        uncorrected = site.books.ask("SELECT count(*) FROM results WHERE ts_corrected IS NULL")
        assert years(site.scada.results) == {"1970"}
        assert uncorrected == [(80,)], "nobody knows yet when that was"

        wall_clock.say(0, "synced")
        until(lambda: site.books.records("clock"), "the hub has a clock record", 30)
        site.sensors.round(10)
        site.settle()

        after = site.books.ask("SELECT seq, ts FROM results ORDER BY seq")
        assert after[:80] == before, "`ts` never changes"
        assert [row[0] for row in after] == list(range(1, 121)), "the order is that of the numbers"
        corrected = site.books.ask("SELECT seq, ts_corrected FROM results ORDER BY seq")
        times = [site.books.time_s(row[1]) for row in corrected]
        assert made_from - 1 < times[0] <= times[79] < made_to + 1, "they were made now, not in 1970"
        assert times == sorted(times)
        assert abs(times[119] - time.time()) < 20
        assert site.account().problems == []


def test_a_clock_that_jumps_while_it_is_trusted_gets_a_second_correction(
    tmp_path: Path, single_model: Path, wall_clock: WallClock
) -> None:
    wall_clock.say(3600, "synced")
    no_clock = pipeline("single", single_model, input_more='ts_source="arrival"')
    with UpstreamSite(tmp_path, single_model, pipelines=no_clock, daemon_env=wall_clock.env) as site:
        until(lambda: len(site.books.records("clock")) == 1, "the first clock record is home", 30)
        site.sensors.round(5)
        site.settle()
        wall_clock.say(0, "synced")
        until(lambda: len(site.books.records("clock")) == 2, "the second clock record is home", 30)
        first, second = site.books.records("clock")
        assert first["boot"] == second["boot"]
        assert first["offset_ns"] - second["offset_ns"] == pytest.approx(3600e9, abs=2e9)
        site.settle()
        assert site.account().problems == []
