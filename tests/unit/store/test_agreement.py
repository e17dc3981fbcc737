"""What `edged store verify` says of tables beside the journal that do not agree with it."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from edged.cli.main import run
from edged.errors import ExitCode
from edged.store import inspection
from tests.fault.store.outside import Making, aged, current


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A store at rest with losses, summaries, records and surroundings of alarms."""
    await aged(tmp_path)
    return tmp_path


def change(folder: Path, statement: str) -> None:
    with closing(apsw.Connection(str(folder / "store.db"))) as connection:
        connection.execute(statement)
        assert connection.total_changes()


def test_a_store_whose_tables_agree_is_said_to_be_so(folder: Path) -> None:
    verdict = inspection.verify(folder)
    assert (verdict.problems, verdict.holes) == ([], [])


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        (
            "INSERT INTO tombstone SELECT id + 1000, stream, first, last, n, 'damage', 0 FROM tombstone LIMIT 1",
            "an earlier one stands for numbers of it",
        ),
        ("UPDATE tombstone SET n = n + 1 WHERE id = (SELECT min(id) FROM tombstone)", "says "),
        ("INSERT INTO aggregate SELECT 9999, interval_s, n, data FROM aggregate LIMIT 1", "there is no tombstone"),
        ("UPDATE aggregate SET data = x'0100'", "reading a stored blob"),
        ("UPDATE aggregate SET interval_s = 7", "in intervals of 7 s"),
        ("UPDATE record SET batch = batch + 1 WHERE stream = 'alarm'", "record alarm"),
        ("DELETE FROM record WHERE stream = 'health'", "is not in the table of records"),
        ("UPDATE protected SET last_batch = first_batch - 1", "surroundings of an alarm"),
    ],
)
def test_what_does_not_agree_is_named(folder: Path, statement: str, word: str) -> None:
    change(folder, statement)
    verdict = inspection.verify(folder)
    assert any(word in problem for problem in verdict.problems), verdict.problems
    assert run(["store", "verify", "--state-dir", str(folder)]) == ExitCode.IO


def test_a_store_that_only_a_former_program_has_used_is_verified_without_them(folder: Path) -> None:
    change(
        folder, "DELETE FROM record; DROP TABLE record; DROP TABLE aggregate; DROP TABLE protected; DROP TABLE start"
    )
    assert inspection.verify(folder).ok
    assert inspection.stats(folder)["unsent"] == {}


async def test_stats_say_what_waits_what_is_kept_and_how_long_there_is_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = await current(tmp_path)
    making = Making(store)
    making.arrived("result", 100)
    await making.make(60, alarm_every=7)
    await store.journal.close()
    facts = await asyncio.to_thread(inspection.stats, tmp_path)
    assert facts["unsent"]["result"] == 500
    assert facts["unsent"]["alarm"] == making.next["alarm"] - 1
    assert facts["unsent"]["health"] == making.next["health"] - 1
    assert facts["protected_bytes"] > 0
    assert facts["bytes_per_day"] > 86_400 * 1000, "a row of more than a kilobyte each second"
    assert 0 < facts["days_of_room"] < 0.1
    assert await asyncio.to_thread(run, ["store", "stats", "--state-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "MB a day now; room for about 0.0 days" in out
    assert "500 of result" in out
    assert await asyncio.to_thread(run, ["store", "stats", "--state-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts
