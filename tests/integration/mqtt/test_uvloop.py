"""The same link on uvloop, which is what the daemon runs on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from edged.messages import Outbound
from edged.mqtt.settings import LinkSettings, TlsSettings
from tests.doubles.broker import Mosquitto
from tests.doubles.certificates import Authority
from tests.integration.mqtt.conftest import FAST, Subject


async def scenario(broker: Mosquitto, tls: TlsSettings | None) -> None:
    """Up, a message round, the broker gone and back, goodbye."""
    subject = Subject(
        LinkSettings("127.0.0.1", "edged-uv", broker.port, tls=tls, filters=("t/#",), keep_alive_s=1, backoff=FAST)
    ).start()
    await subject.up()
    subject.acknowledge_everything()
    subject.link.send([Outbound(b"t/1", b"x" * 100_000, 1)])
    await subject.heard.until(lambda: subject.heard.acknowledged == [1] and subject.taken, "the round")
    broker.stop()
    await subject.heard.until(lambda: subject.heard.downs, "the silence to be noticed")
    assert subject.heard.downs[0][0] == "half_open"
    broker.resume()
    await subject.up(2)
    await broker.restart()
    await subject.up(3)
    await subject.link.close(Outbound(b"t/state", b"bye", 0, True))
    await subject.ended()


def test_the_link_lives_on_uvloop(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(broker, None))


def test_the_link_lives_on_uvloop_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("server")
    options = (f"certfile {certificate}", f"keyfile {key}")
    with Mosquitto(tmp_path, *options) as broker, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(broker, TlsSettings(authority.ca_file)))
