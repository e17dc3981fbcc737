"""What `edged store` says of a store at rest. Beside a running daemon: tests/integration/store."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from edged.cli.main import run
from edged.errors import ExitCode, StoreCorrupt, StoreError
from edged.store import inspection
from tests.unit.store.plant import fill, flip, opened


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A store at rest with 300 rows, of which the oldest were given up."""
    store = await opened(tmp_path / "state", budget_bytes=2_000_000)
    await fill(store, 600, 10, noise=200)
    await store.journal.close()
    return tmp_path / "state"


def test_stats_are_the_same_for_people_and_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = inspection.stats(folder)
    assert run(["store", "stats", "--state-dir", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts
    assert facts["newest"]["result_first"] == 5991
    assert facts["results"] == 6000 - facts["oldest"]["result_first"] + 1
    assert {tombstone["stream"] for tombstone in facts["tombstones"]} == {"event", "result"}
    assert facts["file_bytes"] <= 2_000_000
    assert run(["store", "stats", "--state-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"results  {facts['results']} from {facts['oldest']['result_first']}" in out
    assert "given up" in out


@pytest.fixture
async def empty(tmp_path: Path) -> Path:
    await (await opened(tmp_path / "state")).journal.close()
    return tmp_path / "state"


def test_stats_of_an_empty_store_say_so(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = inspection.stats(empty)
    assert (facts["oldest"], facts["newest"], facts["events"]) == (None, None, 0)
    assert run(["store", "stats", "--state-dir", str(empty)]) == 0
    assert "empty" in capsys.readouterr().out


def test_verify_reads_every_row_and_tells_how_far_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    verdict = inspection.verify(folder, on_rows=told.append)
    assert verdict.ok
    assert verdict.results == inspection.stats(folder)["results"]
    assert told[-1] == verdict.rows
    assert run(["store", "verify", "--quick", "--state-dir", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("results read\nok\n")


def test_verify_of_a_damaged_store_names_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(folder / "store.db", 200 * 1024, 1024 * 3)
    assert run(["store", "verify", "--state-dir", str(folder)]) == ExitCode.IO
    out = capsys.readouterr().out
    assert "damaged: " in out
    assert out.rstrip().endswith("salvages the rest")
    assert run(["store", "verify", "--state-dir", str(folder), "--json"]) == ExitCode.IO
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_verify_names_missing_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = apsw.Connection(str(folder / "store.db"))
    connection.execute("DELETE FROM journal WHERE batch = 590")
    connection.close()
    assert run(["store", "verify", "--state-dir", str(folder)]) == ExitCode.IO
    assert "missing: result 5891 to 5900" in capsys.readouterr().out


def test_a_folder_without_a_store_is_an_error_with_a_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["store", "verify", "--state-dir", str(tmp_path)]) == ExitCode.IO
    assert "--state-dir" in capsys.readouterr().err
    (tmp_path / "store.db").touch()
    with pytest.raises(StoreError, match="there is none"):
        inspection.stats(tmp_path)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"x" * 3000)
    with pytest.raises(StoreError, match="Reading"):
        inspection.stats(tmp_path)
    with pytest.raises(StoreCorrupt, match="not a database"):
        inspection.verify(tmp_path)


def test_something_that_cannot_be_read_as_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreError, match="as the user of the daemon"):
        inspection.stats(tmp_path)
