"""Away for longer than the disk can hold: what had to be given up is told with its numbers, everything else is home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until
from tests.fault.daemon.test_store import fill, small_disk

__all__ = ["small_disk"]

STORE = "budget_bytes = 16000000\nfree_floor_bytes = 1000000\nsnapshot_interval_s = 1"


@pytest.fixture
def site(tmp_path: Path, single_model: Path) -> Iterator[UpstreamSite]:
    with UpstreamSite(tmp_path, single_model, store=STORE) as site:
        yield site


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_budget_used_up_while_the_link_is_cut_ends_with_rows_and_tombstones_for_every_number(
    site: UpstreamSite,
) -> None:
    site.sensors.round(20)
    site.settle()
    site.link.cut()
    site.sensors.stream()
    site.until(lambda: evicted(site) > 2000, "results were given up", 60, every_s=0.2)
    site.sensors.pause()
    site.link.restore()
    site.settle(60)
    account = site.account()
    assert account.problems == []
    assert account.tombstoned > 2000
    assert account.rows + account.tombstoned == account.made
    assert {reason for _, _, _, reason in site.books.tombstones()} == {"budget"}
    kept = site.books.ask("SELECT sum(n) FROM summaries WHERE stream = 'result'")[0][0]
    assert kept == account.tombstoned, "of what was given up there are summaries"
    assert site.daemon.status()["ledger"]["balanced"]


def evicted(site: UpstreamSite) -> int:
    store = site.daemon.status()["store"]
    return int(store["evicted_results"])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_disk_full_for_hours_recovers_by_itself_and_every_number_is_home_or_told(
    tmp_path: Path, single_model: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=14m")
    with UpstreamSite(tmp_path, single_model, store=STORE, state=disk / "state") as site:
        site.sensors.round(20)
        site.settle()
        site.link.cut()
        hog = disk / "hog"
        fill(hog)
        site.sensors.trickle(0.002)
        site.until(lambda: "store_full" in site.daemon.codes(), "the mode gives store_full", 30)
        hog.unlink()
        site.until(lambda: "store_full" not in site.daemon.codes(), "it recovers by itself", 30)
        site.link.restore()
        site.settle(60)
        account = site.account()
        assert account.problems == []
        assert account.rows + account.tombstoned == account.made > 80
        until(lambda: site.daemon.status()["ledger"]["balanced"], "the books balance")
