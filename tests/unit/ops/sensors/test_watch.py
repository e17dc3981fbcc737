"""A read that hangs costs its value: nobody is kept waiting, and no second read is begun behind it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from edged.ops.sensors.report import DeviceReport, read_devices
from edged.ops.sensors.watch import DeviceWatch


async def test_each_look_reads_anew(tmp_path: Path) -> None:
    report = read_devices(tmp_path)
    reads = []

    def read() -> DeviceReport:
        reads.append(threading.current_thread())
        return report

    watch = DeviceWatch(read)
    assert await watch.look() is report
    assert await watch.look() is report
    assert len(set(reads)) == 2
    assert threading.main_thread() not in reads
    assert all(thread.daemon for thread in reads)


async def test_a_read_that_hangs_is_unknown_and_no_other_begins_until_it_returns(tmp_path: Path) -> None:
    report = read_devices(tmp_path)
    going_on = threading.Event()
    begun = []

    def read() -> DeviceReport:
        begun.append(1)
        going_on.wait(30)
        return report

    watch = DeviceWatch(read, patience_s=0.05)
    assert await watch.look() is None
    assert await watch.look() is None
    assert len(begun) == 1
    assert "0.05 s" in watch.trouble
    going_on.set()
    looks = [await watch.look() for _ in range(100)]  # each is patient for a while
    assert looks[-1] is report
    assert watch.trouble == ""


async def test_a_reader_that_raises_costs_its_report_and_says_why(tmp_path: Path) -> None:
    answers: list[DeviceReport | Exception] = [ZeroDivisionError("no part"), read_devices(tmp_path)]

    def read() -> DeviceReport:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = DeviceWatch(read)
    assert await watch.look() is None
    assert watch.trouble == "ZeroDivisionError: no part"
    assert await watch.look() is not None


async def test_an_answer_that_nobody_waits_for_any_more_is_dropped(tmp_path: Path) -> None:
    going_on, returned = threading.Event(), threading.Event()

    def read() -> DeviceReport:
        going_on.wait(30)
        returned.set()
        return read_devices(tmp_path)

    watch = DeviceWatch(read, patience_s=30)
    looking = asyncio.create_task(watch.look())
    await asyncio.sleep(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    going_on.set()
    assert await watch.look() is not None  # the same read, taken up again
    assert returned.is_set()
