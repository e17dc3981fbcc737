"""`kill -9` at any instant: every acknowledged event has its one result, repeated only with the same id."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon, pipeline
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until
from tests.fault.conftest import STRIDE, WINDOW

KILLS = int(os.environ.get("EDGED_KILLS", "20"))  # scripts/torture.py asks for more
SEED = int(os.environ.get("EDGED_SEED", "20260301"))


@pytest.mark.slow
@pytest.mark.timeout(60 + 8 * KILLS)
def test_twenty_kills_under_load_lose_nothing_and_repeat_only_with_the_same_id(
    tmp_path: Path, broker: Mosquitto, single_model: Path, window_model: Path
) -> None:
    chance = random.Random(SEED)
    tables = pipeline("single", single_model), pipeline("windowed", window_model, window=WINDOW, stride=STRIDE)
    with (
        Daemon(tmp_path, broker.port, *tables) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(5), inflight=100) as sensors,
    ):
        daemon.start().connected().kill()  # from now on the broker keeps our session
        sensors.trickle(0.01)
        for _ in range(KILLS):
            daemon.live_a_while(chance).kill()
        daemon.start().connected()
        sensors.pause()
        singles = len(sensors.acknowledged)
        windows = len(dict(books.windows(sensors.acknowledged, WINDOW, STRIDE)))
        results = scada.until_results(singles + windows)
        assert books.check(sensors.acknowledged, results, "single").problems == []
        assert books.check(sensors.acknowledged, results, "windowed", window=WINDOW, stride=STRIDE).problems == []
        status = until(lambda: (now := daemon.status())["waiting_results"] == 0 and now, "everything is delivered")
        assert status["ledger"]["balanced"]
        assert scada.gaps == []
        assert singles > 20 * KILLS, "there was no load to speak of"
