"""A read that hangs costs its value: nobody is kept waiting, and no second read is begun behind it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edged.ops.sensors.report import DeviceReport, read_devices
from edged.ops.sensors.watch import DeviceWatch
from tests.doubles.waiting import eventually


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


async def test_a_read_that_hangs_is_unknown_and_is_awaited_by_nobody_until_it_returns(tmp_path: Path) -> None:
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
    assert (len(begun), watch.stuck) == (1, 2)
    going_on.set()
    found = []

    async def look() -> bool:
        found.append(await watch.look())
        return found[-1] is report

    for _ in range(200):
        if await look():
            break
    assert found[-1] is report


async def test_a_reader_that_raises_is_our_bug_and_is_told() -> None:
    def read() -> DeviceReport:
        raise ZeroDivisionError

    watch = DeviceWatch(read)
    with pytest.raises(ZeroDivisionError):
        await watch.look()
    with pytest.raises(ZeroDivisionError):  # and the next look begins anew
        await watch.look()


async def test_a_look_that_nobody_waits_for_any_more_ends_quietly(tmp_path: Path) -> None:
    done = threading.Event()

    def read() -> DeviceReport:
        done.wait(30)
        return read_devices(tmp_path)

    watch = DeviceWatch(read, patience_s=0.01)
    await watch.look()
    looking = watch._looking  # noqa: SLF001
    assert looking is not None
    looking.cancel()
    done.set()
    await eventually(lambda: threading.active_count() == 1 or looking.cancelled())
