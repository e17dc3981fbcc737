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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, single_model: Path) -> Iterator[UpstreamSite]:
    """One for all: each death leaves it as it was, with more rows home."""
    with UpstreamSite(tmp_path_factory.mktemp("site"), single_model) as site:
        site.sensors.round(10)
        site.settle()
        yield site


def test_killed_before_its_commit_it_has_nothing_and_gets_it_again(site: UpstreamSite) -> None:
    with closing(sqlite3.connect(site.books.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")  # nobody else can commit now
        before = site.books.count()
        site.sensors.round(10)
        until(lambda: any(worker["inflight_batches"] for worker in site.hub.answers()["workers"]), "a batch is in hand")
        site.hub.kill()
        holder.execute("ROLLBACK")
    assert site.books.count() == before
    site.hub.start()
    site.settle()
    assert site.account().problems == []


@pytest.mark.parametrize(
    ("point", "what"),
    [("before", "answer not sent"), ("body", "half an answer"), ("after", "answer sent")],
)
def test_killed_after_its_commit_it_has_the_rows_once_whatever_became_of_the_answer(
    site: UpstreamSite, point: Point, what: str
) -> None:
    before = site.books.count()
    site.hub_link.arm(MqttScissors(Moment("up", "PUBLISH", point, "/result/ack")), site.hub.kill)
    site.sensors.round(10)
    until(site.hub_link.snipped.is_set, f"the hub is killed: {what}")
    assert site.books.count() > before, "it had committed before it answered"
    site.sensors.round(10)
    site.hub.start()
    site.settle()
    assert site.account().problems == []


def test_killed_with_a_batch_it_has_not_read_to_its_end(site: UpstreamSite) -> None:
    site.hub_link.arm(MqttScissors(Moment("down", "PUBLISH", "body", "/batch")), site.hub.kill)
    site.sensors.round(10)
    until(site.hub_link.snipped.is_set, "the hub is killed")
    site.hub.start()
    site.settle()
    assert site.account().problems == []


def test_a_worker_that_dies_is_replaced_and_what_it_held_comes_again(site: UpstreamSite) -> None:
    site.sensors.trickle(0.005)
    for _ in range(2):
        (pid,) = site.hub.workers()
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: [new for new in site.hub.workers() if new != pid], "another worker serves")  # type: ignore[misc]
    site.settle()
    assert site.account().problems == []


def test_a_stop_answers_what_is_in_hand(site: UpstreamSite) -> None:
    site.sensors.trickle(0.005)
    before = site.books.count()
    until(lambda: site.books.count() > before, "rows flow")
    assert site.hub.stop() == 0
    site.hub.start()
    site.settle()
    assert site.account().problems == []
