"""Start without anything, stop in time, reload, and starve the watchdog rather than pretend to be alive."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto, free_port
from tests.doubles.daemon import Daemon, pipeline
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until

STOP_WITHIN_S = 12.0  # 8 s of draining and what closing takes


def test_a_stop_under_load_ends_in_time_and_loses_nothing(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), measured=True) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(10)) as sensors,
    ):
        daemon.start().connected()
        sensors.trickle(0.01)
        for _ in range(2):
            scada.until_results(len(scada.results) + 500)
            assert daemon.stop(STOP_WITHIN_S) == 0
            assert "STOPPING=1" in daemon.notify.read()
            daemon.start()
        sensors.pause()
        results = scada.until_results(len(sensors.acknowledged))
        assert books.check(sensors.acknowledged, results, "single").problems == []
        assert daemon.status()["ledger"]["balanced"]
        assert daemon.stop() == 0
        assert [state["state"] for state in scada.states][-1] == "offline", "the farewell, not the Will"


def test_a_second_signal_ends_it_at_once_although_the_disk_is_full(
    tmp_path: Path, broker: Mosquitto, single_model: Path, bad_disk: Path
) -> None:
    word = tmp_path / "disk"
    word.write_text("ok")
    env = {"LD_PRELOAD": str(bad_disk), "BAD_DISK": str(word)}
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), env=env) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(2)) as sensors,
    ):
        daemon.start().connected()
        sensors.round(5)
        scada.until_results(10)
        word.write_text("enospc")
        sensors.round(5)
        until(lambda: "store_full" in daemon.codes(), "the full disk is noticed")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("STOPPING=1")
        assert daemon.stop(STOP_WITHIN_S) == 0
        word.write_text("ok")
        daemon.start()
        sensors.pause()
        assert books.check(sensors.acknowledged, scada.until_results(20), "single").problems == []


def test_a_reload_takes_over_the_linger_and_names_what_needs_a_restart(
    tmp_path: Path, broker: Mosquitto, single_model: Path
) -> None:
    table = pipeline("single", single_model)
    with (
        Daemon(tmp_path, broker.port, table, measured=True) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(1)) as sensors,
    ):
        daemon.start().connected()
        daemon.write_config(
            table, port=broker.port, store="commit_linger_ms = 300\nsnapshot_interval_s = 1", limits="max_devices = 9"
        )
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("RELOADING=1")
        daemon.wait_for("READY=1")
        assert "reloaded applied=store.commit_linger_ms needs_restart=limits" in daemon.log
        sensors.round()
        assert scada.until_results(1)[0]["latency_ms"]["total"] >= 290
        daemon.config.write_text("this is no TOML")
        daemon.signal(signal.SIGHUP)
        until(lambda: "reload_refused" in daemon.log, "the mistake is named")
        sensors.round()
        assert scada.until_results(2)[1]["latency_ms"]["total"] >= 290, "it goes on as before"


def test_it_starts_without_a_broker_and_finds_the_one_that_comes_later(tmp_path: Path, single_model: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    late = Mosquitto(folder)
    with Daemon(tmp_path, late.port, pipeline("single", single_model), measured=True) as daemon:
        daemon.start()
        daemon.wait_for("STATUS=offline; broker away")
        status = daemon.status()
        assert status["mode"] == "offline"
        assert not status["link"]["up"]
        until(lambda: daemon.status()["link"]["attempts"] >= 1, "it tries")
        with late, Scada(late.port) as scada, Sensors(late.port, devices(2)) as sensors:
            daemon.connected(30)
            sensors.round(3)
            assert books.check(sensors.acknowledged, scada.until_results(6), "single").problems == []
            until(lambda: daemon.status()["mode"] == "normal", "the mode returns by itself")
            until(lambda: scada.modes[-1]["mode"] == "normal", "and SCADA sees it")
            assert scada.states[-1]["state"] == "online"


@pytest.mark.parametrize(
    ("host", "prefix"), [("no-such-broker.invalid", ()), ("10.255.255.1", ("unshare", "--net"))], ids=["dns", "network"]
)
def test_it_starts_and_answers_without_dns_or_network(
    tmp_path: Path, single_model: Path, host: str, prefix: tuple[str, ...]
) -> None:
    if prefix and (os.geteuid() != 0 or shutil.which(prefix[0]) is None):
        pytest.skip("a process without any network needs root and unshare (util-linux)")
    with Daemon(tmp_path, free_port(), pipeline("single", single_model), host=host, prefix=prefix) as daemon:
        daemon.start()
        until(lambda: daemon.status()["link"]["attempts"] >= 1, "it has tried to reach the broker")
        until(lambda: daemon.status()["mode"] == "offline", "it says that nobody is there")
        started = time.monotonic()
        assert daemon.stop(STOP_WITHIN_S) == 0
        assert time.monotonic() - started < 5, "there is nothing to wait for"


def test_the_watchdog_is_fed_while_idle_and_starved_when_a_commit_hangs(
    tmp_path: Path, broker: Mosquitto, single_model: Path, bad_disk: Path
) -> None:
    word = tmp_path / "disk"
    word.write_text("ok")
    env = {"LD_PRELOAD": str(bad_disk), "BAD_DISK": str(word), "WATCHDOG_USEC": "1000000"}
    with (
        Daemon(tmp_path, broker.port, pipeline("single", single_model), env=env) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(1)) as sensors,
    ):
        daemon.start().connected()
        daemon.wait_for("WATCHDOG=1")
        daemon.wait_for("WATCHDOG=1")
        daemon.wait_for("STATUS=")
        sensors.round()
        scada.until_results(1)
        word.write_text("hang")
        sensors.round()

        def starved() -> bool:
            """Two seconds, four meals, without a single one."""
            daemon.notify.read()
            deadline = time.monotonic() + 2.0
            statuses = meals = 0
            while time.monotonic() < deadline and not meals:
                lines = daemon.notify.read()
                meals += lines.count("WATCHDOG=1")
                statuses += sum(line.startswith("STATUS=") for line in lines)
                time.sleep(0.02)
            return not meals and statuses > 0

        until(starved, "the watchdog goes hungry while the process still says its status")
        assert len(scada.results) == 1, "an event whose commit hangs is not answered"
        word.write_text("ok")
        daemon.wait_for("WATCHDOG=1")
        assert books.check(sensors.acknowledged, scada.until_results(2), "single").problems == []
