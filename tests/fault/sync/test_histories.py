"""A store that is not the one the hub knows: put back from a copy, new, damaged. No number ever means two rows."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.doubles.upstream_site import UpstreamSite
from tests.fault.daemon.test_store import flip


@pytest.mark.timeout(150)
def test_a_store_put_back_from_a_copy_begins_a_new_epoch_and_every_row_of_both_lives_is_home(
    tmp_path: Path, single_model: Path
) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(50)
        site.settle()
        assert site.daemon.stop() == 0
        copy = tmp_path / "copy"
        shutil.copytree(site.daemon.state, copy, ignore=shutil.ignore_patterns("*.sock"))
        site.daemon.start().connected()
        site.sensors.round(50)
        site.settle()
        old_epoch, _ = site.note_extent()
        rows = site.books.count()
        site.daemon.kill()
        site.scada.results.clear()  # what follows is said under numbers that were used before
        shutil.rmtree(site.daemon.state)
        shutil.copytree(copy, site.daemon.state)

        site.link.cut()  # it works for a while before it learns of the other history
        site.daemon.start().connected()
        site.sensors.round(25)
        site.scada.until_results(100)
        site.link.restore()
        assert site.daemon.wait() != 0, "it ends, so that systemd starts it anew"
        site.daemon.start().connected()
        site.sensors.round(25)

        site.sensors.pause()
        site.until(lambda: site.books.count() == rows + 200, "both lives are home", 75)
        site.until(site.is_home, "nothing is missing")
        ledger = site.books.ledger()
        new_epoch = site.daemon.status()["identity"]["epoch"]
        assert new_epoch != old_epoch
        assert ledger[old_epoch, "result"]["rows"] == rows
        assert ledger[new_epoch, "result"]["rows"] == 200
        results = site.books.results()
        assert len({(row[0], row[1]) for row in results}) == len(results) == rows + 200
        inputs = sorted(int(row[6]) for row in results if row[2] == "dev-0")
        assert inputs == sorted([*range(1, 151)]), "every event of both lives is answered once"


def test_a_gateway_flashed_anew_begins_a_new_epoch_and_its_old_rows_stay(tmp_path: Path, single_model: Path) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(50)
        site.settle()
        old_epoch, _ = site.note_extent()
        site.daemon.kill()
        shutil.rmtree(site.daemon.state)
        site.daemon.start().connected()
        site.sensors.round(50)
        site.settle()
        account = site.account()
        assert (account.problems, account.rows) == ([], 400)
        assert {epoch for epoch, stream in site.books.ledger() if stream == "result"} == {
            old_epoch, site.daemon.status()["identity"]["epoch"],
        }  # fmt: skip


def test_rows_that_a_damaged_store_lost_have_tombstones_and_what_was_saved_is_home(
    tmp_path: Path, single_model: Path
) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(20)
        site.settle()
        site.link.cut()
        for turn in range(1, 41):  # many small units: the damage hits some of them, not all at once
            site.sensors.round(5)
            site.scada.until_results(80 + 20 * turn)
        site.sensors.pause()
        old_epoch, last = site.note_extent()
        site.daemon.kill()
        store = site.daemon.state / "store.db"
        with sqlite3.connect(store) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        flip(store, random.Random(3))

        site.daemon.start().connected()
        site.link.restore()
        new_epoch = site.daemon.status()["identity"]["epoch"]
        assert new_epoch != old_epoch, "it was damaged"
        site.sensors.round(20)
        site.sensors.pause()

        def all_told() -> bool:
            ledger = site.books.ledger()
            old, new = ledger[old_epoch, "result"], ledger.get((new_epoch, "result"), {"rows": 0})
            return bool(old["made"] > 80 and old["missing"] == 0 and new["rows"] == 80)

        site.until(all_told, "what was lost is told, and the new rows are home")
        assert len(site.books.records("damage")) == 1
        old = site.books.ledger()[old_epoch, "result"]
        assert old["rows"] + old["tombstoned"] == old["made"]
        assert old["made"] <= last, "of rows that stood at the lost end nobody knows the numbers"
        assert 80 <= old["rows"] < last, "the damage hit nothing, or reached what was home"
        reasons = {reason for _, _, _, reason in site.books.tombstones()}
        assert reasons <= {"damage", "missing"}
