"""What an analyst reads: times that were corrected, and payloads that never fail a query."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edged.hub.ports import Batch, Database
from edged.messages import ResultContext
from tests.integration.hub_database.samples import (
    BOOT,
    NOW_MS,
    ask,
    header,
    record_rows,
    records,
    result_rows,
    results,
    telemetry_rows,
)

UNSYNCED = ResultContext("pump", "m", "3", "", "rules", "normal", False, "unsynced", BOOT)
ARRIVAL = ResultContext("pump", "m", "3", "", "rules", "normal", False, "unsynced", BOOT, True)
HOLDOVER = ResultContext("pump", "m", "3", "", "rules", "normal", False, "holdover", BOOT, True)
SYNCED = ResultContext("pump", "m", "3", "", "rules", "normal", False, "synced", BOOT, True)
OTHER_BOOT = ResultContext("pump", "m", "3", "", "rules", "normal", False, "unsynced", "boot-7", True)

ROW_MS = 5_000  # wall time of a sample row 0, which is 5 s after 1970, at monotonic time 0
RIGHT_MS = 1_800_000_000_000  # what the wall should have shown at monotonic time 0
STEP_MS = 60_000


def _clock(mono_ms: int, wall_ms: int, boot: str = BOOT) -> dict[str, Any]:
    return {
        "v": "edged.clock/1", "boot": boot, "wall_ms": wall_ms, "mono_ns": mono_ms * 1_000_000,
        "offset_ns": (wall_ms - mono_ms) * 1_000_000, "err_ns": 1_000,
    }  # fmt: skip


def _ms(said: Any) -> int | None:
    if said is None:
        return None
    when = datetime.fromisoformat(said) if isinstance(said, str) else said
    return round((when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


async def _results(database: Database, first: int, context: ResultContext, **columns: Any) -> None:
    """Ten results at monotonic times first * 1 ms, made while the wall stood in 1970."""
    rows = result_rows(first, first + 9, (context,))
    rows.ts = [ROW_MS + seq for seq in range(first, first + 10)]
    rows.produced = [ROW_MS + seq for seq in range(first, first + 10)]
    for name, value in columns.items():
        setattr(rows, name, value)
    await database.commit(results(first, first + 9, rows=rows))


async def _corrected(url: str) -> dict[int, tuple[int | None, int | None, int | None]]:
    found = await ask(url, "SELECT seq, ts, ts_corrected, produced_corrected FROM results ORDER BY seq")
    return {seq: (_ms(ts), _ms(corrected), _ms(produced)) for seq, ts, corrected, produced in found}


async def test_times_of_a_wrong_clock_are_corrected_beside_what_was_said(database: Database, url: str) -> None:
    await _results(database, 1, ARRIVAL)
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS + 1_000))]))

    for seq, times in (await _corrected(url)).items():
        assert times == (ROW_MS + seq, RIGHT_MS + seq, RIGHT_MS + seq)


async def test_the_order_in_which_rows_and_corrections_arrive_does_not_matter(database: Database, url: str) -> None:
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS + 1_000))]))
    await _results(database, 1, ARRIVAL)

    assert (await _corrected(url))[1] == (ROW_MS + 1, RIGHT_MS + 1, RIGHT_MS + 1)


async def test_a_sensors_own_time_is_not_corrected(database: Database, url: str) -> None:
    await _results(database, 1, UNSYNCED)
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS + 1_000))]))

    assert (await _corrected(url))[1] == (ROW_MS + 1, ROW_MS + 1, RIGHT_MS + 1)


async def test_a_time_of_arrival_is_known_by_its_reason_too(database: Database, url: str) -> None:
    await _results(database, 1, UNSYNCED, reasons=[("deadline_missed", "ts_arrival")] * 10)
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS + 1_000))]))

    assert (await _corrected(url))[1] == (ROW_MS + 1, RIGHT_MS + 1, RIGHT_MS + 1)


async def test_without_a_correction_of_its_boot_a_wrong_time_stays_unknown(database: Database, url: str) -> None:
    await _results(database, 1, OTHER_BOOT)
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS + 1_000))]))

    assert (await _corrected(url))[1] == (ROW_MS + 1, None, None)


async def test_what_was_made_while_the_clock_was_right_is_left_alone(database: Database, url: str) -> None:
    await _results(database, 1, SYNCED)
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS + 1_000))]))

    assert (await _corrected(url))[1] == (ROW_MS + 1,) * 3


async def test_a_later_correction_counts_for_what_was_made_after_it(database: Database, url: str) -> None:
    first, step = _clock(4, RIGHT_MS + 4), _clock(8, RIGHT_MS + STEP_MS + 8)
    await database.commit(records(1, [("clock", step), ("clock", first), ("clock", first)]))
    await _results(database, 1, HOLDOVER)

    corrected = {seq: times[1] for seq, times in (await _corrected(url)).items()}
    assert corrected == {seq: RIGHT_MS + seq + (STEP_MS if seq >= 8 else 0) for seq in range(1, 11)}


async def test_corrections_of_another_gateway_with_the_same_boot_do_not_count(database: Database, url: str) -> None:
    await database.commit(records(1, [("clock", _clock(1_000, RIGHT_MS))], gateway="gw-2"))
    await _results(database, 1, ARRIVAL)

    assert (await _corrected(url))[1][1] is None


async def test_a_correction_that_says_nothing_is_only_a_record(database: Database, url: str) -> None:
    nonsense = [{}, {"boot": 7}, _clock(1, 2) | {"offset_ns": 2**63}, _clock(1, 2) | {"boot": "\0"}, [1], b"7"]
    await database.commit(records(1, [("clock", said) for said in nonsense]))

    assert await ask(url, "SELECT count(*) FROM clocks") == [(0,)]
    # the one with a NUL would fail a query: it is set aside
    assert await ask(url, "SELECT count(*) FROM records WHERE kind = 'clock'") == [(5,)]


async def test_telemetry_and_records_are_corrected_the_same_way(database: Database, url: str) -> None:
    await database.commit(Batch(header(1, 2, "telemetry"), telemetry_rows(1, 2, clock="unsynced", flags=1), None))
    await database.commit(Batch(header(3, 3, "telemetry"), telemetry_rows(3, 3, clock="unsynced"), None))
    said = [("mode", {"mode": "normal"}), ("clock", _clock(1, RIGHT_MS + 1))]
    await database.commit(records(1, said, clock="unsynced"))

    found = await ask(url, "SELECT seq, ts, ts_corrected FROM telemetry ORDER BY seq")
    assert [(seq, _ms(ts), _ms(corrected)) for seq, ts, corrected in found] == [
        (1, NOW_MS + 1, RIGHT_MS + 1),
        (2, NOW_MS + 2, RIGHT_MS + 2),
        (3, NOW_MS + 3, NOW_MS + 3),
    ]
    [(ts, corrected)] = await ask(url, "SELECT ts, ts_corrected FROM modes")
    assert (_ms(ts), _ms(corrected)) == (NOW_MS, RIGHT_MS + 1_000)


async def test_records_of_each_kind_have_a_view_with_their_fields(database: Database, url: str) -> None:
    alarm = {
        "v": "edged.alarm/1", "device": "hall-1", "code": "bearing", "state": "active", "severity": "high",
        "since": "2026-09-21T14:13:20.000Z", "ts": "2026-09-21T14:13:21.000Z", "pipeline": "pump",
        "label": "bearing", "score": 0.875,
    }  # fmt: skip
    gap = {"device": None, "from": 3, "to": 5, "count": 3, "kind": "sequence", "ts": "2026-09-21T14:13:20.000Z"}
    mode = {"mode": "offline", "since": "2026-09-21T14:13:20.000Z", "reasons": [{"code": "broker_away"}]}
    await database.commit(records(1, [("alarm", alarm)], "alarm"))
    await database.commit(records(1, [("gap", gap), ("mode", mode), ("damage", {"rows": 7})]))

    fields = "device, code, state, severity, since, event_ts, pipeline, label, score"
    [(*text, since, event_ts, pipeline, label, score)] = await ask(url, f"SELECT {fields} FROM alarms")
    assert text == ["hall-1", "bearing", "active", "high"]
    assert (_ms(since), _ms(event_ts)) == (NOW_MS, NOW_MS + 1000)
    assert (pipeline, label, score) == ("pump", "bearing", 0.875)
    assert await ask(url, "SELECT device, kind, from_seq, to_seq, count FROM gaps") == [(None, "sequence", 3, 5, 3)]
    [(name, since, reasons)] = await ask(url, "SELECT mode, since, reasons FROM modes")
    assert (name, _ms(since)) == ("offline", NOW_MS)
    assert "broker_away" in reasons
    assert await ask(url, "SELECT stream, seq, kind FROM records ORDER BY stream, seq") == [
        ("alarm", 1, "alarm"), ("health", 1, "gap"), ("health", 2, "mode"), ("health", 3, "damage"),
    ]  # fmt: skip


@pytest.mark.parametrize("payload", [{"ts": "no time", "since": 7, "score": "high", "from": "x", "to": 1e300}, [], 7])
async def test_a_payload_that_says_nonsense_fails_no_query(database: Database, url: str, payload: Any) -> None:
    good = {"device": "hall-1", "from": 3, "to": 5, "count": 3, "mode": "normal"}
    said = [("alarm", payload), ("gap", payload), ("mode", payload), ("gap", good)]
    await database.commit(Batch(header(1, 4, "health"), record_rows(said), None))

    assert len(await ask(url, "SELECT * FROM alarms")) == 1
    assert len(await ask(url, "SELECT * FROM modes")) == 1
    assert len(await ask(url, "SELECT * FROM gaps")) == 2


async def test_the_farthest_times_and_numbers_that_are_taken_fail_no_view(database: Database, url: str) -> None:
    rows = result_rows(1, 4, (ARRIVAL,))
    rows.ts = [-62_135_596_800_000, 32_503_680_000_000, 0, -1]
    rows.produced = rows.ts[::-1]
    rows.mono_ns = [2**61, -(2**61), 0, 1]
    rows.queue_us = rows.infer_us = [2**61, -(2**61), 0, 0]
    far = _clock(1, 1) | {"offset_ns": 2**61}
    ack = await database.commit(results(1, 4, rows=rows))
    await database.commit(records(1, [("clock", far)]))

    assert ack.bad == ()
    assert len(await ask(url, "SELECT * FROM results")) == 4
