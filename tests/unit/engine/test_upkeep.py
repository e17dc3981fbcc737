"""What time brings: gaps, silence, retained values, health, snapshots. And what the daemon says of itself."""

from typing import Any

import msgspec

from edged.engine.devices import Devices
from tests.doubles.engine_rig import ALARM, ROOT, Rig


async def test_a_missing_number_is_reported_once_after_its_grace_and_degrades_the_mode_for_a_while() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    rig.event(4)
    await rig.engine.settled()
    rig.upkeep.tick()
    await rig.engine.settled()
    assert rig.told("gap") == []
    rig.clock.advance_s(1.1)
    rig.upkeep.tick()
    rig.upkeep.tick()
    await rig.engine.settled()
    (gap,) = rig.told("gap")
    assert (gap["device"], gap["from"], gap["to"], gap["count"], gap["kind"]) == ("d1", 1, 3, 3, "sequence")
    assert rig.modes.mode == "degraded"
    rig.clock.advance_s(61)
    rig.upkeep.tick()
    assert rig.modes.mode == "normal"


async def test_a_lost_session_is_a_gap_and_a_first_session_is_not() -> None:
    rig = Rig()
    await rig.start(up=False)
    rig.link.up(session_present=False)
    await rig.engine.settled()
    assert rig.told("gap") == []
    rig.link.down()
    rig.link.up(session_present=False)
    await rig.engine.settled()
    assert [gap["kind"] for gap in rig.told("gap")] == ["session_lost"]


async def test_a_new_device_is_introduced_and_a_silent_one_goes_stale_then_offline_then_comes_back() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    assert [m["device"] for m in rig.told("meta/device/d1")] == ["d1"]
    for seconds in (61, 600):
        rig.clock.advance_s(seconds)
        rig.upkeep.tick()
    rig.event(1)
    await rig.engine.settled()
    rig.delivery.pump()
    assert [m["state"] for m in rig.told("device/d1/state")] == ["online", "stale", "offline", "online"]


def test_devices_beyond_the_limit_are_not_remembered() -> None:
    devices = Devices(stale_ms=10, offline_ms=20, limit=1)
    assert [change.device for change in devices.seen(["a", "b", "a"], 0, 1000)] == ["a"]
    assert devices.counts() == {"online": 1, "stale": 0, "offline": 0}
    assert len(devices) == 1
    assert devices.tick(25)[0].state == "offline"
    assert devices.tick(26) == []


async def test_the_last_value_is_retained_at_most_once_per_interval_and_expires_after_three_periods() -> None:
    rig = Rig()
    await rig.start()
    for seq in range(3):
        rig.event(seq)
    await rig.engine.settled()
    rig.upkeep.tick()
    rig.event(3)
    await rig.engine.settled()
    rig.clock.advance_s(0.5)
    rig.upkeep.tick()
    assert [r["input"]["seq"] for r in rig.told("last/d1/p")] == [2]
    rig.clock.advance_s(3.5)
    rig.upkeep.tick()
    assert [r["input"]["seq"] for r in rig.told("last/d1/p")] == [2, 3]
    assert [item.expiry_s for item in rig.link.published if b"/last/" in item.topic] == [0, 12]


async def test_health_is_published_every_ten_seconds_with_a_beat_that_always_changes() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    for _ in range(3):
        rig.upkeep.tick()
        rig.clock.advance_s(10)
    beats = rig.told("health")
    assert [h["beat"] for h in beats] == [1, 2, 3]
    assert beats[0]["ledger"]["balanced"] is True
    assert beats[0]["ledger"]["inputs"]["p"]["received"] == 1
    rig.link.down()
    rig.upkeep.tick()
    assert len(rig.told("health")) == 3


async def test_status_and_metrics_show_the_same_numbers() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    rig.link.arrive("in/d1", b"{")
    await rig.engine.settled()
    status: dict[str, Any] = rig.report.status()
    msgspec.json.encode(status)
    assert status["link"]["up"] is True
    assert status["pipelines"]["p"]["answered"] == 1
    samples = {(s.name, *s.labels.values()): s.value for s in rig.report.samples()}
    assert samples["edged_events", "p", "received"] == 2
    assert samples["edged_refused", "p", "not_json"] == 1
    assert samples["edged_results_waiting",] == 1
    assert samples["edged_mode", "normal"] == 0 or rig.modes.mode == "normal"


async def test_an_alarm_is_retained_while_active_and_said_once_when_it_clears() -> None:
    rig = Rig(alarms=[ALARM])
    await rig.start()
    for seq, a in enumerate([20.0, 1.0, 1.0]):
        rig.event(seq, a)
        await rig.engine.settled()
        rig.delivery.pump()
    assert [alarm["state"] for alarm in rig.told("alarm/d1/hot")] == ["active", "cleared"]
    empties = [i for i in rig.link.published if i.topic == f"{ROOT}/alarm/d1/hot".encode() and not i.payload]
    assert [i.retain for i in empties] == [True]


async def test_snapshots_are_saved_by_time_and_cursors_when_they_move() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    await rig.engine.settled()
    await rig.snapshots.save_if_due()
    assert saved_events(rig) == []
    rig.link.settle_all()
    await rig.snapshots.save_if_due()
    assert msgspec.json.decode(rig.journal.meta or b"")["sent"] == 1
    rig.clock.advance_s(61)
    await rig.snapshots.save_if_due()
    assert saved_events(rig) == [1]
    await rig.snapshots.save_if_due()


def saved_events(rig: Rig) -> list[int]:
    return [] if rig.journal.snapshot is None else [rig.journal.snapshot[0]]


async def test_the_unsynchronised_clock_is_a_reason_but_no_worse_mode() -> None:
    rig = Rig()
    await rig.start()
    rig.clock.advance_s(100)
    rig.clock.quality_now = "unsynced"
    rig.upkeep.tick()
    assert "clock_unsynced" in rig.modes.state.codes
    rig.event(0)
    await rig.engine.settled()
    assert rig.results()[0]["clock"] == "unsynced"
    body = msgspec.json.decode(rig.modes.payload())
    assert body["mode"] == rig.modes.mode
