"""The line is cut at every kind of byte that the protocol has: what was made is home once, whoever heard what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.chaos_link import AfterBytes, Direction
from tests.doubles.mqtt_scissors import Moment, MqttScissors
from tests.doubles.upstream_site import UpstreamSite
from tests.doubles.waiting import until
from tests.fault.sync.conftest import thorough

# Which bytes these are: docs/reference/sync.md, and MQTT around them.
CONNECTING = (
    Moment("up", "CONNECT", "before"),
    Moment("up", "CONNECT", "last"),
    Moment("down", "CONNACK", "before"),
    Moment("down", "CONNACK", "after"),
    Moment("up", "SUBSCRIBE", "last"),
    Moment("down", "SUBACK", "before"),
    Moment("down", "SUBACK", "after"),
    Moment("up", "PUBLISH", "before", "/hello"),
    Moment("up", "PUBLISH", "body", "/hello"),
    Moment("up", "PUBLISH", "after", "/hello"),
    Moment("down", "PUBLISH", "before", "/hello/ack"),
    Moment("down", "PUBLISH", "body", "/hello/ack"),
    Moment("down", "PUBLISH", "after", "/hello/ack"),
)
SENDING = (
    Moment("up", "PUBLISH", "before", "/batch"),
    Moment("up", "PUBLISH", "type", "/batch"),
    Moment("up", "PUBLISH", "length", "/batch"),
    Moment("up", "PUBLISH", "topic", "/batch"),
    Moment("up", "PUBLISH", "line", "/batch"),
    Moment("up", "PUBLISH", "body", "/batch"),
    Moment("up", "PUBLISH", "last", "/batch"),
    Moment("up", "PUBLISH", "after", "/batch"),
    Moment("down", "PUBACK", "before"),
    Moment("down", "PUBACK", "last"),
    Moment("down", "PUBACK", "after"),
    Moment("down", "PUBLISH", "before", "/result/ack"),
    Moment("down", "PUBLISH", "topic", "/result/ack"),
    Moment("down", "PUBLISH", "body", "/result/ack"),
    Moment("down", "PUBLISH", "last", "/result/ack"),
    Moment("down", "PUBLISH", "after", "/result/ack"),
    Moment("up", "PUBACK", "before"),
    Moment("up", "PUBACK", "after"),
)


def name(moment: Moment) -> str:
    return f"{moment.direction} {moment.kind}{moment.topic_end} {moment.point}"


# One moment of each packet with every test run, all of them with `make sync-faults`.
MOMENTS = [*CONNECTING, *SENDING]
SOME = {(moment.kind, moment.topic_end): moment for moment in MOMENTS if moment.point in {"body", "last"}}.values()


@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=[] if moment in SOME else thorough, id=name(moment)) for moment in MOMENTS]
)
def test_a_line_cut_there_loses_and_doubles_nothing(tmp_path: Path, single_model: Path, moment: Moment) -> None:
    """A gateway of its own each time: cut over and over, it waits longer and longer before it connects again."""
    with UpstreamSite(tmp_path, single_model, scissors=MqttScissors(moment)) as site:
        site.sensors.round(10)
        until(site.link.snipped.is_set, f"the line was cut {name(moment)}")
        site.sensors.round(10)
        site.settle()
        account = site.account()
        assert (account.problems, account.rows) == ([], 80)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(
    "count", [1, 700, pytest.param(1500, marks=thorough), 2500, pytest.param(3500, marks=thorough)]
)
def test_an_https_line_cut_after_so_many_bytes_loses_and_doubles_nothing(
    tmp_path: Path, single_model: Path, direction: Direction, count: int
) -> None:
    """In the handshake, in a greeting, in batches and their answers: under TLS nobody can tell which byte is which."""
    with UpstreamSite(tmp_path, single_model, https=True, scissors=AfterBytes(direction, count)) as site:
        for _ in range(20):
            site.sensors.round(10)
            site.settle()
            if site.link.snipped.is_set():
                break
        assert site.link.snipped.is_set(), "the line was never cut: this shows nothing"
        site.sensors.round(10)
        site.settle()
        assert site.account().problems == []
