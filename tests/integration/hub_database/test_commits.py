"""Batches become rows exactly once, whatever comes again, overlaps, or is out of order."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from edged.hub.database.opening import open_database
from edged.hub.ports import Batch, Database, StreamBooks
from edged.publish.result_json import ResultEncoder
from edged.sync.protocol import Cursor, StreamExtent
from tests.integration.hub_database.samples import (
    BOOT,
    EPOCH,
    GATEWAY,
    SITE,
    SUMMARY,
    ask,
    header,
    hello,
    lost,
    numbers,
    record_rows,
    records,
    result_rows,
    results,
    telemetry_rows,
)


def _instant(said: object) -> str:
    """As in a payload: PostgreSQL has a type for it, SQLite gives the text."""
    return said if isinstance(said, str) else f"{said:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _json(said: object) -> object:
    return json.loads(said) if isinstance(said, str) else said


async def test_the_view_results_has_every_field_of_what_was_published(database: Database, url: str) -> None:
    rows = result_rows(1, 40)
    await database.commit(results(1, 40, rows=rows))

    published = ResultEncoder("R", SITE, GATEWAY, EPOCH, expiry_s=1).encode(1, rows)
    found = await ask(
        url,
        "SELECT id, site, gateway, device, pipeline, model, model_version, model_sha256, runtime, ts, produced, seq,"
        " epoch, boot, mono_ns, clock, input_topic, input_seq, age_ms, label, score,"
        ' "values", queue_ms, infer_ms, total_ms,'
        " quality, quality_reasons, mode, degraded, input_event FROM results ORDER BY seq",
    )

    assert len(found) == 40
    for sent, row in zip(published, found, strict=True):
        (
            id_, site, gateway, device, pipeline, model, version, sha256, runtime, ts, produced, seq, epoch, boot,
            mono_ns, clock, topic, in_seq, age_ms, label, score, values, queue, infer, total, quality, reasons, mode,
            degraded, event,
        ) = row  # fmt: skip
        when = _instant(ts)
        assert json.loads(sent.payload) == {
            "v": "edged.result/1", "id": id_, "site": site, "gateway": gateway, "device": device, "pipeline": pipeline,
            "model": model, "model_version": version, "model_sha256": sha256, "runtime": runtime, "ts": when,
            "produced": _instant(produced), "seq": seq, "epoch": epoch, "boot": boot, "mono_ns": mono_ns,
            "clock": clock, "input": {"topic": topic, "seq": in_seq, "ts": when, "age_ms": age_ms}, "label": label,
            "score": score, "values": _json(values), "latency_ms": {"queue": queue, "infer": infer, "total": total},
            "quality": quality, "quality_reasons": _json(reasons), "mode": mode, "degraded": bool(degraded),
            "historical": False,
        }  # fmt: skip
        assert event == seq * 8


async def test_the_same_batch_again_changes_nothing_and_gets_the_same_answer(database: Database, url: str) -> None:
    first = await database.commit(results(1, 10))
    books = await database.books()

    again = await database.commit(results(1, 10))

    assert again == first
    assert (first.status, first.upto, first.ranges, first.receiver) == ("ok", 10, (), database.receiver)
    assert await database.books() == books == [StreamBooks(SITE, GATEWAY, EPOCH, "result", 10, 0, 0, 0)]
    assert await numbers(url) == list(range(1, 11))


async def test_batches_with_other_boundaries_add_only_what_is_missing(database: Database, url: str) -> None:
    await database.commit(results(5, 8))
    await database.commit(results(12, 14))

    ack = await database.commit(results(3, 20))

    assert (ack.upto, ack.ranges) == (0, ((3, 20),))
    assert await numbers(url) == list(range(3, 21))
    ack = await database.commit(results(1, 4))
    assert (ack.upto, ack.ranges) == (20, ())
    assert await numbers(url) == list(range(1, 21))


@pytest.mark.parametrize("seed", range(4))
async def test_any_schedule_over_several_workers_ends_with_exactly_the_rows_that_were_made(
    database: Database, url: str, seed: int
) -> None:
    """Three workers, every number at least twice, random boundaries, rows and tombstones for different numbers."""
    chance = random.Random(seed)
    made, gone = 400, {range(101, 141), range(300, 311)}
    dead = {seq for part in gone for seq in part}
    batches: list[Batch] = []
    for _ in range(2):
        at = 1
        while at <= made:
            part = next((part for part in gone if at in part), None)
            limit = part[-1] if part else min((p[0] - 1 for p in gone if p[0] > at), default=made)
            last = min(limit, at + chance.randrange(1, 40))
            batches.append(lost(at, last) if part else results(at, last))
            at = last + 1
    for _ in range(15):
        at = chance.randrange(1, 90)
        batches.append(results(at, at + chance.randrange(10)))
    chance.shuffle(batches)
    workers = [database, await open_database(url), await open_database(url)]
    try:
        waiting = [chance.choice(workers).commit(batch) for batch in batches]
        answers = await asyncio.gather(*waiting)
    finally:
        for worker in workers[1:]:
            await worker.close()

    assert {answer.status for answer in answers} == {"ok"}
    assert await numbers(url) == [seq for seq in range(1, made + 1) if seq not in dead]
    stones = await ask(url, "SELECT seq, last_seq FROM tombstones ORDER BY seq")
    assert [seq for first, last in stones for seq in range(first, last + 1)] == sorted(dead)
    assert await database.books() == [StreamBooks(SITE, GATEWAY, EPOCH, "result", made - len(dead), len(dead), 0, 0)]
    final = await database.commit(results(1, 1))
    assert (final.upto, final.ranges) == (made, ())


async def test_many_gateways_at_once_get_books_of_their_own(database: Database, url: str) -> None:
    other = await open_database(url)
    batches = [results(1, 20, gateway=f"gw-{i}", epoch=epoch) for i in range(8) for epoch in ("e1", "e2")]
    try:
        await asyncio.gather(*((database if i % 2 else other).commit(batch) for i, batch in enumerate(batches)))
    finally:
        await other.close()

    books = await database.books()
    assert [(b.gateway, b.epoch, b.rows) for b in books] == [(f"gw-{i}", e, 20) for i in range(8) for e in ("e1", "e2")]


async def test_a_lost_range_becomes_tombstones_where_rows_are_missing(database: Database, url: str) -> None:
    await database.commit(results(4, 6))

    ack = await database.commit(lost(1, 10, summary=(SUMMARY,)))

    assert (ack.upto, ack.ranges, ack.bad) == (10, (), ())
    stones = await ask(
        url, "SELECT seq, last_seq, rows, reason, summary_first, summary_last FROM tombstones ORDER BY 1"
    )
    assert stones == [(1, 3, 3, "budget", 1, 10), (7, 10, 4, "budget", 1, 10)]
    kept = await ask(url, 'SELECT seq, last_seq, name, device, n, worst, score_mean, "values", labels FROM summaries')
    assert [(*row[:7], _json(row[7]), _json(row[8])) for row in kept] == [
        (1, 10, "pump", "hall-1", 60, 64, 0.5, {"rms": [60, 1.0, 3.0, 2.0]}, {"ok": 60})
    ]
    assert await database.books() == [StreamBooks(SITE, GATEWAY, EPOCH, "result", 3, 7, 0, 0)]
    assert await database.commit(lost(1, 10, summary=(SUMMARY,))) == ack


async def test_rows_that_come_after_their_tombstone_are_counted_and_not_taken(database: Database, url: str) -> None:
    await database.commit(lost(3, 5))

    ack = await database.commit(results(1, 8))
    again = await database.commit(results(4, 4))

    assert ack.upto == again.upto == 8
    assert await numbers(url) == [1, 2, 6, 7, 8]
    assert await ask(url, "SELECT rows, tombstoned, late FROM ledger") == [(5, 3, 4)]


async def test_what_is_said_in_hello_to_be_made_is_missing_until_it_is_home(database: Database, url: str) -> None:
    await database.commit(results(1, 10))

    await database.hello(hello(StreamExtent(EPOCH, "result", 1, 101), StreamExtent(EPOCH, "alarm", 7, 9)))

    missing = {book.stream: book.missing for book in await database.books()}
    assert missing == {"result": 90, "alarm": 2}
    await database.commit(lost(11, 100))
    assert {book.stream: book.missing for book in await database.books()} == {"result": 0, "alarm": 2}
    assert await ask(url, "SELECT made FROM ledger WHERE stream = 'result'") == [(100,)]


async def test_a_smaller_base_is_believed_and_its_rows_are_missing(database: Database) -> None:
    await database.commit(results(10, 12, base=10))

    ack = await database.commit(results(11, 12, base=5))

    assert (ack.upto, ack.ranges) == (4, ((10, 12),))
    assert (await database.hello(hello())).cursors == (Cursor(EPOCH, "result", 4, ((10, 12),)),)
    assert (await database.books())[0].missing == 5
    assert (await database.commit(results(5, 9, base=9))).upto == 0


async def test_too_many_holes_make_a_batch_wait_until_some_are_filled(database: Database) -> None:
    for seq in range(2, 514, 2):
        assert (await database.commit(results(seq, seq))).status == "ok"

    ack = await database.commit(results(514, 514))

    assert (ack.status, ack.reason, ack.retry_ms > 0) == ("retry", "busy", True)
    assert (await database.commit(results(1, 511))).upto == 512
    assert (await database.commit(results(514, 514))).ranges == ((514, 514),)


async def test_batches_that_can_never_fit_are_rejected_and_leave_nothing(database: Database) -> None:
    short = result_rows(1, 3)
    uneven = result_rows(1, 4)
    uneven.device.pop()
    answers = [
        await database.commit(results(1, 4, epoch="nul\0")),
        await database.commit(results(1, 4, gateway="x" * 129)),
        await database.commit(results(1, 4, base=2)),
        await database.commit(results(1, 4, rows=short)),
        await database.commit(results(1, 4, rows=uneven)),
        await database.commit(Batch(header(2**60, 2**60 + 1, base=1), result_rows(1, 2), None)),
    ]

    assert [(answer.status, answer.reason) for answer in answers] == [
        ("reject", "bad_header"), ("reject", "bad_header"), ("reject", "before_base"), ("reject", "bad_body"),
        ("reject", "bad_body"), ("reject", "bad_header"),
    ]  # fmt: skip
    assert await database.books() == []


async def test_each_stream_ends_in_its_own_table(database: Database, url: str) -> None:
    await database.commit(Batch(header(1, 3, "telemetry"), telemetry_rows(1, 3), None))
    alarm = {"device": "hall-1", "code": "bearing", "state": "active"}
    await database.commit(records(1, [("alarm", alarm)], "alarm"))
    await database.commit(Batch(header(1, 1, "health"), record_rows([("mode", {"mode": "normal"})]), None))

    assert await numbers(url, "telemetry") == [1, 2, 3]
    payloads = [row[0] for row in await ask(url, "SELECT payload FROM telemetry ORDER BY seq")]
    assert payloads[0] == '{"rms": 1.50, "name":"ä"}', "as it came, to the byte"
    assert await ask(url, "SELECT device, code, state FROM alarms") == [("hall-1", "bearing", "active")]
    assert await ask(url, "SELECT mode, boot FROM modes") == [("normal", BOOT)]
    assert {book.stream for book in await database.books()} == {"telemetry", "alarm", "health"}


async def test_books_that_were_lost_alone_do_not_stop_what_comes_again(database: Database, url: str) -> None:
    """Somebody set a stream back to its beginning by hand, and left everything else where it was."""
    bad = result_rows(1, 3)
    bad.device[1] = "\0"
    said = {"boot": BOOT, "wall_ms": 1, "mono_ns": 1, "offset_ns": 1}
    batches = [results(1, 3, rows=bad), lost(4, 6, summary=(SUMMARY,)), records(1, [("clock", said)])]
    for batch in batches:
        await database.commit(batch)
    await ask(url, "UPDATE stream SET upto = 0, newest = 0, rows = 0, tombstoned = 0, quarantined = 0")

    answers = [await database.commit(batch) for batch in batches]

    assert [answer.upto for answer in answers] == [3, 6, 1]
    assert await numbers(url) == [1, 3]
    assert await ask(url, "SELECT seq, last_seq FROM tombstones") == [(4, 6)]
    assert await ask(url, "SELECT count(*) FROM clocks") == [(1,)]
