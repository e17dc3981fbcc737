"""A row that no column takes is set aside with its reason, whole, and keeps nobody waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from edged.hub.database.opening import open_database
from edged.hub.ports import Batch, Database
from edged.messages import RecordColumns, ResultColumns, ResultContext, TelemetryColumns
from edged.sync.protocol import BadRow, Lost, SummaryRow
from tests.integration.hub_database.conftest import CONNECTING
from tests.integration.hub_database.samples import (
    ask,
    header,
    numbers,
    record_rows,
    result_rows,
    results,
    telemetry_rows,
)

FOREIGN = ResultContext("pump\0", "m", "1", "", "rules", "normal", False, "synced", "b")
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def _set(name: str, value: Any) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        getattr(rows, name)[1] = value

    return change


def _foreign_context(rows: ResultColumns) -> None:
    rows.contexts.append(FOREIGN)
    rows.context[1] = 1


HOSTILE_RESULTS = [
    ("device", "hall\0", "text_nul"),
    ("device", "half \ud800", "text_surrogate"),
    ("device", None, "wrong_type"),
    ("device", ["a"], "wrong_type"),
    ("label", "\0", "text_nul"),
    ("label", 7, "wrong_type"),
    ("event_seq", 2**63, "number_range"),
    ("in_seq", -(2**70), "number_range"),
    ("in_seq", "7", "wrong_type"),
    ("in_seq", True, "wrong_type"),
    ("ts", 9_404_640_000_000_000, "number_range"),  # the year 300000
    ("ts", 1.5, "wrong_type"),
    ("produced", -(10**17), "number_range"),
    ("mono_ns", 2**62, "number_range"),
    ("queue_us", 2**62, "number_range"),
    ("quality", 40_000, "number_range"),
    ("score", float("inf"), "not_finite"),
    ("score", float("nan"), "not_finite"),
    ("score", 1, "wrong_type"),
    ("values", {"rms": float("-inf")}, "not_finite"),
    ("values", {"rms": [1.0, float("nan")]}, "not_finite"),
    ("values", {"rms": None}, "wrong_type"),
    ("values", {"rms": [None]}, "wrong_type"),
    ("values", {"rms\0": 1.0}, "text_nul"),
    ("values", {"rms\ud800": 1.0}, "text_surrogate"),
    ("values", [1.0], "wrong_type"),
    ("reasons", ("nul\0",), "text_nul"),
    ("reasons", [], "wrong_type"),
    ("context", 1, "number_range"),
    ("context", -1, "number_range"),
]


@pytest.mark.parametrize(("name", "value", "reason"), HOSTILE_RESULTS, ids=lambda value: ascii(value)[:24])
async def test_a_result_that_fits_no_column_is_set_aside_and_its_neighbours_are_rows(
    database: Database, url: str, name: str, value: Any, reason: str
) -> None:
    rows = result_rows(1, 3)
    getattr(rows, name)[1] = value

    ack = await database.commit(results(1, 3, rows=rows))

    assert (ack.status, ack.upto, ack.bad) == ("ok", 3, (BadRow(2, reason),))
    assert await numbers(url) == [1, 3]
    [(seq, why, raw)] = await ask(url, "SELECT seq, reason, raw FROM quarantined")
    assert (seq, why) == (2, reason)
    assert json.loads(raw)["topic"] == rows.topic[1]
    [books] = await database.books()
    assert (books.rows, books.quarantined, books.missing) == (2, 1, 0)
    assert await database.commit(results(1, 3, rows=rows)) == ack, "again the same answer, with what was set aside"


async def test_a_context_that_no_column_takes_sets_aside_the_rows_that_name_it(database: Database, url: str) -> None:
    rows = result_rows(1, 3)
    _foreign_context(rows)

    ack = await database.commit(results(1, 3, rows=rows))

    assert ack.bad == (BadRow(2, "bad_context"),)
    assert await numbers(url, "results") == [1, 3]
    [(raw,)] = await ask(url, "SELECT raw FROM quarantine")
    assert json.loads(raw)["context"][0] == "pump\0"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"a":"\\u0000"}', "text_nul"),
        (b'{"a":"\\ud800"}', "bad_json"),
        (b'{"a":', "bad_json"),
        (b'{"a":"\xff"}', "bad_json"),
        (DEEP, "bad_json"),
        ("text", "wrong_type"),
    ],
    ids=["nul", "surrogate", "cut", "not utf-8", "deep", "no bytes"],
)
async def test_a_payload_that_would_fail_everybodys_query_is_set_aside(
    database: Database, url: str, payload: Any, reason: str
) -> None:
    rows: TelemetryColumns | RecordColumns
    for stream, rows in (("telemetry", telemetry_rows(1, 3)), ("health", record_rows([("mode", {})] * 3))):
        rows.payload[1] = payload
        ack = await database.commit(Batch(header(1, 3, stream), rows, None))
        assert ack.bad == (BadRow(2, reason),)

    assert await numbers(url, "telemetry") == await numbers(url, "modes") == [1, 3]


async def test_a_backslash_before_u0000_is_only_text(database: Database, url: str) -> None:
    rows = telemetry_rows(1, 1)
    rows.payload[0] = b'{"a":"\\\\u0000 \\u00e4"}'

    ack = await database.commit(Batch(header(1, 1, "telemetry"), rows, None))

    assert ack.bad == ()
    assert await ask(url, "SELECT payload FROM telemetry") == [('{"a":"\\\\u0000 \\u00e4"}',)]


async def test_a_batch_of_nothing_but_bad_rows_is_home_and_names_only_some_of_them(database: Database) -> None:
    rows = result_rows(1, 3000)
    rows.device = ["\0"] * 3000

    ack = await database.commit(results(1, 3000, rows=rows))

    assert (ack.status, ack.upto, len(ack.bad)) == ("ok", 3000, 200)
    assert (await database.books())[0].quarantined == 3000


async def test_a_row_whose_place_is_taken_is_found_and_set_aside_alone(database: Database, url: str) -> None:
    """Somebody wrote into the table by hand: the ranges do not know it, the key does."""
    await database.commit(results(1, 1, stream="result"))
    columns = "context_id, event_seq, produced_ms, mono_ns, queue_us, infer_us, quality, device, topic, reasons"
    await ask(
        url,
        f"INSERT INTO result (stream_id, seq, ts, {columns}) SELECT stream_id, 700, "
        + ("ts + 699 * interval '1 millisecond', " if "postgres" in url else "ts + 699, ")
        + f"{columns} FROM result",
    )

    ack = await database.commit(results(2, 1000))

    assert (ack.status, ack.upto, [row.seq for row in ack.bad]) == ("ok", 1000, [700])
    assert ack.bad[0].reason.startswith("refused: ")
    assert await numbers(url) == list(range(1, 1001))
    [books] = await database.books()
    assert (books.rows, books.quarantined, books.missing) == (999, 1, 0)


@pytest.mark.allow_blocking(reason=CONNECTING)
async def test_rows_of_which_the_server_takes_none_are_set_aside_in_bounded_time(postgres_url: str) -> None:
    """A rule of the server's owner that refuses every row: found by halves up to a limit, then set aside whole."""
    await ask(postgres_url, "ALTER TABLE result ADD CHECK (quality > 1000)")
    database = await open_database(postgres_url)
    try:
        ack = await database.commit(results(1, 4000))
    finally:
        await database.close()

    assert (ack.status, ack.upto, len(ack.bad)) == ("ok", 4000, 200)
    assert await ask(postgres_url, "SELECT rows, quarantined, missing FROM ledger") == [(0, 4000, 0)]


async def test_a_summary_row_and_words_that_do_not_fit_never_stop_a_tombstone(database: Database, url: str) -> None:
    good = SummaryRow("pump", "hall-1", 0, 1, 64, None, {}, {})
    bad = SummaryRow("pump\0", "hall-1", 0, 1, 64, None, {}, {})
    late = SummaryRow("pump", "hall-1", 2**60, 1, 64, None, {}, {})
    why = Lost(reason="budget\0" * 90, since_ms=2**62, interval_s=-5, summary=(bad, late, good))

    ack = await database.commit(Batch(header(1, 5, kind="lost", clock="unsynced"), None, why))

    assert ack.upto == 5
    assert await ask(url, "SELECT name, n, ts_corrected FROM summaries") == [("pump", 1, None)]
    [(reason, ts_corrected)] = await ask(url, "SELECT reason, ts_corrected FROM tombstones")
    assert reason.startswith("budget?budget?")
    assert len(reason) <= 200
    assert ts_corrected is None
