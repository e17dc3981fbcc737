"""A disk whose fsync takes a tenth of a second, and one that fails below the file system."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon, pipeline
from tests.doubles.power_cut_disk import PowerCutDisk, slow_and_failing
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until

STORE = "snapshot_interval_s = 1\nfree_floor_bytes = 1000000"
WRITE_MS = 60


@pytest.fixture
def trigger(tmp_path: Path) -> Path:
    """While this file exists, every write of the disk fails."""
    return tmp_path / "fail"


@pytest.fixture
def disk(tmp_path: Path, trigger: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path, size_mb=64, server=slow_and_failing(trigger, WRITE_MS)) as disk:
        yield disk


def fsync_s(folder: Path) -> float:
    """What one durable 4 KiB append takes there."""
    with (folder / "probe").open("wb") as file:
        file.write(bytes(4096))
        file.flush()
        begun = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - begun


def test_on_a_slow_disk_more_goes_into_each_commit_and_nothing_is_answered_before_it(
    tmp_path: Path, disk: PowerCutDisk, broker: Mosquitto, single_model: Path
) -> None:
    assert fsync_s(disk.place) > 0.1, "the disk is not slow: this test shows nothing"
    with (
        Daemon(
            tmp_path, broker.port, pipeline("single", single_model), state=disk.place / "state", store=STORE
        ) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        sensors.trickle(0.002)
        scada.until_results(4000)
        sensors.pause()
        events = sensors.acknowledged
        assert books.check(events, scada.until_results(len(events)), "single").problems == []
        status = until(lambda: (now := daemon.status())["waiting_results"] == 0 and now, "everything is delivered")
        commits = status["latency_ms"]["commit"]
        assert status["ledger"]["balanced"]
        assert status["mode"] in {"normal", "degraded"}, "a slow disk is no reason to shed"
        assert commits["p50"] > 50, "commits did not wait for the disk"
        assert len(events) / commits["count"] > 20, "a commit for each event: the disk cannot keep up"


def test_a_disk_that_fails_below_the_file_system_is_named_and_nothing_is_lost_once_it_is_mounted_again(
    tmp_path: Path, disk: PowerCutDisk, broker: Mosquitto, single_model: Path, trigger: Path
) -> None:
    """ext4 makes itself read-only at the first error of its journal: only a person, or a reboot, brings it back."""
    with (
        Daemon(
            tmp_path, broker.port, pipeline("single", single_model), state=disk.place / "state", store=STORE
        ) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        sensors.round(50)
        epoch = {result["epoch"] for result in scada.until_results(200)}
        trigger.touch()
        sensors.round(5)
        until(lambda: "store_io" in daemon.codes(), "the mode gives store_io")
        until(lambda: "store_io" in {r["code"] for m in scada.modes for r in m["reasons"]}, "SCADA sees store_io")
        trigger.unlink()
        assert len(scada.results) == 200, "nothing is answered that is not stored"
        assert daemon.ended is None, "it serves what can be served"
        daemon.kill()
        disk.cut()
        disk.power_on()
        daemon.start().connected()
        sensors.round(5)
        sensors.pause()
        results = scada.until_results(240)
        assert books.check(sensors.acknowledged, results, "single").problems == []
        assert {result["epoch"] for result in results} == epoch
        assert daemon.status()["ledger"]["balanced"]
        assert scada.gaps == []
