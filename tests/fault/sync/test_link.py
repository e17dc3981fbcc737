"""The line is slow, late, silent, half open or gone for long: alarms and rows come home when it lets them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.doubles.chaos_link import Shape
from tests.doubles.upstream_site import QUICK, UpstreamSite
from tests.doubles.waiting import until
from tests.fault.sync.conftest import thorough


def test_a_cut_link_fills_the_store_and_its_return_drains_it(tmp_path: Path, single_model: Path) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(50)
        site.settle()
        site.link.cut()
        site.sensors.round(500)
        site.sensors.pause()
        site.scada.until_results(2200)
        site.until(lambda: "upstream_away" in site.daemon.codes(), "the mode gives upstream_away")
        assert site.books.count() == 200
        site.link.restore()
        site.settle()
        account = site.account()
        assert (account.problems, account.made, account.rows) == ([], 2200, 2200)
        until(lambda: "upstream_away" not in site.daemon.codes(), "the mode is as before")
        assert site.daemon.status()["ledger"]["balanced"]


def test_a_link_that_stalls_for_a_while_loses_nothing(tmp_path: Path, single_model: Path) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(20)
        site.settle()
        site.link.stall()
        site.sensors.round(20)
        site.sensors.pause()
        site.scada.until_results(160)
        time.sleep(3)  # the fault itself
        assert site.books.count() == 80
        site.link.restore()
        site.settle()
        assert site.account().problems == []


@thorough
@pytest.mark.timeout(120)
def test_a_half_open_link_is_noticed_and_replaced(tmp_path: Path, single_model: Path) -> None:
    """The broker is gone and the gateway was never told: only silence can tell it."""
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(20)
        site.settle()
        site.link.half_open()
        site.sensors.round(20)
        site.settle(90)
        assert site.account().problems == []


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape(delay_s=2.0, jitter_s=0.2), marks=thorough, id="2 s delay"),
        pytest.param(Shape(rate_bytes_s=8000, queue_bytes=16_000), id="64 kbit/s"),
        pytest.param(Shape(delay_s=0.7, rate_bytes_s=8000, queue_bytes=16_000), id="64 kbit/s and 0.7 s"),
    ],
)
def test_over_a_slow_and_late_link_everything_comes_home(tmp_path: Path, single_model: Path, shape: Shape) -> None:
    with UpstreamSite(tmp_path, single_model, shape=shape, upstream=QUICK) as site:
        site.sensors.round(500)
        site.settle(50)
        account = site.account()
        assert (account.problems, account.made) == ([], 2000)
