"""`edged store stats` and `edged store verify` as an operator runs them: beside the daemon, and on a damaged file."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from edged.errors import ExitCode
from tests.fault.store.outside import aged
from tests.unit.config.conftest import VALID
from tests.unit.store.plant import commit, fill, flip, opened
from tests.unit.store.samples import unit


async def edged(*arguments: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", *(str(argument) for argument in arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def stats(folder: Path) -> dict[str, Any]:
    code, out, err = await edged("store", "stats", "--state-dir", folder, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert isinstance(facts, dict)
    return facts


async def test_stats_of_a_running_store_show_what_was_committed_a_moment_ago(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 4)
    await store.journal.save_snapshot(100, b"state")
    facts = await stats(tmp_path)
    assert (facts["events"], facts["results"]) == (100, 100)
    assert facts["newest"]["batch"] == 4
    assert facts["wal_bytes"] > 0
    assert facts["snapshot"]["event_seq"] == 100
    assert facts["epochs"][0]["epoch"] == store.journal.epoch
    assert (await commit(store.journal, unit(101, 1, 101, 1))).batch == 5
    await store.journal.close()
    assert (await stats(tmp_path))["newest"]["batch"] == 5


async def test_stats_for_people_name_ranges_sizes_and_losses(tmp_path: Path) -> None:
    store = await opened(tmp_path, budget_bytes=400_000)
    code, out, _ = await edged("store", "stats", "--state-dir", tmp_path)
    assert code == 0
    assert "empty" in out
    committed = await fill(store, 200, 10, noise=200)
    lost = sum(c.evicted_results for c in committed)
    code, out, _ = await edged("store", "stats", "--state-dir", tmp_path)
    assert f"given up {lost} of stream result, 1 to {lost}: budget" in out
    assert f"results  {2000 - lost} from {lost + 1}" in out
    await store.journal.close()


async def test_verify_of_a_running_store_reads_every_row_and_does_not_stop_it(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 60)
    verifying = asyncio.ensure_future(edged("store", "verify", "--state-dir", tmp_path, "--json"))
    event = 1501
    while not verifying.done():
        await asyncio.wait_for(commit(store.journal, unit(event, 5, event, 5)), 5)
        event += 5
        await asyncio.sleep(0)
    code, out, err = await verifying
    assert (code, err) == (0, "")
    verdict = json.loads(out)
    assert verdict["ok"]
    assert verdict["rows"] >= 60
    await store.journal.close()


async def test_verify_names_the_damaged_row_and_exits_with_74(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 40, noise=100)
    await store.journal.close()
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    (blob,) = connection.execute("SELECT events FROM journal WHERE batch = 20").fetchone() or (b"",)
    connection.close()
    assert isinstance(blob, bytes)
    flip(path, path.read_bytes().find(blob[1500:1540]) + 20)
    code, out, _ = await edged("store", "verify", "--state-dir", tmp_path)
    assert code == ExitCode.IO
    assert "damaged: row 20:" in out
    flip(path, 2 * 1024 + 8, 900)
    code, out, _ = await edged("store", "verify", "--quick", "--state-dir", tmp_path, "--json")
    assert code == ExitCode.IO
    assert json.loads(out)["problems"]


async def test_verify_tells_missing_numbers_apart_from_those_that_were_given_up(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 10)
    await store.journal.close()
    connection = apsw.Connection(str(tmp_path / "store.db"))
    connection.execute(
        "DELETE FROM journal WHERE batch IN (3, 7);"
        "INSERT INTO tombstone VALUES (1, 'event', 51, 75, 25, 'damage', 0), (2, 'result', 51, 75, 25, 'damage', 0)"
    )
    connection.close()
    code, out, _ = await edged("store", "verify", "--state-dir", tmp_path)
    assert code == ExitCode.IO
    assert [line for line in out.splitlines() if line.startswith("missing")] == [
        "missing: event 151 to 175",
        "missing: result 151 to 175",
    ]


@pytest.mark.parametrize("verb", ["stats", "verify"])
async def test_where_no_store_is_the_verb_says_so_and_makes_none(tmp_path: Path, verb: str) -> None:
    code, out, err = await edged("store", verb, "--state-dir", tmp_path)
    assert code == ExitCode.IO
    assert out == ""
    assert "there is none" in err
    assert "--state-dir" in err
    assert list(tmp_path.iterdir()) == []


async def test_stats_of_something_else_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"x" * 5000)
    code, _, err = await edged("store", "stats", "--state-dir", tmp_path)
    assert code == ExitCode.IO
    assert "Traceback" not in err
    assert "edged store verify says more" in err


async def test_without_a_folder_the_configured_one_is_looked_at(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state")
    await fill(store, 1)
    await store.journal.close()
    (tmp_path / "pump.onnx").write_bytes(b"model")
    (tmp_path / "edged.toml").write_text(VALID, encoding="utf-8")
    code, out, err = await edged("store", "stats", "--config", tmp_path / "edged.toml", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["path"] == str(tmp_path / "state" / "store.db")


async def test_a_gateway_that_is_away_sees_what_waits_what_is_kept_and_that_all_of_it_agrees(tmp_path: Path) -> None:
    making = await aged(tmp_path)
    facts = await stats(tmp_path)
    assert facts["unsent"] == {
        "alarm": making.next["alarm"] - 1,
        "health": making.next["health"] - 3,
        "result": making.result - 151,
    }
    assert facts["tombstone_count"] > 0
    assert facts["summary_rows"] > 0
    assert facts["protected_bytes"] > 0
    assert facts["bytes_per_day"] > 0
    assert facts["days_of_room"] >= 0
    code, out, _ = await edged("store", "stats", "--state-dir", tmp_path)
    assert code == 0
    assert f"{making.result - 151} of result" in out
    assert "MB a day now; room for about" in out
    code, out, _ = await edged("store", "verify", "--state-dir", tmp_path)
    assert (code, out.splitlines()[-1]) == (0, "ok")
