"""From a real store, while it is open, over a stick into SQLite, and the receipt back to what the daemon may free."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edged.cli.main import run as run_edged
from edged.errors import ExitCode
from edged.ops import stick_keys
from edged.store import OpenedStore
from edged.store.outward import OutwardStore
from edged.sync import keys, stick
from edged.uplink.receipts import ReceiptFolder
from tests.doubles.stick_rig import StickRig
from tests.integration.stick.test_hub_commands import Captured, Hub
from tests.unit.config.conftest import VALID
from tests.unit.store.plant import commit, fill, opened
from tests.unit.store.samples import unit

Json = dict[str, Any]


class Site:
    """A gateway with a real store, a stick, and a hub with a real database, all by their command lines."""

    def __init__(self, folder: Path, capsys: Captured) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.medium = folder / "stick"
        self.medium.mkdir()
        self._capsys = capsys
        self.state_dir.mkdir()
        (folder / "rig").mkdir()
        rig = StickRig(folder / "rig")
        rig.secret = stick_keys.gateway_secret(self.state_dir)
        self.hub = Hub(folder / "hub", rig, capsys)
        text = VALID.replace('"gw-01"', '"gw-03"')
        text += '\n[upstream]\nurl = "mqtts://hub.example"\nhub_keys_file = "hub/hub.pub"\n'
        (folder / "edged.toml").write_text(text)
        (folder / "pump.onnx").write_bytes(b"model")

    def run(self, verb: str, *arguments: object) -> tuple[int, str, str]:
        words = ["store", verb, *map(str, arguments), "--config", str(self.folder / "edged.toml")]
        code = run_edged(words)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def export(self, *arguments: object) -> Json:
        code, out, err = self.run("export", "--to", self.medium, "--json", *arguments)
        assert (code, err) == (0, "")
        told: Json = json.loads(out)
        return told

    @property
    def exports(self) -> Path:
        return self.medium / "edged-export" / "lyon" / "gw-03"

    def with_store(self, work: Callable[[OpenedStore], Any]) -> None:
        async def whole() -> None:
            store = await opened(self.state_dir)
            try:
                await work(store)
            finally:
                await store.journal.close()

        asyncio.run(whole())


@pytest.fixture
def site(tmp_path: Path, capsys: Captured) -> Site:
    return Site(tmp_path, capsys)


def test_rows_of_a_store_come_home_on_a_stick_and_the_receipt_frees_exactly_them(site: Site) -> None:
    site.with_store(lambda store: fill(store, 40, 25))

    told = site.export()
    assert (told["rows"], told["left"], told["too_large"]) == (1000, 0, 0)

    code, (taken,) = site.hub.take(site.medium)
    assert (code, taken["home"]) == (0, 1000)
    assert site.hub.count("results") == 1000

    code, out, _ = site.run("import-receipt", site.medium, "--json")
    assert (code, json.loads(out)[0]["home"]) == (0, 1000)
    (laid,) = (site.state_dir / "receipts").iterdir()
    trusted = keys.read_hub_keys((site.folder / "hub" / "hub.pub").read_text())
    home = stick.receipt_ranges(laid.read_bytes(), trusted, "lyon", "gw-03")
    ((epoch, streams),) = home.items()
    assert streams == {"result": ((1, 1000),)}

    with closing(OutwardStore(site.state_dir)) as outward:
        assert [extent.epoch for extent in outward.extents() if extent.stream == "result"] == [epoch]
        (for_the_daemon,) = ReceiptFolder(
            site.state_dir, site.folder / "hub" / "hub.pub", "lyon", "gw-03", outward.extents
        ).look("")
    assert (for_the_daemon.refused, for_the_daemon.home) == ("", (("result", ((1, 1000),)),))
    assert site.export()["files"] == 0


def test_an_export_beside_the_running_store_does_not_disturb_it(site: Site) -> None:
    async def whole() -> None:
        store = await opened(site.state_dir)
        await fill(store, 20, 25)
        assert (await asyncio.to_thread(site.export))["rows"] == 500
        await commit(store.journal, unit(501, 25, 501, 25))
        assert (await asyncio.to_thread(site.export))["rows"] == 25
        await store.journal.close()

    asyncio.run(whole())
    assert site.hub.take(site.medium)[0] == 0
    assert site.hub.count("results") == 525


def test_what_the_link_brought_home_is_not_carried(site: Site) -> None:
    async def whole() -> None:
        store = await opened(site.state_dir)
        await fill(store, 3, 25)
        await commit(store.journal, unit(76, 25, 76, 25, meta=b'{"synced":{"result":[[1,60],[70,75]]}}'))
        await store.journal.close()

    asyncio.run(whole())
    told = site.export()
    assert told["rows"] == 9 + 25


def test_a_damaged_stick_costs_one_file_and_that_goes_with_the_next(site: Site) -> None:
    site.with_store(lambda store: fill(store, 40, 25))
    told = site.export()
    first = Path(told["path"]) / "000001.box"
    first.write_bytes(first.read_bytes()[:-1])
    code, (taken,) = site.hub.take(site.medium)
    assert (code, [file["refused"] for file in taken["files"]]) == (ExitCode.REFUSED, ["bad_checksum"])
    assert site.run("import-receipt", site.medium)[0] == 0
    shutil.rmtree(site.exports)
    again = site.export()
    assert again["rows"] == 1000 - taken["home"]
    assert site.hub.take(site.medium)[0] == 0
    assert site.hub.count("results") == 1000


def test_the_same_disk_is_remarked_and_a_missing_store_is_an_error(site: Site) -> None:
    code, _, err = site.run("export", "--to", site.medium)
    assert code == ExitCode.IO
    assert "there is none" in err
    site.with_store(lambda store: fill(store, 1, 5))
    code, out, err = site.run("export", "--to", site.medium)
    assert code == 0
    assert out.startswith("exported 5 rows in 1 file")
    assert "is the stick mounted?" in err


def test_a_stick_that_cannot_be_written_is_an_error_of_the_disk(site: Site) -> None:
    site.with_store(lambda store: fill(store, 1, 5))
    (site.medium / "edged-export").write_text("in the way")
    code, _, err = site.run("export", "--to", site.medium)
    assert code == ExitCode.IO
    assert "is the stick still there" in err
