"""One version down and up again: the real former program reads and writes the store; nothing is lost untold."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from edged.store import inspection
from tests.fault.store.outside import BUDGET, Making, aged, current, only, tell

ROOT = Path(__file__).parents[3]
NEW_IN_MESSAGES = "plant: bool = True"  # the first change on the way to schema 2; what was before it is the former one


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the former program."""
    log = ["git", "-C", str(ROOT), "log", "--reverse", "--format=%H", "-S", NEW_IN_MESSAGES, "--", "edged/messages.py"]
    try:
        found = subprocess.run(log, capture_output=True, text=True, check=True).stdout.split()
        archive = ["git", "-C", str(ROOT), "archive", f"{found[0]}^", "edged", "tests/unit", "tests/__init__.py"]
        packed = subprocess.run(archive, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("the former program is not in the history of this checkout")
    tree = tmp_path_factory.mktemp("former")
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(tree, filter="data")
    return tree


async def use(former: Path, folder: Path, units: int) -> dict[str, Any]:
    """Let the former program use the store; returns what it says."""
    script = Path(__file__).with_name("former_process.py")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-P", "-B", str(script), str(folder), str(BUDGET), str(units)],
        env={**os.environ, "PYTHONPATH": str(former)}, cwd=former, capture_output=True, text=True, check=False,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["schema"] == 1
    assert said["module"].startswith(str(former))
    return said


async def test_the_former_program_opens_the_store_and_reads_what_is_in_it(tmp_path: Path, former: Path) -> None:
    making = await aged(tmp_path)
    rows = (await tell(tmp_path))["result"].rows
    said = await use(former, tmp_path, 0)
    assert said["salvage"] == ""
    assert said["warnings"] == []
    assert (said["next_event"], said["next_result"]) == (making.event, making.result)
    assert said["before"] == rows
    assert said["notices"] == only(tmp_path, "SELECT total(notice_n) FROM journal")


async def test_what_the_former_program_gives_up_is_told_when_this_one_is_back(tmp_path: Path, former: Path) -> None:
    making = await aged(tmp_path)
    before = await tell(tmp_path)
    said = await use(former, tmp_path, 150)
    assert said["evicted"] > 0
    store = await current(tmp_path)
    recovered = store.recovered
    assert recovered.salvage is None
    assert recovered.migrated == ()
    assert recovered.epoch == said["epoch"]
    assert (recovered.next_event, recovered.next_result) == (said["end_event"], said["end_result"])
    assert (recovered.next_alarm, recovered.next_health) == (making.next["alarm"], making.next["health"])
    again = Making(store)
    await again.make(30)
    await store.journal.close()
    told = await tell(tmp_path)
    made = {"result": again.result, "alarm": again.next["alarm"], "health": again.next["health"]}
    for stream in ("result", "alarm", "health"):
        assert told[stream].all() == list(range(1, made[stream])), stream
    gone = set(before["result"].rows) - set(said["after"])
    assert gone <= {seq for reason in ("missing", "budget") for seq in told["result"].lost.get(reason, [])}
    assert set(told["result"].lost) <= {"missing", "budget"}
    assert set(before["alarm"].rows) <= set(told["alarm"].all())
    assert only(tmp_path, "SELECT count(*) FROM record WHERE batch NOT IN (SELECT batch FROM journal)") == 0
    assert only(tmp_path, "SELECT count(*) FROM aggregate WHERE tombstone NOT IN (SELECT id FROM tombstone)") == 0
    verdict = await asyncio.to_thread(inspection.verify, tmp_path)
    assert (verdict.problems, verdict.holes) == ([], [])


async def test_up_down_and_up_again_keeps_every_number_and_a_copy_from_before(tmp_path: Path, former: Path) -> None:
    first = await use(former, tmp_path, 40)
    store = await current(tmp_path)
    assert store.recovered.migrated == ("create_beside",)
    assert store.recovered.epoch == first["epoch"]
    assert (tmp_path / "store-before-v2.db").exists()
    making = Making(store)
    await making.make(60)
    await store.journal.close()
    down = await use(former, tmp_path, 20)
    assert down["next_result"] == making.result
    again = await current(tmp_path)
    assert again.recovered.past_epochs == ()
    assert again.recovered.migrated == ()
    await again.journal.close()
    told = await tell(tmp_path)
    assert told["result"].all() == list(range(1, down["end_result"]))
    assert told["alarm"].rows == list(range(1, making.next["alarm"]))
    with closing(apsw.Connection(str(tmp_path / "store-before-v2.db"), flags=apsw.SQLITE_OPEN_READONLY)) as copy:
        assert copy.pragma("user_version") == 1
        assert copy.execute("SELECT max(result_first + result_n) FROM journal").get == first["end_result"]
    assert (await asyncio.to_thread(inspection.verify, tmp_path)).ok


async def test_the_copy_from_before_can_be_used_by_the_former_program(tmp_path: Path, former: Path) -> None:
    first = await use(former, tmp_path, 40)
    store = await current(tmp_path)
    await Making(store).make(10)
    await store.journal.close()
    (tmp_path / "store-before-v2.db").replace(tmp_path / "store.db")
    back = await use(former, tmp_path, 1)
    assert back["next_result"] == first["end_result"]
