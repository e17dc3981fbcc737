"""Fifty gateways come back at once, while workers die: every row is home once, and nobody is forgotten."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.broker import Mosquitto
from tests.doubles.hub_books import HubBooks
from tests.doubles.light_gateway import LightGateway, batch
from tests.doubles.postgres import Postgres
from tests.doubles.upstream_site import Hub
from tests.doubles.waiting import until

GATEWAYS = 50
ROWS = 2000
BATCH = 200
AT_ONCE = 8
KILLS = 8  # more, and the supervisor lets half a minute pass between two lives of a worker


def kill_workers_at_will(hub: Hub, chance: random.Random, over: Callable[[], bool]) -> int:
    """A random worker each random while, `KILLS` times or until `over`; how many."""
    killed = 0
    while killed < KILLS and not over():
        time.sleep(chance.uniform(0.05, 0.5))
        for pid in chance.sample(hub.workers() or [0], k=1):
            with contextlib.suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    return killed


@pytest.mark.slow
def test_fifty_gateways_at_once_and_workers_killed_at_will_end_with_every_row_once(
    tmp_path: Path, postgres: Postgres
) -> None:
    database = postgres.url(postgres.database())
    names = [f"gw-{number}" for number in range(GATEWAYS)]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(tmp_path, "max_queued_messages 10000"))
        hub = stack.enter_context(Hub(tmp_path, database, broker_port=broker.port, workers=4))
        gateways = [
            stack.enter_context(LightGateway(broker.port, name, total=ROWS, size=BATCH)) for name in names
        ]  # fmt: skip
        hub.start()
        for gateway in gateways:
            gateway.start()
        chance = random.Random(1)

        def over() -> bool:
            return all(gateway.home.is_set() for gateway in gateways)

        killed = kill_workers_at_will(hub, chance, over)
        with contextlib.suppress(AssertionError):
            until(over, "every gateway is home", 40)
        assert [gateway.name for gateway in gateways if not gateway.home.is_set()] == [], hub.log[-3000:]
        hub.healthy()
        assert killed >= 5, "no worker was killed to speak of"
        books = HubBooks(database)
        assert books.ask("SELECT count(*), count(DISTINCT (gateway, epoch, seq)) FROM results") == [
            (GATEWAYS * ROWS, GATEWAYS * ROWS)
        ]
        assert books.ask("SELECT count(*) FROM ledger WHERE missing <> 0 OR rows <> made OR upto <> 2000") == [(0,)]
        assert books.ask("SELECT count(DISTINCT gateway) FROM ledger") == [(GATEWAYS,)]
        spread = {welcome.spread_s for gateway in gateways for welcome in gateway.welcomes}
        assert max(spread) >= 10, "gateways that return together are told to spread"


def test_answers_of_workers_that_take_turns_agree(tmp_path: Path, postgres: Postgres) -> None:
    """The same batches from the same gateway, over and over, to four workers at once: one set of rows."""
    database = postgres.url(postgres.database())
    with (
        Mosquitto(tmp_path) as broker,
        Hub(tmp_path, database, broker_port=broker.port, workers=4) as hub,
        LightGateway(broker.port, "gw", total=ROWS, size=BATCH) as gateway,
    ):
        hub.start()
        gateway.connect()
        payloads = [batch(first, first + BATCH - 1, gateway="gw") for first in range(1, ROWS, BATCH)]
        sent = 20
        for count in range(0, sent * len(payloads), AT_ONCE):
            for payload in random.Random(count).sample(payloads, AT_ONCE):
                gateway.say(payload)
            until(lambda wanted=count + AT_ONCE: len(gateway.answers) == wanted, "all are answered")  # type: ignore[misc]
        assert {answer.status for answer in gateway.answers} == {"ok"}
        assert gateway.home.is_set()
        ledger = HubBooks(database).ledger()
        assert ledger["epoch-1", "result"] == {
            "base": 1, "made": ROWS, "rows": ROWS, "tombstoned": 0, "quarantined": 0, "missing": 0,
        }  # fmt: skip
        assert HubBooks(database).count() == ROWS
