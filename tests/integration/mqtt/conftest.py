"""Links under test, and the brokers they talk to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.messages import Inbound, Outbound
from edged.mqtt.backoff import Backoff
from edged.mqtt.link import MqttLink
from edged.mqtt.settings import LinkSettings
from edged.ops.clock import SystemClock
from tests.doubles.broker import Mosquitto
from tests.doubles.link_listener import RecordingListener

CLOCK = SystemClock()  # reads files when made: not on a running loop
FAST = Backoff(first_s=0.05, cap_s=0.2, stable_s=60.0)


class Subject:
    """A running link with its listener, and an engine that only keeps what it took."""

    def __init__(self, settings: LinkSettings) -> None:
        self.heard = RecordingListener()
        self.link = MqttLink(settings, self.heard, CLOCK, lambda: 0.5)
        self.taken: list[tuple[int, Inbound]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Subject:
        self._task = asyncio.get_running_loop().create_task(self.link.run())
        return self

    async def up(self, generation: int = 1) -> Subject:
        await self.heard.until(lambda: self.link.free_slots and self.link.generation >= generation, "the link to be up")
        return self

    async def end(self) -> None:
        """Cancel `run`, as a crash would: no DISCONNECT, no farewell."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            assert self._task.cancelled() or self._task.exception() is None, self._task

    async def ended(self) -> None:
        """Wait until `run` has returned by itself."""
        assert self._task is not None
        await self._task

    def take(self, limit: int = 100_000) -> list[Inbound]:
        """Take messages without acknowledging them."""
        generation, messages = self.link.take(limit)
        self.taken += [(generation, Inbound(*message)) for message in messages]
        return [Inbound(*message) for message in messages]

    def take_and_acknowledge(self, limit: int = 100_000) -> list[Inbound]:
        generation, messages = self.link.take(limit)
        self.taken += [(generation, Inbound(*message)) for message in messages]
        self.link.send(
            (),
            [message[0] for message in messages if message[0]],
            generation=generation,
            released_count=len(messages),
            released_bytes=sum(len(message[2]) for message in messages),
        )
        return [Inbound(*message) for message in messages]

    def acknowledge_everything(self) -> None:
        """From now on, as soon as it comes."""
        self.heard.when_inbox = self.take_and_acknowledge  # type: ignore[assignment]  # the list it returns is unused

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for _, message in self.taken]


def outbound(count: int, topic: bytes = b"out/t", first_token: int = 1) -> list[Outbound]:
    return [Outbound(topic, b"%d" % token, token) for token in range(first_token, first_token + count)]


@pytest.fixture
def stock_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto as it comes."""
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
async def make_link() -> AsyncIterator[Callable[..., Subject]]:
    """Make and start a link to 127.0.0.1 on the given port; all are ended after the test."""
    made: list[Subject] = []

    def make(port: int, **settings: Any) -> Subject:
        defaults: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": port,
            "client_id": "edged-test",
            "filters": ("in/#",),
            "backoff": FAST,
        }
        subject = Subject(LinkSettings(**{**defaults, **settings}))
        made.append(subject)
        return subject.start()

    yield make
    for subject in made:
        await subject.end()


MakeLink = Callable[..., Subject]
