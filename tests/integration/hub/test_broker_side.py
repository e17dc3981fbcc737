"""Gateways bring batches over a real broker; the database is a double."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.broker import Mosquitto, running
from tests.doubles.hub_rig import Gateway, configured, running_worker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    yield from running(tmp_path, "max_queued_messages 100000")


def broker_url(broker: Mosquitto) -> str:
    return f"mqtt://127.0.0.1:{broker.port}"


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
async def test_a_batch_is_committed_and_then_called_home(tmp_path: Path, broker: Mosquitto, protocol: str) -> None:
    config = await configured(tmp_path / "hub", f'[broker]\nurl = "{broker_url(broker)}"\nprotocol = "{protocol}"')
    async with running_worker(config) as rig, Gateway(broker.port) as gateway:
        await rig.healthy()
        await gateway.hello()
        (answer,) = await gateway.answered()
        await gateway.batch(1, 10)
        (ack,) = await gateway.acked(1)

    assert (answer.status, answer.receiver, answer.instance) == ("ok", "hub-db-1", "i-1")
    assert (ack.status, ack.first, ack.last, ack.upto) == ("ok", 1, 10, 10)
    assert rig.database.committed == [("gw-1", "alarm", 1)]
