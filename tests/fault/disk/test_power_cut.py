"""The power goes under load: what the broker was told to forget is in the store, whole and under its old number."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import apsw
import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import EDGED, Daemon, pipeline
from tests.doubles.power_cut_disk import PowerCutDisk
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until

CUTS = int(os.environ.get("EDGED_CUTS", "3"))  # scripts/power_cuts.py asks for more,
SEED = int(os.environ.get("EDGED_SEED", "20260301"))  # at other instants,
TALLY = os.environ.get("EDGED_TALLY", "")  # and for what was counted: one JSON line appended to this file
STORE = "snapshot_interval_s = 1\nfree_floor_bytes = 1000000"
LOADED = 50  # results since the start, before a cut counts as one under load


def cut_under_load(disk: PowerCutDisk, daemon: Daemon, scada: Scada, chance: random.Random) -> None:
    """Start on what the disk kept, work for a random while, lose the power, come back."""
    if chance.random() < 0.25:  # one more, somewhere between its first line and its first answers
        lose_power(disk, daemon.live_a_while(chance))
    daemon.start()
    answered = len(scada.results)
    until(lambda: len(scada.results) > answered + LOADED, "the daemon works", 30, every_s=chance.uniform(0.001, 0.2))
    busy = len(scada.results)
    until(lambda: len(scada.results) > busy, "it still works at the instant of the cut", every_s=0.0005)
    assert daemon.ended is None, f"the daemon had ended before the cut: this shows nothing\n{daemon.log}"
    lose_power(disk, daemon)


def lose_power(disk: PowerCutDisk, daemon: Daemon) -> None:
    """The disk goes first: until it is killed, too, the daemon may still say what it believes to be true."""
    disk.lose_cache()
    daemon.kill()
    disk.power_off()
    disk.power_on()


@pytest.mark.slow
@pytest.mark.timeout(60 + 12 * CUTS)
def test_power_cuts_under_load_lose_no_acknowledged_event_and_change_no_number(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    chance = random.Random(SEED)
    with (
        PowerCutDisk(tmp_path) as disk,
        Daemon(
            tmp_path, broker.port, pipeline("single", single_model), state=disk.place / "state", store=STORE
        ) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(5)) as sensors,
    ):
        daemon.start().connected().kill()  # from now on the broker keeps our session
        sensors.trickle(0.005)
        for _ in range(CUTS):
            cut_under_load(disk, daemon, scada, chance)
        daemon.start().connected()
        sensors.pause()
        events = sensors.acknowledged
        results = scada.until_results(len(events), 60)
        book = books.check(events, results, "single")
        assert book.problems == []
        until(lambda: daemon.status()["waiting_results"] == 0, "everything is delivered")
        assert daemon.status()["ledger"]["balanced"]
        assert scada.gaps == []
        assert len({result["epoch"] for result in results}) == 1, "the store came through every cut undamaged"
        assert {result["seq"] for result in results} == set(range(1, len(events) + 1)), "no number twice, none left out"
        assert daemon.stop() == 0
        assert_whole(daemon.state, len(events))
        disk.cut()
        disk.power_on()
        assert_whole(daemon.state, len(events))
    if TALLY:
        tally = {"cuts": disk.cuts - 1, "events": book.events, "results": book.results, "repeated": book.repeated}
        with Path(TALLY).open("a") as file:
            file.write(json.dumps(tally) + "\n")


def assert_whole(state: Path, rows: int) -> None:
    """Every row is there and intact; SQLite and `edged store verify` agree."""
    done = subprocess.run(
        [EDGED, "store", "verify", "--json", "--state-dir", str(state)], capture_output=True, text=True, check=False
    )
    verdict = json.loads(done.stdout)
    assert verdict["ok"], verdict
    assert (verdict["events"], verdict["results"], verdict["holes"]) == (rows, rows, [])
    connection = apsw.Connection(str(state / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()
    assert not (state / "store.damaged").exists()
