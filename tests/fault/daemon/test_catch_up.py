"""A pipeline that lags behind: it moves although events never pause, and answers nothing twice."""

from __future__ import annotations

import asyncio

import pytest

from edged.engine.recovery import recover
from edged.engine.runner_parts import READY_LIMIT
from edged.messages import Inbound
from tests.doubles.engine_rig import Rig
from tests.doubles.link import LoopLink

AT_ONCE = 50


class EndlessLink(LoopLink):
    """There is always another message."""

    seq = 0
    closed = False

    def take(self, limit: int) -> tuple[int, list[Inbound]]:
        if self.closed:
            return self.generation, []
        messages = []
        for _ in range(AT_ONCE):
            self.seq += 1
            body = b'{"a": 1.0, "seq": %d, "ts": %d}' % (self.seq, 1_700_000_000_000 + self.seq)
            messages.append(Inbound(self.seq % 65_535 + 1, "in/d1", body, False))
        return self.generation, messages

    def waiting(self) -> int:
        return 0 if self.closed else AT_ONCE


@pytest.mark.timeout(60)
async def test_a_lagging_pipeline_moves_on_although_messages_never_stop() -> None:
    rig = Rig(lane=True)
    assert rig.lane is not None
    rig.link = link = EndlessLink(rig.engine, slots=10)
    await rig.start()
    task = asyncio.get_running_loop().create_task(rig.catch_up.run())
    rig.engine.on_inbox()

    async def until(reached: int) -> None:
        assert rig.lane is not None
        async with asyncio.timeout(20):
            while rig.runner.answered < reached:
                await asyncio.sleep(0)
                if rig.lane.jobs and rig.runner.lagging:
                    rig.lane.answer()

    await until(1)
    assert rig.runner.lagging
    await until(3 * READY_LIMIT)
    link.closed = True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_answered_is_not_forgotten_by_a_unit_committed_before_the_catch_up_has_begun() -> None:
    first = Rig(lane=True, window=2)
    await first.start()
    assert first.lane is not None
    for seq in range(1, 9):
        first.event(seq)
    await first.engine.settled()
    while first.lane.jobs:
        first.lane.answer()
    await first.engine.settled()
    assert first.runner.answered == 7

    second = Rig(lane=True, window=2, journal=first.journal)
    now_ms = second.clock.mono_ns() // 1_000_000
    await recover(second.engine, second.journal, second.devices, None, now_ms)
    second.engine.attach(second.link)
    second.link.up(session_present=True)
    assert second.runner.cursor == 0, "the windows are to be fed from the beginning"
    second.event(9)
    await second.engine.settled()

    third = Rig(lane=True, window=2, journal=second.journal)
    await third.start()
    assert third.lane is not None
    while third.lane.jobs:
        third.lane.answer()
    await third.engine.settled()
    await third.delivery.refill_once()
    newest = [result["input"]["seq"] for result in third.results()]
    assert newest == [2, 3, 4, 5, 6, 7, 8, 9], "each window once, the first seven from the store"
    assert third.runner.answered == 1
