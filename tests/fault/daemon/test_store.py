"""The store is held, full, read-only or damaged: what is acknowledged is answered, and the mode says what is wrong."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import ROOT, Daemon, pipeline
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until


class Plant:
    """One daemon with its broker, sensors and SCADA, the disk good so far."""

    def __init__(self, daemon: Daemon, scada: Scada, sensors: Sensors) -> None:
        self.daemon = daemon
        self.scada = scada
        self.sensors = sensors

    def flows(self, rounds: int = 5) -> None:
        """New events are answered, and all that came before."""
        self.sensors.round(rounds)
        self.sensors.pause()
        self.check()

    def check(self) -> None:
        events = self.sensors.acknowledged
        assert books.check(events, self.scada.until_results(len(events)), "single").problems == []
        assert self.daemon.status()["ledger"]["balanced"]

    def reason(self, code: str) -> None:
        """The mode says so, here and at SCADA."""
        # A store that gives up rows inside its present size may go on for a while on a full disk.
        until(lambda: code in self.daemon.codes(), f"the mode gives {code}:\n{self.daemon.log}", 60)
        until(lambda: code in {r["code"] for m in self.scada.modes for r in m["reasons"]}, f"SCADA sees {code}")


@pytest.fixture
def plant(tmp_path: Path, broker: Mosquitto, single_model: Path) -> Iterator[Plant]:
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model)) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        yield Plant(daemon, scada, sensors)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own with the given options."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "edged-test", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a small disk needs root and mount: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_store_locked_by_another_program_stops_the_answers_until_it_lets_go(plant: Plant) -> None:
    plant.flows()
    holder = sqlite3.connect(plant.daemon.state / "store.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    plant.sensors.round(5)
    plant.reason("store_locked")
    assert len(plant.scada.results) == 20, "nothing is answered that is not stored"
    holder.execute("ROLLBACK")
    holder.close()
    plant.flows()


def test_a_second_daemon_ends_and_names_the_first_one(plant: Plant, tmp_path: Path, single_model: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    with Daemon(folder, 1, pipeline("single", single_model), state=plant.daemon.state, measured=True) as second:
        assert second.launch().wait() == 75
        assert f"process {plant.daemon.pid} has this store open" in second.log
        assert "try: stop the other edged" in second.log
    plant.flows()


def test_a_read_only_state_folder_is_refused_with_the_cure(
    tmp_path: Path, single_model: Path, small_disk: Callable[[str], Path]
) -> None:
    with Daemon(tmp_path, 1, pipeline("single", single_model), state=small_disk("ro"), measured=True) as daemon:
        assert daemon.launch().wait() == 74
        assert "Read-only file system" in daemon.log
        assert "try: " in daemon.log


def fill(hog: Path) -> None:
    """Write until nothing more fits."""
    with hog.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.timeout(120)
def test_a_full_disk_stops_the_answers_and_room_brings_them_back(
    tmp_path: Path, broker: Mosquitto, single_model: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=12m")
    store = "budget_bytes = 16000000\nfree_floor_bytes = 1000000\nsnapshot_interval_s = 1"
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), state=disk / "state", store=store) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        plant = Plant(daemon, scada, sensors)
        plant.flows()
        hog = disk / "hog"
        fill(hog)
        # Rows that everybody has make room inside the file, and the daemon may go on for ever on a full disk. Somebody
        # who reads the store for long keeps the WAL from beginning anew: then it must grow.
        reader = sqlite3.connect(daemon.state / "store.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM journal").fetchone()
        sensors.trickle(0.002)
        plant.reason("store_full")
        assert daemon.status()["mode"] == "shedding"
        reader.execute("ROLLBACK")
        reader.close()
        hog.unlink()
        held = len(scada.results)
        scada.until_results(held + 400)
        sensors.pause()
        plant.check()
        assert not [gap for gap in scada.gaps if gap["kind"] == "sequence"]


def test_a_disk_that_fails_is_named_and_what_it_refused_is_stored_when_it_works_again(
    tmp_path: Path, broker: Mosquitto, single_model: Path, bad_disk: Path
) -> None:
    word = tmp_path / "disk"
    word.write_text("ok")
    env = {"LD_PRELOAD": str(bad_disk), "BAD_DISK": str(word)}
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), env=env) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(4)) as sensors,
    ):
        daemon.start().connected()
        plant = Plant(daemon, scada, sensors)
        plant.flows()
        for fault, code in (("eio", "store_io"), ("enospc", "store_full")):
            word.write_text(fault)
            sensors.round(5)
            plant.reason(code)
            answered = len(scada.results)
            word.write_text("ok")
            scada.until_results(answered + 20)
        plant.flows()


def flip(path: Path, chance: random.Random) -> None:
    """Sixty-four bits anywhere in the file."""
    content = bytearray(path.read_bytes())
    for _ in range(64):
        at = chance.randrange(len(content))
        content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose_wal(path: Path, chance: random.Random) -> None:
    path.with_name(path.name + "-wal").unlink()


def overwrite(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"not a database at all " * 500)


@pytest.mark.parametrize("damage", [flip, truncate, lose_wal, overwrite])
def test_a_store_damaged_between_two_runs_is_set_aside_and_the_loss_is_told(
    plant: Plant, damage: Callable[[Path, random.Random], None]
) -> None:
    plant.flows(100)
    old_epoch = plant.daemon.status()["identity"]["epoch"]
    plant.daemon.kill()
    store = plant.daemon.state / "store.db"
    if damage is not lose_wal:  # as after a clean end: everything stands in the file
        with sqlite3.connect(store) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    damage(store, random.Random(7))

    plant.daemon.start().connected()

    plant.reason("store_recovered")
    status = plant.daemon.status()
    assert status["mode"] == "degraded"
    assert status["identity"]["epoch"] != old_epoch
    until(lambda: [gap for gap in plant.scada.gaps if gap["kind"].startswith("store_")], "the loss is published")
    before = len(plant.scada.results)
    plant.sensors.round(5)
    plant.sensors.pause()
    new = until(
        lambda: (
            [r for r in plant.scada.results[before:] if r["epoch"] != old_epoch][19:] and plant.scada.results[before:]
        ),
        "new events are answered",
    )
    fresh = [result for result in new if result["epoch"] == status["identity"]["epoch"]]
    assert {result["input"]["seq"] for result in fresh} == set(range(101, 106))
    assert plant.daemon.status()["ledger"]["balanced"]
    gateway = plant.scada.topics[f"{ROOT}/meta/gateway"][-1]
    assert status["identity"]["epoch"] in gateway.decode()
