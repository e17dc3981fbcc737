"""`kill -9` at any instant: every acknowledged event has its one result, repeated only with the same id."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import PLUGINS, Daemon, pipeline
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until
from tests.fault.conftest import STRIDE, WINDOW

KILLS = int(os.environ.get("EDGED_KILLS", "20"))  # scripts/torture.py asks for more,
SEED = int(os.environ.get("EDGED_SEED", "20260301"))  # for other instants and loads,
TALLY = os.environ.get("EDGED_TALLY", "")  # and for what was counted: one JSON line appended to this file
LATE = "deadline_ms = 20000, commit = 'after'"
SLOW = {"PYTHONPATH": str(PLUGINS), "STAND_IN_MS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(60 + 8 * KILLS)
def test_twenty_kills_under_load_lose_nothing_and_repeat_only_with_the_same_id(
    tmp_path: Path, broker: Mosquitto, single_model: Path, window_model: Path
) -> None:
    """Single events and windows answered with their commit, and windows of a slow model answered after it."""
    chance = random.Random(SEED)
    every_s, linger_ms = chance.choice((0.01, 0.01, 0.02)), chance.choice((0, 0, 5, 50))
    tables = (
        pipeline("single", single_model),
        pipeline("windowed", window_model, window=WINDOW, stride=STRIDE),
        pipeline("slow", window_model, window=WINDOW, stride=STRIDE, chain="stand_in:cpu", model_more=LATE),
    )
    store = f"snapshot_interval_s = 1\ncommit_linger_ms = {linger_ms}"
    with (
        Daemon(tmp_path, broker.port, *tables, store=store, env=SLOW) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(5), inflight=100) as sensors,
    ):
        daemon.start().connected().kill()  # from now on the broker keeps our session
        sensors.trickle(every_s)
        for _ in range(KILLS):
            daemon.live_a_while(chance).kill()
        daemon.start().connected()
        sensors.pause()
        events = sensors.acknowledged
        windows = len(dict(books.windows(events, WINDOW, STRIDE)))
        results = scada.until_results(len(events) + 2 * windows)
        found = [books.check(events, results, "single")]
        found += [books.check(events, results, name, window=WINDOW, stride=STRIDE) for name in ("windowed", "slow")]
        assert [book.problems for book in found] == [[], [], []]
        status = until(lambda: (now := daemon.status())["waiting_results"] == 0 and now, "everything is delivered")
        assert status["ledger"]["balanced"]
        assert scada.gaps == []
        assert len(events) > 20 * KILLS, "there was no load to speak of"
        if TALLY:
            tally = {"events": len(events), "results": sum(book.results for book in found)}
            with Path(TALLY).open("a") as file:
                file.write(json.dumps(tally | {"repeated": sum(book.repeated for book in found)}) + "\n")
