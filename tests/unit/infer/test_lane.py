"""A slow model on a thread of its own: bounded, in order, and a hang that is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from threading import Event

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.lane import Done, Lane, LaneLimits
from edged.messages import ModelInfo
from tests.doubles.clock import FakeClock
from tests.doubles.runtime import StandInModel

LIMITS = LaneLimits(jobs_count=2, stuck_after_s=10, load_after_s=60, abandoned_count=1)
ONE = {"x": np.ones((1, 4), np.float32)}


class InPieces(StandInModel):
    """Says when it began the piece that it computes."""

    began_ns = 0


class Desk:
    """Collects what a lane answers, in order."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, float | str, int]] = []
        self._changed = asyncio.Event()

    def done(self, name: str) -> Done:
        def done(outcome: Mapping[str, np.ndarray] | InferenceError, infer_us: int, info: ModelInfo | None) -> None:
            said = outcome.code if isinstance(outcome, InferenceError) else float(outcome["y"][0])
            self.answers.append((name, said, infer_us))
            self._changed.set()

        return done

    async def until(self, count: int) -> list[tuple[str, float | str]]:
        """The first answers, once there are `count`."""
        async with asyncio.timeout(10):
            while len(self.answers) < count:
                self._changed.clear()
                await self._changed.wait()
        return [(name, said) for name, said, _ in self.answers]


class Host:
    """A lane with a clock that stands still, and the models it reloads."""

    def __init__(self, model: StandInModel, *reloads: StandInModel | ModelError | Event) -> None:
        self.clock = FakeClock()
        self.desk = Desk()
        self._reloads = list(reloads)
        self.lane = Lane(
            "pump",
            model,
            reload=self._reload,
            clock=self.clock,
            post=asyncio.get_running_loop().call_soon_threadsafe,
            limits=LIMITS,
        )

    def submit(self, name: str) -> bool:
        return self.lane.submit(ONE, self.desk.done(name))

    def pass_s(self, seconds: float) -> bool:
        """Time passes; True when the lane left a call behind."""
        self.clock.advance_s(seconds)
        return self.lane.check(self.clock.mono_ns())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    def _reload(self) -> StandInModel:
        found = self._reloads.pop(0)
        if isinstance(found, ModelError):
            raise found
        if isinstance(found, Event):
            assert found.wait(30)
            raise ModelError("late", "loaded far too late")
        return found


@asynccontextmanager
async def host(model: StandInModel, *reloads: StandInModel | ModelError | Event) -> AsyncIterator[Host]:
    made = Host(model, *reloads)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.lane.close, 10)


async def entered(model: StandInModel) -> None:
    """Wait until the scripted hang holds the worker."""
    assert await asyncio.to_thread(model.entered.wait, 10)


async def test_jobs_are_answered_in_order_with_the_time_of_their_call() -> None:
    clock = FakeClock()
    model = StandInModel(clock=clock, cost_us=(1000, 0))
    async with host(model) as h:
        h.lane.clock = clock
        assert h.submit("a")
        assert h.submit("b")
        assert await h.desk.until(2) == [("a", 4.0), ("b", 4.0)]
        assert [us for _, _, us in h.desk.answers] == [1000, 1000]
        assert h.lane.stats()._replace(running=False) == ("serving", 0, False, 2, 0, 0, 0)


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room() -> None:
    hang = Event()
    model = StandInModel(script=[hang])
    async with host(model) as h:
        assert h.submit("running")
        assert h.submit("first")
        assert h.submit("second")
        assert not h.submit("too many")
        assert h.lane.stats().waiting == 2
        hang.set()
        await h.desk.until(3)
        assert h.submit("later")
        assert [name for name, _ in await h.desk.until(4)] == ["running", "first", "second", "later"]


async def test_a_failing_call_fails_its_job_only() -> None:
    model = StandInModel(script=[InferenceError("infer_failed", "scripted"), ValueError("not in the contract")])
    async with host(model) as h:
        h.submit("a")
        h.submit("b")
        await h.desk.until(2)
        h.submit("c")
        assert await h.desk.until(3) == [("a", "infer_failed"), ("b", "infer_failed"), ("c", 4.0)]
        assert h.lane.stats().failed == 2


async def test_a_call_within_its_time_is_left_alone() -> None:
    hang = Event()
    async with host(StandInModel(script=[hang])) as h:
        assert not h.pass_s(1000)
        h.submit("a")
        assert not h.pass_s(10)
        hang.set()
        assert await h.desk.until(1) == [("a", 4.0)]


