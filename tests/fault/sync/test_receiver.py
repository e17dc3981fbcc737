"""The receiver is killed before and after its commit, before and after its answer: every row is home once."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.doubles.mqtt_scissors import Moment, MqttScissors, Point
from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until
from tests.fault.sync.conftest import thorough


@pytest.fixture
def site(tmp_path: Path, single_model: Path) -> Iterator[UpstreamSite]:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(10)
        site.settle()
        yield site


def comes_back(site: UpstreamSite) -> None:
    """The hub starts again, and the gateway need not wait half a minute for an answer that was never given."""
    site.hub.start()
    site.link.drop()
    site.settle()
    account = site.account()
    assert (account.problems, account.tombstoned) == ([], 0)


@thorough
@pytest.mark.timeout(90)
def test_killed_before_its_commit_it_has_nothing_and_gets_it_again(site: UpstreamSite) -> None:
    """The link stays whole: the gateway sends the same bytes again when its patience of half a minute is over."""
    with closing(sqlite3.connect(site.books.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")  # nobody else can commit now
        before = site.books.count()
        site.sensors.round(10)
        until(lambda: any(worker["inflight_batches"] for worker in site.hub.answers()["workers"]), "a batch is in hand")
        site.hub.kill()
        holder.execute("ROLLBACK")
    assert site.books.count() == before
    site.hub.start()
    site.settle(60)
    assert site.account().problems == []


@pytest.mark.parametrize("point", ["before", "body", "after"])
def test_killed_after_its_commit_it_has_the_rows_once_whatever_became_of_the_answer(
    site: UpstreamSite, point: Point
) -> None:
    """Nothing of the answer was sent, a part of it, or all."""
    before = site.books.count()
    site.hub_link.arm(MqttScissors(Moment("up", "PUBLISH", point, "/result/ack")), site.hub.kill)
    site.sensors.round(10)
    until(site.hub_link.snipped.is_set, "the hub is killed")
    assert site.books.count() > before, "it had committed before it answered"
    site.sensors.round(10)
    comes_back(site)


@pytest.mark.parametrize("point", ["body", "after"])
def test_killed_while_a_batch_arrives_it_has_nothing_of_it_or_all(site: UpstreamSite, point: Point) -> None:
    site.hub_link.arm(MqttScissors(Moment("down", "PUBLISH", point, "/batch")), site.hub.kill)
    site.sensors.round(10)
    until(site.hub_link.snipped.is_set, "the hub is killed")
    comes_back(site)


def test_killed_before_and_after_it_answers_a_greeting(site: UpstreamSite) -> None:
    for point in ("before", "after"):
        site.hub_link.arm(MqttScissors(Moment("up", "PUBLISH", point, "/hello/ack")), site.hub.kill)
        site.link.drop()
        until(site.hub_link.snipped.is_set, "the hub is killed")
        site.sensors.round(10)
        comes_back(site)


def test_workers_that_die_are_replaced_and_what_they_held_comes_again(site: UpstreamSite) -> None:
    site.sensors.trickle(0.005)
    for _ in range(2):
        (pid,) = until(site.hub.workers, "a worker serves")
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: [new for new in site.hub.workers() if new != pid], "another worker serves")  # type: ignore[misc]
    site.link.drop()
    site.settle()
    assert site.account().problems == []


def test_a_stop_answers_what_is_in_hand(site: UpstreamSite) -> None:
    site.sensors.trickle(0.005)
    before = site.books.count()
    until(lambda: site.books.count() > before, "rows flow")
    assert site.hub.stop() == 0
    comes_back(site)


def test_over_https_a_hub_killed_under_load_has_every_row_once(tmp_path: Path, single_model: Path) -> None:
    with UpstreamSite(tmp_path, single_model, https=True) as site:
        site.sensors.trickle(0.005)
        for _ in range(2):
            before = site.books.count()
            until(lambda before=before: site.books.count() > before, "rows flow")  # type: ignore[misc]
            site.hub.kill()
            site.hub.start()
        site.settle()
        account = site.account()
        assert (account.problems, account.tombstoned) == ([], 0)
