"""Rows that cannot be read are given up like others: the count stays, the process goes on."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from edged.store.outward import REASON_MISSING, OutwardStore
from tests.unit.store.homeward import Gateway, gateway

pytestmark = pytest.mark.allow_blocking(reason="the uplink is another process; here it reads between two steps")


def spoil(folder: Path, column: str, batches: str) -> None:
    """Through a connection of its own, while the store is open."""
    connection = apsw.Connection(str(folder / "store.db"))
    connection.set_busy_timeout(5_000)
    connection.execute(f"UPDATE journal SET {column} = x'0102' WHERE batch IN ({batches})")
    connection.close()


async def overfilled(made: Gateway, units: int = 200) -> None:
    for _ in range(units):
        await made.unit()


async def test_results_that_cannot_be_read_are_counted_but_in_no_summary(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "result")
    for _ in range(10):
        await made.unit()
    spoil(tmp_path, "results", "2, 3")
    await overfilled(made)
    outward = OutwardStore(tmp_path)
    told = summarised = 0
    while (piece := outward.piece("result", told + 1, 1000)) is not None and piece.lost is not None:
        assert piece.lost.reason == "budget"
        told = piece.last
        summarised += sum(row.n for row in piece.lost.summary)
    assert told > 50
    assert summarised == told - 10
    outward.close()
    await made.journal.close()


async def test_records_that_cannot_be_read_are_missing_and_those_around_them_are_not(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "result", "health")
    for _ in range(10):
        await made.unit(health=2)
    spoil(tmp_path, "notices", "2, 3")
    await overfilled(made)
    outward = OutwardStore(tmp_path)
    reasons: list[str] = []
    seq = 1
    while (piece := outward.piece("health", seq, 1000)) is not None:
        assert piece.lost is not None
        reasons += [piece.lost.reason] * (piece.last - seq + 1)
        seq = piece.last + 1
    assert reasons == ["budget"] * 2 + [REASON_MISSING] * 4 + ["budget"] * 14
    outward.close()
    await made.journal.close()


async def test_a_row_whose_records_cannot_be_read_is_never_taken_for_free(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "result", "health", budget_bytes=10_000_000, keep_bytes=1)
    for _ in range(20):
        await made.unit(health=1)
    spoil(tmp_path, "notices", "5")
    await made.delivered()
    made.all_home()
    await made.trimmed(50)
    assert made.rows("SELECT batch FROM journal ORDER BY batch") == [(5,), (20,)]
    await made.journal.close()


async def test_after_a_transaction_that_came_to_nothing_every_place_is_looked_up_again(tmp_path: Path) -> None:
    made = await gateway(tmp_path, "result", "telemetry")
    await overfilled(made)
    lost = made.tombstones("result")
    made.journal._committer.rolled_back()
    await overfilled(made, 50)
    again = made.tombstones("result")
    assert again[: len(lost) - 1] == lost[:-1]
    assert [first for first, *_ in again[1:]] == [int(str(last)) + 1 for _, last, _ in again[:-1]]
    await made.journal.close()
