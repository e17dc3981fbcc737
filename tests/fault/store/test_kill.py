"""kill -9 at any instant: nothing that was confirmed is lost, nothing is half there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from edged.store import lookup
from tests.unit.store.plant import fill, opened, read_all_results

# EDGED_KILLS=100 pytest -o faulthandler_timeout=900 tests/fault/store/test_kill.py: more, in about three minutes
ROUNDS = int(os.environ.get("EDGED_KILLS", "10"))


def run_and_kill(folder: Path, seed: int, budget_bytes: int) -> int:
    """Newest confirmed event when the process was killed, 0 if none was."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fault.store.committing_process", str(folder), str(budget_bytes)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    threading.Timer(random.Random(seed).uniform(0.0, 0.25), process.kill).start()
    confirmed = [line for line in process.stdout.read().split(b"\n")[:-1] if line]
    process.wait()
    process.stdout.close()
    return int(confirmed[-1]) if confirmed else 0


@pytest.mark.slow
@pytest.mark.timeout(60 + 3 * ROUNDS)
@pytest.mark.parametrize("budget_bytes", [10**9, 400_000], ids=["roomy", "evicting"])
async def test_a_killed_process_leaves_every_confirmed_unit_and_no_half_one(tmp_path: Path, budget_bytes: int) -> None:
    newest = 0
    for seed in range(ROUNDS):
        confirmed = run_and_kill(tmp_path, seed, budget_bytes)
        newest = max(newest, confirmed)
        store = await opened(tmp_path, budget_bytes=budget_bytes)
        recovered = store.recovered
        assert recovered.salvage is None
        assert recovered.past_epochs == ()
        assert recovered.next_event == recovered.next_result >= newest + 1
        if recovered.snapshot:
            assert recovered.snapshot[1] == b"%d" % recovered.snapshot[0]
        newest = recovered.next_event - 1
        kept = await read_all_results(store.journal)
        assert kept == list(range(kept[0], newest + 1)) if kept else newest == 0
        assert budget_bytes < 10**9 or not kept or kept[0] == 1
        await store.journal.close()
    connection = apsw.Connection(str(tmp_path / "store.db"))
    assert lookup.holes(connection) == []
    assert list(connection.execute("PRAGMA integrity_check")) == [("ok",)]
    connection.close()
    assert newest > 0


async def test_after_a_kill_the_lock_is_free_and_while_running_it_is_not(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 1)
    second = subprocess.run(
        [sys.executable, "-m", "tests.fault.store.committing_process", str(tmp_path), "1000000000"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert f"process {os.getpid()} has this store open" in second.stderr
    assert second.stdout == ""
    await store.journal.close()
    assert run_and_kill(tmp_path, 5, 10**9) >= 0
    again = await opened(tmp_path)
    assert again.recovered.next_event >= 26
    await again.journal.close()
