"""The WAL comes home beside the writer, and nothing that goes wrong there is the writer's business."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import apsw
import pytest

from edged.store.checkpointer import Checkpointer
from edged.store.database import connect_checkpointer, connect_writer


def finish(beside: Checkpointer) -> None:
    deadline = time.monotonic() + 10
    while not beside.done:
        assert time.monotonic() < deadline, "the round never ended"


def test_a_round_brings_the_wal_home_while_the_writer_keeps_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = connect_writer(path)
    writer.execute("CREATE TABLE t(x)")
    writer.execute("INSERT INTO t VALUES (zeroblob(50000))")
    size = path.stat().st_size
    beside = Checkpointer(partial(connect_checkpointer, path))
    beside.start()
    assert not beside.done
    beside.ask()
    beside.ask()
    finish(beside)
    beside.rest()
    assert not beside.done
    beside.ask()
    finish(beside)
    beside.stop()
    assert path.stat().st_size > size + 50_000
    assert path.with_name("a.db-wal").exists(), "closing beside the writer must not take the WAL away"
    writer.close()


def test_a_checkpointer_that_cannot_open_the_store_ends_its_round_and_lets_the_writer_find_out(tmp_path: Path) -> None:
    def connect() -> apsw.Connection:
        raise apsw.CantOpenError("no such place")

    beside = Checkpointer(connect)
    beside.start()
    beside.ask()
    finish(beside)
    beside.stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_checkpointer_that_never_had_a_round_stops_as_well(tmp_path: Path, rounds: int) -> None:
    beside = Checkpointer(partial(connect_checkpointer, tmp_path / "a.db"))
    beside.start()
    for _ in range(rounds):
        beside.ask()
    beside.stop()
    assert beside.done == bool(rounds)
