"""Scenes that make the real engine say everything it can say, one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from edged.messages import Outbound
from edged.pipeline.spec import OutputSpec
from tests.contract.app_rig import running
from tests.doubles.engine_rig import ALARM, Rig
from tests.doubles.journal import MemoryJournal

Said = list[Outbound]


async def _begun(**how: Any) -> Rig:
    rig = Rig(**how)
    await rig.start()
    return rig


async def _events(rig: Rig, *readings: float) -> Said:
    """One numbered event per reading, each in a turn of its own; everything said so far."""
    for a in readings:
        rig.event(rig.journal.next_event - 1, a)
        await rig.engine.settled()
        rig.delivery.pump()
    return rig.link.published


async def good_results() -> Said:
    return await _events(await _begun(), 1.0, 2.0, 3.0)


async def results_without_time_of_the_event() -> Said:
    rig = await _begun()
    rig.event(None)
    rig.link.arrive("in/d1", b'{"a":1,"seq":3,"ts":1700000000000}', retain=True)
    await rig.engine.settled()
    return rig.link.published


async def failed_results() -> Said:
    rig = await _begun()
    rig.model.fail = "out_of_memory"
    return await _events(rig, 1.0)


async def results_without_a_model() -> Said:
    return await _events(await _begun(usable=False), 1.0)


async def windowed_results() -> Said:
    return await _events(await _begun(window=4, stride=2), *range(9))


async def named_numbers() -> Said:
    return await _events(await _begun(output=OutputSpec(kind="regression", names=("hours", "spread"))), 1.5)


async def tensors() -> Said:
    return await _events(await _begun(output=OutputSpec(kind="tensor")), 1.0)


async def history_after_a_reconnect() -> Said:
    rig = await _begun()
    await _events(rig, 1.0)
    rig.link.down()
    rig.link.up(session_present=True)
    await rig.delivery.refill_once()
    return rig.link.published


async def last_values() -> Said:
    rig = await _begun()
    for _ in range(3):
        await _events(rig, 1.0)
        rig.upkeep.tick()
        rig.clock.advance_s(2)
    return rig.link.published


async def an_alarm_from_begin_to_end() -> Said:
    return await _events(await _begun(alarms=[ALARM]), 20.0, 1.0, 1.0)


async def an_alarm_that_outlives_a_restart() -> Said:
    journal = MemoryJournal()
    await _events(await _begun(alarms=[ALARM], journal=journal), 20.0)
    again = await _begun(alarms=[ALARM], journal=journal)
    again.delivery.pump()
    return again.link.published


async def gaps_of_every_kind() -> Said:
    rig = await _begun()
    for seq in (0, 4, 40):
        rig.event(seq)
    await rig.engine.settled()
    rig.clock.advance_s(1.1)
    rig.upkeep.tick()
    rig.event(2)
    rig.event(0, ts=1_800_000_000_000)
    await rig.engine.settled()
    rig.upkeep.tick()
    await rig.engine.settled()
    rig.link.settle_all()
    rig.link.down()
    rig.link.up(session_present=False)
    await rig.engine.settled()
    return rig.link.published


async def dead_letters() -> Said:
    rig = await _begun()
    for topic, payload in (("in/d1", b"{"), ("in/d1", b""), ("else/d1", b"{}"), ("in/d1", b'{"a":"x"}')):
        rig.link.arrive(topic, payload)
    await _events(rig, 1.0)
    rig.link.refuse(1, "not_authorized")
    await rig.engine.settled()
    return rig.link.published


async def devices_that_come_and_go() -> Said:
    rig = await _begun()
    await _events(rig, 1.0)
    for seconds in (61, 600):
        rig.clock.advance_s(seconds)
        rig.upkeep.tick()
    return rig.link.published


async def a_heartbeat() -> Said:
    rig = await _begun()
    rig.link.arrive("in/d1", b"{")
    await _events(rig, 1.0)
    rig.upkeep.tick()
    return rig.link.published


SCENES: tuple[Callable[[], Awaitable[Said]], ...] = (
    good_results,
    results_without_time_of_the_event,
    failed_results,
    results_without_a_model,
    windowed_results,
    named_numbers,
    tensors,
    history_after_a_reconnect,
    last_values,
    an_alarm_from_begin_to_end,
    an_alarm_that_outlives_a_restart,
    gaps_of_every_kind,
    dead_letters,
    devices_that_come_and_go,
    a_heartbeat,
)


async def the_whole_daemon(folder: Path) -> Said:
    """Start, calibrate, lose a filter, lose the clock, lose the broker."""
    async with running(folder, broken=True) as rig:
        await rig.events(15)
        await rig.tick(1)
        rig.link.down()
        await rig.tick(1)
        rig.link.up(session_present=True, refused=(("in/+", "not_authorized"),))
        rig.clock.quality_now = "unsynced"
        await rig.tick(10)
        return rig.link.published