async def test_a_hanging_call_is_left_behind_and_a_fresh_session_serves_what_waited() -> None:
    hang, fresh = Event(), StandInModel()
    stuck = StandInModel(script=[hang])
    async with host(stuck, fresh) as h:
        h.submit("stuck")
        h.submit("waiting")
        await entered(stuck)
        assert h.pass_s(10.1)
        assert await h.desk.until(2) == [("stuck", "infer_timeout"), ("waiting", 4.0)]
        assert fresh.calls == [1]
        assert (h.lane.stats().abandoned, h.lane.stats().timeouts, h.lane.stats().state) == (1, 1, "serving")
        hang.set()
        await h.until(lambda: h.lane.stats().abandoned == 0)
        assert stuck.closed.is_set()
        assert len(h.desk.answers) == 2, "a late answer must not become a second result"


async def test_too_many_hanging_calls_stop_the_lane_and_every_job_is_told() -> None:
    hangs = [Event(), Event()]
    models = [StandInModel(script=[hang]) for hang in hangs]
    async with host(models[0], models[1], StandInModel()) as h:
        for number, model in enumerate(models):
            h.submit(f"stuck {number}")
            if number == 1:
                h.submit("waiting")
            await entered(model)
            assert h.pass_s(10.1)
        assert h.submit("late")
        said = await h.desk.until(4)
        assert said == [
            ("stuck 0", "infer_timeout"),
            ("stuck 1", "infer_timeout"),
            ("waiting", "runtime_stuck"),
            ("late", "runtime_stuck"),
        ]
        assert h.lane.stats() == ("stuck", 0, False, 0, 4, 2, 2)
        assert not h.pass_s(1000)
        for hang in hangs:
            hang.set()
        await h.until(lambda: h.lane.stats().abandoned == 0)
        assert h.submit("after the calls returned")
        assert (await h.desk.until(5))[4] == ("after the calls returned", 4.0)
        assert h.lane.stats().state == "serving"


async def test_a_reload_that_fails_makes_the_lane_unusable_with_its_reason() -> None:
    hang = Event()
    stuck = StandInModel(script=[hang])
    async with host(stuck, ModelError("corrupt", "the file is damaged now")) as h:
        h.submit("stuck")
        h.submit("waiting")
        await entered(stuck)
        h.pass_s(10.1)
        assert await h.desk.until(2) == [("stuck", "infer_timeout"), ("waiting", "model_unusable")]
        assert h.lane.stats().state == "unusable"
        hang.set()


async def test_a_reload_that_hangs_is_left_behind_as_well() -> None:
    hang, loading = Event(), Event()
    stuck = StandInModel(script=[hang])
    async with host(stuck, loading, StandInModel()) as h:
        h.submit("stuck")
        h.submit("waiting")
        await entered(stuck)
        assert h.pass_s(10.1)
        assert not h.pass_s(60)
        assert h.pass_s(0.1)
        assert await h.desk.until(2) == [("stuck", "infer_timeout"), ("waiting", "runtime_stuck")]
        loading.set()
        await h.until(lambda: h.lane.stats().abandoned == 1)
        hang.set()
        await h.until(lambda: h.lane.stats().abandoned == 0)


async def test_closing_lets_the_running_call_end_and_gives_waiting_jobs_no_answer_that_would_stay() -> None:
    hang = Event()
    model = StandInModel(script=[hang])
    h = Host(model)
    h.submit("running")
    h.submit("waiting")
    await entered(model)
    assert not await asyncio.to_thread(h.lane.close, 0.01)
    assert not h.submit("after")
    hang.set()
    assert await asyncio.to_thread(h.lane.close, 10)
    assert await h.desk.until(1) == [("running", 4.0)]
    assert model.closed.is_set()
    assert h.lane.stats()._replace(running=False) == ("closed", 0, False, 1, 0, 0, 0)


def test_a_call_that_returns_after_the_loop_has_gone_ends_quietly() -> None:
    hang = Event()
    model = StandInModel(script=[hang])

    async def leave() -> Lane:
        h = Host(model)
        h.submit("a")
        await entered(model)
        assert not await asyncio.to_thread(h.lane.close, 0.01)
        return h.lane

    lane = asyncio.run(leave())
    hang.set()
    assert lane.close(10)
    assert model.closed.is_set()


async def test_a_long_call_that_goes_on_piece_by_piece_is_not_left_behind() -> None:
    hang = Event()
    model = InPieces(script=[hang])
    async with host(model, StandInModel()) as made:
        made.submit("long")
        await asyncio.to_thread(model.entered.wait, 10)
        made.clock.advance_s(9)
        model.began_ns = made.clock.mono_ns()
        assert not made.pass_s(9), "eighteen seconds, but a piece began nine seconds ago"
        assert made.pass_s(2)
        hang.set()
