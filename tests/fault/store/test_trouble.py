"""A disk that is full, a file that is held, a folder that cannot be written: units wait, nothing is dropped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.errors import ExitCode, StoreError, StoreLocked
from edged.ports import Committed
from tests.fault.store.conftest import fill_up
from tests.unit.store.plant import Listener, commit, fill, opened, read_all_results
from tests.unit.store.samples import unit

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_on_a_full_disk_a_unit_waits_and_is_committed_when_there_is_room_again(small_disk: Path) -> None:
    listener = Listener()
    store = await opened(small_disk, listener, free_floor_bytes=0, free_bytes=lambda _folder: 10**9)
    await fill(store, 10, noise=100)
    ballast = fill_up(small_disk)
    committed: list[Committed] = []
    for i in range(8):
        store.journal.submit(unit(251 + 25 * i, 25, 251 + 25 * i, 25, noise=3000), committed.append)
    await until(lambda: ("store_full", True) in listener.codes())
    assert len(committed) < 8
    waiting_from = len(committed)
    ballast.unlink()
    await until(lambda: len(committed) == 8)
    assert [c.batch for c in committed] == list(range(11, 19))
    assert waiting_from < 8
    assert listener.codes()[-1] == ("store_full", False)
    assert await read_all_results(store.journal) == list(range(1, 451))
    await store.journal.close()
    assert listener.failures == []


async def test_a_disk_that_others_filled_does_not_stop_a_store_that_evicts(small_disk: Path) -> None:
    listener = Listener()
    store = await opened(small_disk, listener, budget_bytes=2_000_000, free_floor_bytes=100_000)
    await fill(store, 100, noise=100)
    ballast = fill_up(small_disk)
    os.truncate(ballast, ballast.stat().st_size - 80_000)
    await commit(store.journal, unit(2501, 25, 2501, 25, noise=100))
    # Reaching the floor brings the WAL home while that is still possible.
    await until(lambda: (small_disk / "store.db").stat().st_size >= store.journal.file_bytes)
    fill_up(small_disk)
    committed = [
        await asyncio.wait_for(commit(store.journal, unit(2526 + 25 * i, 25, 2526 + 25 * i, 25, noise=100)), 20)
        for i in range(300)
    ]
    assert sum(c.evicted_results for c in committed) > 5000
    await store.journal.close()
    assert listener.failures == []


async def test_closing_on_a_full_disk_gives_up_the_unit_nobody_was_told_about(small_disk: Path) -> None:
    listener = Listener()
    store = await opened(small_disk, listener, free_floor_bytes=0, free_bytes=lambda _folder: 10**9)
    await fill(store, 10, noise=100)
    ballast = fill_up(small_disk)
    committed: list[Committed] = []
    for i in range(8):
        store.journal.submit(unit(251 + 25 * i, 25, 251 + 25 * i, 25, noise=3000), committed.append)
    await until(lambda: ("store_full", True) in listener.codes())
    await store.journal.close()
    ballast.unlink()
    again = await opened(small_disk)
    assert again.recovered.next_event == 251 + 25 * len(committed)
    assert again.recovered.salvage is None
    await again.journal.close()


async def test_while_another_program_holds_the_file_a_unit_waits(tmp_path: Path) -> None:
    listener = Listener()
    store = await opened(tmp_path, listener)
    await fill(store, 1)
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(tmp_path / "store.db"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    committed: list[Committed] = []
    store.journal.submit(unit(26, 25, 26, 25), committed.append)
    await until(lambda: listener.codes() == [("store_locked", True)])
    assert committed == []
    assert len(await store.journal.read_results(1, 100)) == 1, "reading goes on meanwhile"
    assert (await store.journal.statistics()).trouble == "store_locked"
    await holder.communicate(b"")
    await until(lambda: len(committed) == 1)
    await until(lambda: listener.codes() == [("store_locked", True), ("store_locked", False)])
    await store.journal.close()


async def test_a_file_that_another_program_holds_at_start_is_a_temporary_refusal(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await fill(store, 1)
    await store.journal.close()
    exclusive = HOLDER.replace('"BEGIN IMMEDIATE"', '"PRAGMA locking_mode=EXCLUSIVE"').replace(
        'print("held"', 'connection.execute("BEGIN EXCLUSIVE"); print("held"'
    )
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", exclusive, str(tmp_path / "store.db"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    with pytest.raises(StoreLocked) as locked:
        await opened(tmp_path)
    assert locked.value.exit_code == ExitCode.TEMPORARY
    await holder.communicate(b"")
    again = await opened(tmp_path)
    assert again.recovered.next_event == 26
    await again.journal.close()


async def test_a_folder_on_a_read_only_disk_is_an_io_error_with_a_cure(small_disk: Path) -> None:
    store = await opened(small_disk)
    await fill(store, 1)
    await store.journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="must own") as error:
        await opened(small_disk)
    assert error.value.exit_code == ExitCode.IO
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    again = await opened(small_disk)
    assert again.recovered.next_event == 26
    await again.journal.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_of_somebody_else_is_an_io_error_with_a_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="must own") as error:
        await opened(tmp_path)
    assert error.value.exit_code == ExitCode.IO
    tmp_path.chmod(0o700)


async def test_damage_met_while_running_ends_the_process_and_the_next_start_salvages(tmp_path: Path) -> None:
    listener = Listener()
    store = await opened(tmp_path, listener, budget_bytes=2_000_000)
    await fill(store, 400, noise=100)
    # Zeros over every page but the first, behind SQLite's back and by another process (its locks are per process).
    overwrite = (
        "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY); n = os.fstat(f).st_size;"
        " os.pwrite(f, b'\\xff' * (n - 1024), 1024)"
    )
    subprocess.run([sys.executable, "-c", overwrite, str(tmp_path / "store.db")], check=True)
    event = 10_001
    while not listener.failures:
        store.journal.submit(unit(event, 25, event, 25, noise=100), lambda _committed: None)
        event += 25
        await asyncio.sleep(0.01)
    assert type(listener.failures[0]).__name__ == "StoreCorrupt"
    assert (tmp_path / "store.damaged").exists()
    await store.journal.close()
    again = await opened(tmp_path)
    assert again.recovered.salvage is not None
    assert not (tmp_path / "store.damaged").exists()
    await fill(again, 1)
    await again.journal.close()
