"""Rows read from bare pages are the rows that SQLite reads; what is broken is left out, never read as nonsense."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from edged.store.pages import Malformed, PageFile, find_rows, read_row

SHAPES = {"t": "nitbo"}


def make(path: Path, page_bytes: int, rows: int, *, wal: bool = False) -> list[tuple[object, ...]]:
    """A table with rows of all sizes; returns what SQLite reads."""
    chance = random.Random(page_bytes)
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("page_size", page_bytes)
    connection.pragma("auto_vacuum", "INCREMENTAL")
    connection.pragma("journal_mode", "WAL")
    connection.pragma("wal_autocheckpoint", 0)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, number INTEGER, words TEXT, data BLOB, more BLOB)")
    numbers = [0, 1, -1, 127, -128, 2**15, 2**23, 2**31, 2**47, 2**62, -(2**63)]
    with connection:
        connection.executemany(
            "INSERT INTO t VALUES (?,?,?,?,?)",
            (
                (
                    row * 7919 + 1,
                    chance.choice(numbers),
                    "ü" * chance.randrange(40),
                    chance.randbytes(chance.choice([0, 5, 200, 900, 4000, 20_000])),
                    chance.choice([None, b"", chance.randbytes(300)]),
                )
                for row in range(rows)
            ),
        )
    if not wal:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    read = [tuple(row) for row in connection.execute("SELECT * FROM t ORDER BY id")]
    connection.close()
    return read


def scan(path: Path, fallback: int = 1024) -> list[tuple[object, ...]]:
    with closing(PageFile(path, fallback)) as source:
        found = find_rows(source, SHAPES, lambda: False)["t"]
        rows: list[tuple[object, ...]] = []
        for rowid in sorted(found):
            try:
                rows.append(read_row(source, found[rowid]))
            except Malformed:
                continue
        return rows


@pytest.mark.parametrize("page_bytes", [512, 1024, 4096, 32768])
@pytest.mark.parametrize("wal", [False, True])
def test_bare_pages_hold_the_rows_that_sqlite_reads(tmp_path: Path, page_bytes: int, wal: bool) -> None:
    expected = make(tmp_path / "a.db", page_bytes, 150, wal=wal)
    assert scan(tmp_path / "a.db", fallback=page_bytes) == expected


def test_without_a_header_the_usual_page_size_is_taken(tmp_path: Path) -> None:
    expected = make(tmp_path / "a.db", 1024, 100)
    with (tmp_path / "a.db").open("r+b") as file:
        file.write(bytes(100))
    assert scan(tmp_path / "a.db") == expected


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_costs_rows_but_never_breaks_the_reading(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.db"
    expected = {row[0]: row for row in make(path, 1024, 120)}
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(20):
        at = chance.randrange(len(content))
        content[at : at + 50] = chance.randbytes(len(content[at : at + 50]))
    path.write_bytes(content)
    rows = scan(path)
    assert len([row for row in rows if expected.get(row[0]) == row]) > 30


def test_a_chain_of_pages_that_leads_nowhere_costs_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make(path, 1024, 60)
    content = bytearray(path.read_bytes())
    for at in range(1024, len(content), 1024):
        if content[at] == 0:  # an overflow page: it begins with the number of the next one
            content[at : at + 4] = b"\xff" * 4
    path.write_bytes(content)
    with closing(PageFile(path, 1024)) as source:
        found = find_rows(source, SHAPES, lambda: False)["t"]
        assert len(found) == 60
        rows = scan(path)
        assert 10 < len(rows) < 60
        with pytest.raises(Malformed, match="page 0 is beyond the end"):
            source.page(0)


def test_of_too_many_rows_the_newest_are_remembered(tmp_path: Path) -> None:
    expected = make(tmp_path / "a.db", 1024, 100)
    with closing(PageFile(tmp_path / "a.db", 1024)) as source:
        found = find_rows(source, SHAPES, lambda: False, limit=7)["t"]
    assert sorted(found) == [row[0] for row in expected[-7:]]


def test_the_search_stops_when_it_is_late(tmp_path: Path) -> None:
    make(tmp_path / "a.db", 1024, 100)
    looks = iter(range(1000))
    with closing(PageFile(tmp_path / "a.db", 1024)) as source:
        assert len(find_rows(source, SHAPES, lambda: next(looks) > 50)["t"]) < 100
        assert find_rows(source, SHAPES, lambda: True) == {"t": {}}
