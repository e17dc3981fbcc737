"""Away for longer than the disk can hold: what had to be given up is told with its numbers, everything else is home."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.sensors import EPOCH_MS
from tests.doubles.upstream_site import UpstreamSite
from tests.fault.daemon.test_store import fill, small_disk

__all__ = ["small_disk"]

STORE = "budget_bytes = 16000000\nfree_floor_bytes = 1000000\nsnapshot_interval_s = 1"


EVENTS = 200  # in one message, so that the budget is used up within seconds
GIVEN_UP = 20_000


def flood(site: UpstreamSite, enough: Callable[[], bool]) -> None:
    """Events with readings that do not compress, of a device of their own, until it is enough."""
    chance = random.Random(1)
    seq = 0
    while not enough():
        for _ in range(50):
            events = (
                {"ts": EPOCH_MS + 10 * n, "seq": n, "a": chance.random(), "b": chance.random()}
                for n in range(seq + 1, seq + EVENTS + 1)
            )
            site.sensors.raw("in/dev-9", json.dumps(list(events)).encode())
            seq += EVENTS
        assert seq < 5_000_000, "the budget is never used up"


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_budget_used_up_while_the_link_is_cut_ends_with_rows_and_tombstones_for_every_number(
    tmp_path: Path, single_model: Path
) -> None:
    with UpstreamSite(tmp_path, single_model, store=STORE, watched=("nothing",)) as site:
        site.sensors.round(20)
        site.sensors.pause()
        site.until(site.is_home, "everything is home")
        site.link.cut()
        flood(site, lambda: site.daemon.status()["store"]["evicted_unsent_results"] > GIVEN_UP)
        site.sensors.pause()
        site.until(lambda: "backlog_aged" in site.daemon.codes(), "the mode gives backlog_aged")
        site.link.restore()
        site.until(site.is_home, "everything is home", 60)
        account = site.account()
        assert account.problems == []
        assert account.tombstoned > GIVEN_UP
        assert account.rows + account.tombstoned == account.made
        assert {reason for _, _, _, reason in site.books.tombstones()} == {"budget"}
        assert site.books.ask("SELECT count(*) FROM summaries")[0][0] > 0, "there are summaries of what was given up"
        site.until(lambda: site.daemon.status()["ledger"]["balanced"], "the books balance")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_disk_full_for_hours_recovers_by_itself_and_every_number_is_home_or_told(
    tmp_path: Path, single_model: Path, small_disk: Callable[[str], Path]
) -> None:
    """How long it is full changes nothing: not an event is taken meanwhile."""
    disk = small_disk("size=14m")
    with UpstreamSite(tmp_path, single_model, store=STORE, state=disk / "state") as site:
        site.sensors.round(20)
        site.settle()
        site.link.cut()
        hog = disk / "hog"
        fill(hog)
        site.sensors.trickle(0.002)
        site.until(lambda: "store_full" in site.daemon.codes(), "the mode gives store_full")
        answered = len(site.scada.results)
        hog.unlink()
        site.scada.until_results(answered + 400)
        site.link.restore()
        site.settle(60)
        account = site.account()
        assert account.problems == []
        assert account.rows + account.tombstoned == account.made > 480
        site.until(lambda: site.daemon.status()["ledger"]["balanced"], "the books balance")
