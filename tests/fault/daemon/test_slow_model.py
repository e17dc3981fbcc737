"""A model that cannot keep up delays nobody else, loses nothing, and answers every window once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import books
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import PLUGINS, Daemon, pipeline
from tests.doubles.scada import Scada
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until
from tests.fault.conftest import STRIDE, WINDOW

SLOW_MS = 4  # for each window: 250 windows a second at the very most
PAST_CLOSING = {"fast": 1, "slow": WINDOW}


class Plant:
    """A fast pipeline and a slow one over the same events."""

    def __init__(self, daemon: Daemon, scada: Scada, sensors: Sensors) -> None:
        self.daemon = daemon
        self.scada = scada
        self.sensors = sensors

    def of(self, name: str) -> list[dict[str, Any]]:
        return [result for result in list(self.scada.results) if result["pipeline"] == name]

    def slow_windows(self) -> int:
        return len(dict(books.windows(self.sensors.acknowledged, WINDOW, STRIDE)))

    def waiting(self) -> int:
        """Windows that the slow model still owes, in memory or in the store."""
        return self.slow_windows() - len({result["id"] for result in self.of("slow")})

    def hurry(self) -> None:
        """From the next start on the model is quick."""
        self.daemon.env["STAND_IN_MS"] = "0.1"

    def check_all_answered(self) -> None:
        until(lambda: self.waiting() == 0, "the slow model has answered every window", 40)
        events, results = self.sensors.acknowledged, self.scada.results
        assert books.check(events, results, "fast").problems == []
        assert books.check(events, results, "slow", window=WINDOW, stride=STRIDE).problems == []
        status = until(lambda: (now := self.daemon.status())["waiting_results"] == 0 and now, "all is delivered")
        assert status["ledger"]["balanced"]


@pytest.fixture
def plant(tmp_path: Path, broker: Mosquitto, single_model: Path, window_model: Path) -> Iterator[Plant]:
    slow = pipeline(
        "slow", window_model, window=WINDOW, stride=STRIDE, chain="stand_in:cpu", model_more="deadline_ms = 20000"
    )
    env = {"PYTHONPATH": str(PLUGINS), "STAND_IN_MS": str(SLOW_MS)}
    with (
        Daemon(tmp_path, broker.port, pipeline("fast", single_model), slow, env=env) as daemon,
        Scada(broker.port) as scada,
        Sensors(broker.port, devices(10)) as sensors,
    ):
        daemon.start().connected()
        yield Plant(daemon, scada, sensors)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def test_a_slow_model_delays_neither_its_neighbour_nor_the_acknowledgements(plant: Plant) -> None:
    plant.sensors.trickle(0.01)
    until(lambda: len(plant.of("fast")) > 2000, "two thousand fast answers")
    count = plant.sensors.pause()
    until(lambda: len(plant.of("fast")) == count, "every event is answered by the fast model", 2)
    until(lambda: plant.daemon.status()["link"]["acks_sent"] == count, "every event is acknowledged", 2)
    assert plant.waiting() > 300, "the slow model kept up: this test shows nothing"
    assert percentile([result["latency_ms"]["total"] for result in plant.of("fast")], 0.99) < 100
    assert percentile([result["latency_ms"]["total"] for result in plant.of("slow")], 0.99) > 500
    plant.check_all_answered()


def test_after_a_kill_every_slow_window_is_answered_exactly_once(plant: Plant) -> None:
    for _ in range(3):
        plant.sensors.round(50)
        until(lambda: plant.waiting() < plant.slow_windows() - 20, "the slow model has begun")
        plant.daemon.kill()
        plant.daemon.start()
    plant.daemon.kill()
    plant.sensors.pause()
    assert plant.waiting() > 100
    plant.hurry()
    plant.daemon.start()
    plant.check_all_answered()


def test_a_stop_leaves_slow_windows_to_the_next_start_rather_than_answering_them_badly(plant: Plant) -> None:
    plant.sensors.round(100)
    until(lambda: plant.waiting() < plant.slow_windows() - 20, "the slow model has begun")
    assert plant.daemon.stop() == 0
    plant.sensors.pause()
    assert plant.waiting() > 100
    plant.hurry()
    plant.daemon.start()
    plant.check_all_answered()
