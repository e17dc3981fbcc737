"""The hub's database is away, slow, or frozen: gateways are told to wait, keep everything, and bring it afterwards."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.doubles.postgres import Postgres
from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until

AWAY_S = float(os.environ.get("EDGED_AWAY_S", "4"))  # 3600 for the hour


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * AWAY_S)
def test_a_database_that_is_away_costs_nothing_but_time(
    tmp_path: Path, single_model: Path, own_postgres: Postgres
) -> None:
    """An hour in real life; the pauses that the hub asks for grow to a minute, whatever the time."""
    database = own_postgres.url(own_postgres.database())
    with UpstreamSite(tmp_path, single_model, database=database, workers=2) as site:
        site.sensors.round(50)
        site.settle()
        own_postgres.kill()
        site.sensors.trickle(0.02)
        site.until(lambda: "upstream_slow" in site.daemon.codes(), "the mode gives upstream_slow")
        until(lambda: not site.hub.answers("/healthz").get("healthy", True), "the hub says that it is not healthy")
        deadline = time.monotonic() + AWAY_S
        until(lambda: time.monotonic() > deadline, "the time is over", AWAY_S + 10, every_s=0.5)
        own_postgres.start()
        site.settle(60 + AWAY_S)
        account = site.account()
        assert account.problems == []
        assert account.made > 200 + AWAY_S * 100, "nothing was made meanwhile: this shows nothing"
        until(lambda: "upstream_slow" not in site.daemon.codes(), "the mode is as before")
        assert site.daemon.status()["ledger"]["balanced"]
        site.hub.healthy()


@pytest.mark.slow
def test_a_database_that_freezes_is_as_good_as_away(tmp_path: Path, single_model: Path, own_postgres: Postgres) -> None:
    """Connections stand, nobody answers; what was in hand may or may not be committed."""
    database = own_postgres.url(own_postgres.database())
    with UpstreamSite(tmp_path, single_model, database=database) as site:
        site.sensors.trickle(0.01)
        until(lambda: site.books.count() > 200, "rows flow")
        own_postgres.freeze()
        time.sleep(3)  # the fault itself
        own_postgres.thaw()
        site.settle(45)
        assert site.account().problems == []


@pytest.mark.slow
def test_kills_of_the_database_at_random_instants_lose_and_double_nothing(
    tmp_path: Path, single_model: Path, own_postgres: Postgres
) -> None:
    """Whether a commit whose answer never came did happen nobody knows: the batch comes again."""
    database = own_postgres.url(own_postgres.database())
    with UpstreamSite(tmp_path, single_model, database=database) as site:
        site.sensors.trickle(0.005)
        for _ in range(3):
            before = site.books.count()
            until(lambda before=before: site.books.count() > before, "rows flow", 30)  # type: ignore[misc]
            own_postgres.kill()
            own_postgres.start()
        site.settle(45)
        assert site.account().problems == []
