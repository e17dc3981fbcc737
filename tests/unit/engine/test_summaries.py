"""Under pressure results that do not leave within a minute go home as summaries: while wanted, and only new ones."""

from __future__ import annotations

import asyncio

from edged.engine.summaries import AT_ONCE, LOOK_EVERY_S, Summaries
from edged.sync.protocol import Stream
from tests.doubles.engine_rig import Rig


class Asked:
    """A rig with a way home, at a level that the test sets."""

    def __init__(self, streams: frozenset[Stream] = frozenset({"result"})) -> None:
        self.wanted = True
        self.rig = Rig(streams=streams)
        self.summaries = Summaries(self.rig.engine, lambda: self.wanted)
        self.made = 0

    async def minute(self, results: int = 0) -> list[tuple[int, int, str]]:
        """So many results are made, a minute passes; what was summarised."""
        before = len(self.rig.journal.summarized)
        await self.summaries.look()
        for seq in range(self.made, self.made + results):
            self.rig.event(seq)
        self.made += results
        await self.rig.engine.settled()
        self.rig.clock.advance_s(60)
        await self.summaries.look()
        return self.rig.journal.summarized[before:]


async def test_what_waited_for_a_minute_goes_home_as_a_summary_once() -> None:
    asked = Asked()
    await asked.rig.start()
    assert await asked.minute(results=5) == []  # they are younger than the mark
    assert await asked.minute() == [(1, 5, "pressure")]
    assert await asked.minute() == []
    assert asked.summaries.count == 5


async def test_what_was_made_before_and_what_is_home_stay_as_they_are() -> None:
    asked = Asked()
    asked.wanted = False
    await asked.rig.start()
    await asked.minute(results=3)
    asked.wanted = True
    await asked.minute(results=9)
    asked.rig.home.arrived("result", [(4, 5), (8, 9)])
    assert await asked.minute() == [(6, 7, "pressure"), (10, 12, "pressure")]


async def test_nothing_is_summarised_unless_it_is_wanted_and_there_is_a_way_home() -> None:
    asked = Asked()
    await asked.rig.start()
    asked.wanted = False
    assert await asked.minute(results=3) == []
    assert await asked.minute() == []
    alone = Asked(frozenset())
    await alone.rig.start()
    await alone.minute(results=3)
    assert await alone.minute() == []


async def test_a_long_backlog_is_summarised_in_pieces() -> None:
    asked = Asked()
    await asked.rig.start()
    await asked.minute(results=AT_ONCE + 1)
    assert await asked.minute() == [(1, AT_ONCE, "pressure"), (AT_ONCE + 1, AT_ONCE + 1, "pressure")]


async def test_it_looks_for_ever() -> None:
    asked = Asked()
    looks = 0

    def wanted() -> bool:
        nonlocal looks
        looks += 1
        return False

    running = asyncio.create_task(Summaries(asked.rig.engine, wanted).run())
    async with asyncio.timeout(LOOK_EVERY_S):
        while not looks:
            await asyncio.sleep(0)
    running.cancel()
