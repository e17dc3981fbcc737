"""The broker between gateway and hub restarts, freezes, forgets, or is another make that knows less."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.broker import Mosquitto
from tests.doubles.nats import Nats
from tests.doubles.rabbit import PASSWORD, USER, Rabbit
from tests.doubles.upstream_site import QUICK, UPSTREAM, UpstreamSite
from tests.doubles.waiting import until


def test_restarts_that_forget_everything_cost_nothing_but_time(tmp_path: Path, single_model: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with (
        Mosquitto(folder, *UPSTREAM) as broker,
        UpstreamSite(tmp_path, single_model, broker=broker) as site,
    ):
        site.sensors.trickle(0.005)
        for _ in range(2):
            before = site.books.count()
            until(lambda before=before: site.books.count() > before, "rows flow", 30)  # type: ignore[misc]
            broker.kill()
            broker.start()
        site.settle()
        assert site.account().problems == []


def test_a_broker_that_freezes_and_goes_on_loses_nothing(tmp_path: Path, single_model: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with (
        Mosquitto(folder, *UPSTREAM) as broker,
        UpstreamSite(tmp_path, single_model, broker=broker) as site,
    ):
        site.sensors.round(20)
        site.settle()
        broker.stop()
        site.sensors.round(100)
        site.until(lambda: site.daemon.status()["waiting_results"] == 0, "the plant goes on meanwhile")
        site.scada.until_results(480)
        broker.resume()
        site.settle(45)
        assert site.account().problems == []


@pytest.mark.slow
def test_over_nats_which_knows_only_the_old_mqtt_everything_comes_home(tmp_path: Path, single_model: Path) -> None:
    """No shared subscriptions, no MQTT 5: both ends fall back by themselves."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with (
        Nats(folder) as broker,
        UpstreamSite(tmp_path, single_model, broker=broker, hub_broker="shared = false") as site,
    ):
        bring_home_with_a_restart(site, broker)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_over_rabbitmq_which_knows_only_the_old_mqtt_everything_comes_home(tmp_path: Path, single_model: Path) -> None:
    folder = tmp_path / "rabbit"
    folder.mkdir()
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    credentials = f'username = "{USER}"\npassword_file = "{password}"\n'
    with (
        Rabbit(folder) as broker,
        UpstreamSite(
            tmp_path,
            single_model,
            broker=broker,
            upstream=credentials + QUICK,
            hub_broker=credentials + "shared = false",
        ) as site,
    ):
        site.sensors.round(50)
        site.settle(40)
        site.link.drop()
        site.hub_link.drop()
        site.sensors.round(50)
        site.settle(40)
        assert site.account().problems == []


def bring_home_with_a_restart(site: UpstreamSite, broker: Nats) -> None:
    site.sensors.round(50)
    site.settle()
    broker.kill()
    site.sensors.round(50)
    broker.start()
    site.settle(45)
    assert site.account().problems == []
