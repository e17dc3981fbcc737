"""The hub's database is put back from a copy: what the gateway still has comes again, of the rest nobody is silent."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.doubles.upstream_site import UpstreamSite

KEPT = "snapshot_interval_s = 1"
FREED = f"{KEPT}\nkeep_bytes = 0"


@pytest.mark.parametrize("store", [KEPT, FREED], ids=["rows are still at the gateway", "rows are gone there"])
def test_a_hub_whose_cursors_are_behind_gets_rows_or_tombstones_for_every_number(
    tmp_path: Path, single_model: Path, store: str
) -> None:
    with UpstreamSite(tmp_path, single_model, store=store) as site:
        site.sensors.round(25)
        site.settle()
        copy = tmp_path / "copy.db"
        with closing(sqlite3.connect(site.books.path)) as now, closing(sqlite3.connect(copy)) as then:
            now.backup(then)
        site.sensors.round(50)
        site.settle()
        made = site.account()
        assert (made.problems, made.rows) == ([], 300)

        site.hub.kill()
        for suffix in ("", "-wal", "-shm"):
            Path(site.books.path + suffix).unlink(missing_ok=True)
        shutil.copy(copy, site.books.path)
        assert site.books.count() == 100
        site.hub.start()
        site.link.drop()  # it would find out by itself, with the next connection
        site.sensors.round(25)
        site.settle()

        account = site.account()
        assert account.problems == []
        assert (account.rows + account.tombstoned, account.made) == (400, 400)
        if store == KEPT:
            assert account.tombstoned == 0
        else:
            assert {reason for *_, reason in site.books.tombstones()} == {"missing"}
