"""The wall clock jumps by fifty years or begins in 1970: order, gaps, timers and identities do not care."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon, pipeline
from tests.doubles.scada import Scada
from tests.doubles.sensors import Event, Sensors, devices
from tests.doubles.waiting import until
from tests.fault.conftest import STRIDE, WINDOW

FIFTY_YEARS_S = 50 * 365 * 86_400


class WallClock:
    """What the daemon's wall clock is off by; the monotonic clock is left alone."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "clock"
        self.env = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """From now on the wall clock is off by so much."""
        self.say(seconds, "")

    def say(self, seconds: int, trust: str) -> None:
        """The same; trust: what the kernel says about it, `synced`, `unsynced`, or "" for what it really says."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d} {trust}\n")
        new.replace(self._file)

    def begin_in_1970(self) -> None:
        """As a box without a battery does."""
        self.jump(60 - int(time.time()))


@pytest.fixture
def wall_clock(wall_clock_library: Path, tmp_path: Path) -> WallClock:
    return WallClock(wall_clock_library, tmp_path)


def years(results: list[dict[str, object]]) -> set[str]:
    return {str(result["produced"])[:4] for result in results}


def test_jumps_of_fifty_years_disturb_neither_order_nor_gaps_nor_timers(
    tmp_path: Path, broker: Mosquitto, single_model: Path, window_model: Path, wall_clock: WallClock
) -> None:
    """Half of the sensors have no clock of their own, so that the daemon's stands in for it."""
    own = pipeline("own", single_model, topics="in/+"), pipeline("windows", window_model, window=WINDOW, stride=STRIDE)
    none = pipeline(
        "none", window_model, window=WINDOW, stride=STRIDE, topics="bare/+", input_more='ts_source="arrival"'
    )
    with (
        Daemon(tmp_path, broker.port, *own, none, env=wall_clock.env) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
        Sensors(broker.port, devices(4, 4), topic="bare") as bare,
    ):
        daemon.start().connected()
        missing: set[Event] = set()
        for offset in (FIFTY_YEARS_S, -FIFTY_YEARS_S, 0, -FIFTY_YEARS_S, FIFTY_YEARS_S):
            wall_clock.jump(offset)
            for group in (sensors, bare):
                group.round(10)
                skipped = group.publish(group.names[0], skip=1)
                missing.add(Event(skipped.device, skipped.seq - 1))
            until(lambda: len(told(scada)) == len(missing), "every gap is told in its time, whatever the clock says", 5)
        sensors.pause()
        bare.pause()
        events, bare_events = sensors.acknowledged, bare.acknowledged
        wanted = len(events) + len(dict(books.windows(events, WINDOW, STRIDE)))
        wanted += len(dict(books.windows(bare_events, WINDOW, STRIDE)))
        results = scada.until_results(wanted)
        assert told(scada) == missing
        assert books.check(events, results, "own").problems == []
        assert books.check(events, results, "windows", window=WINDOW, stride=STRIDE).problems == []
        assert books.check(bare_events, results, "none", window=WINDOW, stride=STRIDE).problems == []
        assert len(years(results)) >= 3, "the clock did not jump: this test shows nothing"
        seqs = [result["seq"] for result in results]
        assert seqs == sorted(seqs), "results leave in their order"
        assert daemon.status()["ledger"]["balanced"]


def told(scada: Scada) -> set[Event]:
    return {Event(gap["device"], gap["from"]) for gap in list(scada.gaps) if gap["kind"] == "sequence"}


def test_a_start_in_1970_serves_and_time_that_arrives_later_breaks_nothing(
    tmp_path: Path, broker: Mosquitto, single_model: Path, wall_clock: WallClock
) -> None:
    wall_clock.begin_in_1970()
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), env=wall_clock.env) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        sensors.round(20)
        assert years(scada.until_results(80)) == {"1970"}
        wall_clock.jump(0)
        sensors.round(20)
        scada.until_results(160)
        daemon.kill()
        wall_clock.begin_in_1970()
        daemon.start().connected()
        sensors.round(20)
        sensors.pause()
        results = scada.until_results(240)
        assert years(results[:80]) == {"1970"}
        assert "1970" not in years(results[81:159])
        assert books.check(sensors.acknowledged, results, "single").problems == []
        assert scada.gaps == []
        assert daemon.status()["ledger"]["balanced"]
