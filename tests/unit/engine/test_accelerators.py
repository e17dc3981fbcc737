"""Processes of accelerators exist only where a chain needs one; a replacement proves itself before it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edged.config.hardware import HardwareClass
from edged.engine.accelerators import Accelerators, processes_of
from edged.errors import ModelError
from edged.infer.loading import ModelFile
from edged.infer.runtime import LoadOptions
from edged.ops.logs import Log
from edged.ports import Model
from tests.doubles.clock import FakeClock
from tests.doubles.runtime import StandInModel
from tests.doubles.waiting import until

FILE = ModelFile(Path("m.onnx"), "", 0, "onnx", "m", "1")


class Stats(NamedTuple):
    rung: str
    calls: int


class Pretended:
    """Implements `Processes`. `successor`: what recycling would load."""

    def __init__(self) -> None:
        self.checks = 0
        self.prepared: list[str] = []
        self.recycled: list[str] = []
        self.closed_after_s = 0.0
        self.successor: Model = StandInModel()

    def load(self, rung: str, file: ModelFile, options: LoadOptions) -> Model:
        return StandInModel(runtime=rung)

    def prepare(self, rung: str, file: ModelFile, options: LoadOptions, timeout_s: float) -> None:
        self.prepared.append(rung)

    def check(self) -> Sequence[str]:
        self.checks += 1
        return ()

    def due(self) -> Sequence[str]:
        return ("npu:x",)

    def recycle(self, rung: str, prove: Callable[[Model, Model], None] | None = None) -> bool:
        if prove is not None:
            prove(StandInModel(), self.successor)
        self.recycled.append(rung)
        return True

    def statistics(self) -> Sequence[Stats]:
        return (Stats("npu:x", 7),)

    def close(self, timeout_s: float) -> None:
        self.closed_after_s = timeout_s


@pytest.fixture
def processes() -> Pretended:
    return Pretended()


def accelerators(processes: Pretended, made: list[int], lines: list[str]) -> Accelerators:
    def make() -> Pretended:
        made.append(1)
        return processes

    return Accelerators(make, Log(FakeClock(), write=lines.append, journal=False))


async def test_without_an_accelerator_there_is_no_process_and_nothing_to_close(processes: Pretended) -> None:
    made: list[int] = []
    idle = accelerators(processes, made, [])
    task = asyncio.ensure_future(idle.run())
    await asyncio.sleep(0)
    task.cancel()
    await idle.close()
    assert (made, idle.report(), processes.closed_after_s) == ([], [], 0.0)


async def test_once_needed_they_are_looked_after_shown_and_closed(processes: Pretended) -> None:
    made: list[int] = []
    busy = accelerators(processes, made, [])
    model = await asyncio.to_thread(busy.load, "npu:x", FILE, LoadOptions())
    await asyncio.to_thread(busy.prepare, "npu:x", FILE, LoadOptions(), 1.0)
    assert (model.info.runtime, made, processes.prepared) == ("npu:x", [1], ["npu:x"])
    task = asyncio.ensure_future(busy.run())
    await asyncio.to_thread(until, lambda: processes.recycled, "a round")
    task.cancel()
    await busy.close()
    assert (busy.report(), processes.checks > 0) == ([{"rung": "npu:x", "calls": 7}], True)
    assert processes.closed_after_s > 0


def test_a_successor_that_answers_otherwise_is_not_taken(processes: Pretended) -> None:
    lines: list[str] = []
    wrong = lambda batch: {"y": np.full(len(batch["x"]), 9.0, np.float32)}  # noqa: E731 - a script has no name
    processes.successor = StandInModel(script=[wrong] * 5)
    accelerators(processes, [], lines).look()
    assert processes.recycled == []
    assert any("recycling_failed" in line and "parity_failed" in line for line in lines)


def test_the_real_ones_report_nothing_until_something_was_loaded() -> None:
    made = processes_of(FakeClock(), Log(FakeClock(), journal=False), HardwareClass(), lambda: None)()
    assert list(made.statistics()) == []
    with pytest.raises(ModelError):
        made.load("nothing:x", FILE, LoadOptions())
    made.close(5)
