"""The database comes, goes and comes back; who asks is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edged.errors import EdgedError
from edged.hub.keeper import Keeper
from edged.hub.ports import Database, DatabaseAway
from edged.ops.logs import Log
from tests.doubles.clock import FakeClock
from tests.doubles.hub_rig import GatedDatabase, until


class Scene:
    """A keeper whose database obeys: `error` is raised by opening and by looking."""

    def __init__(self, remembered: str = "") -> None:
        self.clock = FakeClock()
        self.database = GatedDatabase()
        self.error: EdgedError | None = None
        self.looks = 0
        self.lines: list[str] = []
        log = Log(self.clock, write=self.lines.append, journal=True)
        self.keeper = Keeper(self.open, self.probe, self.clock, log, remembered=remembered, pause_s=0.005)

    async def open(self) -> Database:
        await self.probe(self.database)
        return self.database

    async def probe(self, _database: Database) -> None:
        self.looks += 1
        if self.error is not None:
            raise self.error

    async def looked(self, times: int = 2) -> None:
        goal = self.looks + times
        await until(lambda: self.looks >= goal, "it was looked at")


@asynccontextmanager
async def kept(scene: Scene) -> AsyncIterator[Scene]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(scene.keeper.run())
        yield scene
        task.cancel()


async def test_a_database_that_is_away_at_the_start_serves_when_it_comes() -> None:
    scene = Scene(remembered="hub-db-1")
    scene.error = DatabaseAway("refused", hint="start it")
    async with kept(scene):
        await scene.looked()
        assert scene.keeper.serving() is None
        assert (scene.keeper.fault, scene.keeper.receiver) == ("refused; try: start it", "hub-db-1")
        scene.clock.advance_s(3)
        assert scene.keeper.troubled_s() == 3
        scene.error = None
        await until(lambda: scene.keeper.serving() is scene.database, "it serves")
        assert (scene.keeper.fault, scene.keeper.troubled_s()) == ("", 0)
    assert sum("database_away" in line for line in scene.lines) == 1


async def test_after_a_failed_commit_nothing_is_handed_over_until_a_look_succeeds() -> None:
    scene = Scene()
    async with kept(scene):
        await until(scene.keeper.serving, "it serves")
        scene.error = DatabaseAway("gone")
        scene.keeper.failed(scene.error)
        assert scene.keeper.serving() is None
        scene.error = None
        await until(scene.keeper.serving, "it serves again")


async def test_a_database_that_answers_but_takes_no_commits_stays_in_trouble() -> None:
    scene = Scene()
    async with kept(scene):
        await until(scene.keeper.serving, "it serves")
        for _ in range(3):
            scene.keeper.failed(DatabaseAway("read-only"))
            scene.clock.advance_s(5)
            await until(scene.keeper.serving, "it answers")
        assert scene.keeper.troubled_s() == 15
        scene.keeper.committed()
        assert scene.keeper.troubled_s() == 0


async def test_trouble_ends_by_itself_when_no_commit_comes_to_show_it() -> None:
    scene = Scene()
    async with kept(scene):
        await until(scene.keeper.serving, "it serves")
        scene.clock.advance_s(10)
        scene.keeper.slow()
        assert scene.keeper.serving() is not None
        scene.clock.advance_s(1)
        assert scene.keeper.troubled_s() == 1
        await until(lambda: scene.keeper.troubled_s() == 0, "peace")


async def test_a_database_that_dies_while_idle_is_noticed() -> None:
    scene = Scene()
    async with kept(scene):
        await until(scene.keeper.serving, "it serves")
        scene.clock.advance_s(10)
        scene.error = EdgedError("schema of another version", hint="edged-hub migrate")
        await until(lambda: scene.keeper.fault, "the fault is known")
        assert "edged-hub migrate" in scene.keeper.fault


async def test_recent_commits_say_more_than_a_look() -> None:
    scene = Scene()
    async with kept(scene):
        await until(scene.keeper.serving, "it serves")
        scene.keeper.committed()
        before = scene.looks
        for _ in range(200):
            await asyncio.sleep(0)
        assert scene.looks == before


async def test_closing_is_final_and_closes_the_database() -> None:
    scene = Scene()
    async with kept(scene):
        await until(scene.keeper.serving, "it serves")
    await scene.keeper.close()
    assert scene.database.closed
    assert scene.keeper.serving() is None
    await scene.keeper.close()
