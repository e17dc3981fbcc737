"""The uplink's loop without a network: what it tells the daemon, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edged.config.settings import Upstream
from edged.errors import BugError, StoreError
from edged.ops.clock import SystemClock
from edged.ops.logs import Log
from edged.sync.envelope import encode_message
from edged.sync.piece import Piece
from edged.sync.protocol import VERSION, Cursor, HelloAck, Stream, StreamExtent
from edged.uplink.batches import Batches
from edged.uplink.lines import RANGES_PER_LINE, Line, News, Reason, Start, Status, Synced
from edged.uplink.quarantine import Quarantine
from edged.uplink.session import Session
from tests.doubles.outward import ListedOutward, Span

CLOCK = SystemClock()  # reads files when made: not on a running loop


class Listening:
    """A session that sends nowhere, and the lines that it told."""

    def __init__(self, folder: Path, *, url: str = "mqtt://127.0.0.1:1", outward: Any = None) -> None:
        self.told: list[Line] = []
        self.logged: list[str] = []
        start = Start(
            site="s", gateway="g", version="1", state_dir=str(folder), upstream=Upstream(url=url, client_id="up")
        )
        outward = outward or ListedOutward(Span("result", "e1", 1, 10))
        self.session = Session(
            start,
            "run",
            Batches(start, "run", outward),
            Quarantine(folder / "quarantine"),
            self.told.append,
            clock=CLOCK,
            log=Log(CLOCK, write=self.logged.append, journal=False),
            chance=lambda: 0.5,
        )

    def reasons(self) -> list[tuple[str, bool]]:
        return [(line.code, line.active) for line in self.told if isinstance(line, Reason)]


def welcome(**more: Any) -> bytes:
    return encode_message(
        HelloAck(v=VERSION, receiver="hub", site="s", gateway="g", instance="run", status="ok", **more)
    )


async def test_a_reason_lasts_as_long_as_anybody_has_it(tmp_path: Path) -> None:
    it = Listening(tmp_path)
    it.session.on_trouble("publish_denied", True, "no")
    it.session.on_trouble("subscribe_denied", True, "no")
    it.session.on_trouble("publish_denied", False, "")
    assert it.reasons() == [("upstream_refused", True)]

    it.session.on_trouble("subscribe_denied", False, "")
    it.session.on_trouble("subscribe_denied", False, "")
    assert it.reasons() == [("upstream_refused", True), ("upstream_refused", False)]
    await it.session.close()


async def test_many_ranges_are_told_in_lines_of_bounded_length(tmp_path: Path) -> None:
    extents = [Span("result", f"e{number}", 3 * number, 3 * number + 1) for number in range(1, RANGES_PER_LINE + 50)]
    it = Listening(tmp_path, outward=ListedOutward(*extents))
    it.session.on_up(1_000_000)
    it.session.sender.moved(CLOCK.mono_ns(), ListedOutward(*extents).extents())
    cursors = tuple(Cursor(span.epoch, "result", span.last) for span in extents)
    it.session.on_hello_answer(welcome(cursors=cursors))
    await it.session.close()

    lines = [line for line in it.told if isinstance(line, Synced)]
    assert [len(line.ranges) for line in lines] == [RANGES_PER_LINE, 49]


async def test_the_receiver_is_told_as_soon_as_it_is_known(tmp_path: Path) -> None:
    it = Listening(tmp_path)
    it.session.on_up(1_000_000)
    it.session.on_hello_answer(welcome())

    assert [line.receiver for line in it.told if isinstance(line, Status)] == ["hub"]
    await it.session.close()


@pytest.mark.parametrize("url", ["mqtt://127.0.0.1:1", "http://127.0.0.1:1"])
async def test_what_happens_after_the_end_does_no_harm(tmp_path: Path, url: str) -> None:
    it = Listening(tmp_path, url=url)
    await it.session.close()
    it.session.on_up(1_000_000)
    it.session.carrier.hello(1, b"{}")
    it.session.carrier.batch(2, "alarm", b"{}")
    it.session.heard(News(next={"result": 99}))
    await it.session.close()

    assert it.reasons() == []


class _Broken(ListedOutward):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def extents(self) -> tuple[StreamExtent, ...]:
        raise self.error


@pytest.mark.parametrize("error", [StoreError("gone"), BugError("impossible")])
async def test_a_store_that_cannot_be_read_ends_the_session(tmp_path: Path, error: Exception) -> None:
    it = Listening(tmp_path, outward=_Broken(error))
    it.session.on_up(1_000_000)
    it.session.heard(News(next={"result": 99}))

    with pytest.raises(ExceptionGroup) as caught:
        await it.session.run()
    assert caught.value.exceptions == (error,)
    await it.session.close()


async def test_a_bug_in_the_decisions_ends_the_session(tmp_path: Path) -> None:
    class Shifted(ListedOutward):
        def piece(self, stream: Stream, seq: int, limit: int) -> Piece | None:
            return super().piece(stream, seq + 1, limit)

    it = Listening(tmp_path, outward=Shifted(Span("alarm", "e1", 1, 5)))
    it.session.on_up(1_000_000)
    it.session.sender.moved(CLOCK.mono_ns(), [StreamExtent("e1", "alarm", 1, 5)])
    it.session.on_hello_answer(welcome())

    with pytest.raises(BugError, match="got 2 to"):
        await asyncio.wait_for(it.session.failed, 10)
    await it.session.close()
