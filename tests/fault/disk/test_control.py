"""The disk that loses power is worth something only if it loses what was not flushed, and only that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from tests.doubles.power_cut_disk import LYING, VOLATILE, PowerCutDisk

ROWS = 300


class Outcome(NamedTuple):
    """What a writer called committed, and what a machine finds after the power cut."""

    acknowledged: int
    found: int
    integrity: str


def cut_under(folder: Path, synchronous: str, server: Sequence[str] = VOLATILE) -> Outcome:
    """Cut the power under one writer that has committed some hundred rows."""
    with PowerCutDisk(folder, size_mb=64, server=server) as disk:
        database = disk.place / "rows.db"
        command = [sys.executable, "-m", "tests.fault.disk.writing_process", str(database), synchronous]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = 0
            while acknowledged < ROWS:
                acknowledged = int(writer.stdout.readline())
            assert writer.poll() is None, "the writer had ended before the cut: this shows nothing"
            disk.lose_cache()
            writer.kill()
            rest = writer.stdout.read().split(b"\n")[:-1]
        disk.power_off()
        disk.power_on()
        return Outcome(int(rest[-1]) if rest else acknowledged, *look(database))


def look(database: Path) -> tuple[int, str]:
    """(rows, verdict); a database that has no table, or is none, has no rows."""
    if not database.exists():
        return 0, "no file"
    connection = apsw.Connection(str(database))
    try:
        verdict = str(connection.execute("PRAGMA integrity_check").get)
        found = connection.execute("SELECT count(*) FROM row").get
    except apsw.Error as error:
        return 0, str(error)
    finally:
        connection.close()
    assert isinstance(found, int)
    return found, verdict


def test_a_writer_that_waits_for_its_fsync_loses_nothing_in_a_power_cut(tmp_path: Path) -> None:
    outcome = cut_under(tmp_path, "FULL")
    assert outcome.integrity == "ok"
    assert outcome.found in {outcome.acknowledged, outcome.acknowledged + 1}  # one more: durable, but not yet said


def test_a_writer_that_does_not_wait_loses_rows_so_the_disk_really_forgets(tmp_path: Path) -> None:
    outcome = cut_under(tmp_path, "NORMAL")
    assert outcome.found < outcome.acknowledged


@pytest.mark.slow
def test_a_disk_that_lies_about_its_flush_loses_rows_whoever_writes(tmp_path: Path) -> None:
    """What nobody above the disk can prevent: the row of the tests' own that says what is not promised."""
    outcome = cut_under(tmp_path, "FULL", LYING)
    assert outcome.found < outcome.acknowledged
