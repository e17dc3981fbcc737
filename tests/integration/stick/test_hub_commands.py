"""`edged-hub import` and `edged-hub keys` as an operator runs them, into a SQLite database of a site."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edged.errors import ExitCode
from edged.hub.cli import run
from edged.sync import keys, stick
from tests.doubles.outward import ListedOutward, Span
from tests.doubles.stick_rig import StickRig

Captured = pytest.CaptureFixture[str]


class Hub:
    """A hub of its own in a folder, that knows the gateway of a rig; the rig seals to it."""

    def __init__(self, folder: Path, rig: StickRig, capsys: Captured, *, url: str = "", more: str = "") -> None:
        self.folder = folder
        self._capsys = capsys
        folder.mkdir()
        (folder / "hub.toml").write_text(
            f'[hub]\nstate_dir = "{folder}"\n[database]\nurl = "{url or f"sqlite:///{folder}/hub.db"}"\n{more}'
        )
        place = folder / "keys" / "lyon"
        place.mkdir(parents=True)
        (place / "gw-03.pub").write_text(rig.secret.public.line)
        code, out, _err = self.run("keys")
        assert code == 0
        (folder / "hub.pub").write_text(out)
        rig.hub = keys.read_hub_secret((folder / "identity" / "stick.key").read_text())

    def run(self, verb: str, *arguments: object) -> tuple[int, str, str]:
        code = run([verb, *map(str, arguments), "--config", str(self.folder / "hub.toml")])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def take(self, medium: Path, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
        code, out, _err = self.run("import", medium, "--json", *arguments)
        return code, json.loads(out)

    def count(self, view: str) -> int:
        with closing(sqlite3.connect(self.folder / "hub.db")) as database:
            return int(database.execute(f"SELECT count(*) FROM {view}").fetchone()[0])


@pytest.fixture
def rig(tmp_path: Path) -> StickRig:
    return StickRig(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, rig: StickRig, capsys: Captured) -> Hub:
    return Hub(tmp_path / "hub", rig, capsys)


def test_the_keys_are_made_once_and_shown_as_one_line(hub: Hub) -> None:
    first = hub.run("keys")
    assert first == hub.run("keys")
    (key,) = keys.read_hub_keys(first[1])
    facts = json.loads(hub.run("keys", "--json")[1])
    assert facts == {"key": key.line.strip(), "fingerprint": key.fingerprint}


def test_a_stick_comes_into_the_database_once(rig: StickRig, hub: Hub) -> None:
    rig.export(ListedOutward(Span("result", "e1", 1, 300), Span("alarm", "e1", 1, 2), Span("health", "e1", 1, 4)))

    code, (told,) = hub.take(rig.medium)

    assert (code, told["ok"], told["home"], told["before"], told["files"]) == (0, True, 306, 0, [])
    assert hub.count("results") == 300
    (receipt_file,) = rig.folder.glob("*.receipt.json")
    receipt = stick.read_receipt(receipt_file.read_bytes(), (rig.hub.public,), "lyon", "gw-03")
    assert stick.home_of(receipt)["e1"]["result"] == ((1, 300),)

    code, (again,) = hub.take(rig.medium)
    assert (code, again["home"], again["before"]) == (0, 306, 306)
    assert hub.count("results") == 300


def test_people_are_told_in_lines(rig: StickRig, hub: Hub) -> None:
    rig.export(ListedOutward(Span("alarm", "e1", 1, 2)))
    code, out, err = hub.run("import", rig.medium)
    assert (code, err) == (0, "")
    assert out == "taken    lyon/gw-03/000001-00000001: 2 new, 0 were home already\n"


def test_a_store_that_was_put_back_is_recognised_by_the_real_database(rig: StickRig, hub: Hub) -> None:
    rig.export(ListedOutward(Span("result", "e1", 1, 100), boot="boot-1"))
    assert hub.take(rig.medium)[0] == 0
    shutil.rmtree(rig.folder)
    shutil.rmtree(rig.state_dir / "exports")
    rig.export(ListedOutward(Span("result", "e1", 50, 80), boot="boot-2"))

    code, (told,) = hub.take(rig.medium)

    assert code == ExitCode.REFUSED
    assert told["forks"] == [{"epoch": "e1", "seq": 50}]
    assert hub.count("results") == 100
    assert "forked" in hub.run("import", rig.medium)[1]


def test_an_export_of_a_given_up_history_is_recognised_by_the_real_database(rig: StickRig, hub: Hub) -> None:
    class Unseen(ListedOutward):
        def probes(self, after_seq: int, limit: int):  # type: ignore[no-untyped-def]
            return ()

    rig.export(ListedOutward(Span("result", "e1", 1, 40), boot="boot-2"))
    assert hub.take(rig.medium)[0] == 0
    shutil.rmtree(rig.folder)
    rig.export(Unseen(Span("result", "e1", 1, 90), boot="boot-1"), again=True)
    code, (told,) = hub.take(rig.medium)
    assert (code, told["forks"]) == (ExitCode.REFUSED, [{"epoch": "e1", "seq": 40}])
    assert hub.count("results") == 40


def test_what_is_refused_is_named_with_its_code_and_the_exit_code_is_77(rig: StickRig, hub: Hub) -> None:
    done = rig.export(ListedOutward(Span("alarm", "e1", 1, 2), Span("health", "e1", 1, 2)))
    assert done.path is not None
    (done.path / "000002.box").unlink()
    (rig.folder / "000009-00000009.part").mkdir()
    code, out, _ = hub.run("import", rig.medium)
    assert code == ExitCode.REFUSED
    assert "refused 000002.box: missing_file" in out
    assert "lyon/gw-03/000009-00000009.part: unfinished" in out
    assert hub.take(rig.medium)[1][0]["files"][0]["refused"] == "missing_file"


def test_an_unknown_gateway_is_refused_with_the_cure(rig: StickRig, hub: Hub) -> None:
    (hub.folder / "keys" / "lyon" / "gw-03.pub").unlink()
    rig.export(ListedOutward(Span("alarm", "e1", 1, 2)))
    code, out, _ = hub.run("import", rig.medium)
    assert code == ExitCode.REFUSED
    assert "foreign_gateway" in out
    assert "edged store identity" in out


def test_a_gateway_that_is_not_allowed_is_refused_although_its_key_is_there(
    tmp_path: Path, rig: StickRig, capsys: Captured
) -> None:
    hub = Hub(tmp_path / "hub", rig, capsys, more='[gateways]\nallow = ["paris/*"]\n')
    rig.export(ListedOutward(Span("alarm", "e1", 1, 2)))
    assert hub.take(rig.medium)[1][0]["refused"] == "foreign_gateway"


@pytest.mark.allow_blocking(reason="asyncpg looks for a password file before it connects")
def test_a_database_that_is_away_is_exit_code_69_and_no_receipt(
    tmp_path: Path, rig: StickRig, capsys: Captured
) -> None:
    hub = Hub(tmp_path / "hub", rig, capsys, url="postgresql://nobody@127.0.0.1:9/none")
    rig.export(ListedOutward(Span("alarm", "e1", 1, 2)))
    code, out, err = hub.run("import", rig.medium)
    assert (code, out) == (ExitCode.UNAVAILABLE, "")
    assert "import again" in err
    assert list(rig.folder.glob("*.receipt.json")) == []


def test_a_folder_without_an_export_is_said(tmp_path: Path, hub: Hub) -> None:
    code, _, err = hub.run("import", tmp_path)
    assert code == ExitCode.IO
    assert "edged-export" in err
    (tmp_path / "edged-export").mkdir()
    code, _, err = hub.run("import", tmp_path / "edged-export")
    assert code == ExitCode.IO
    assert "there is no export" in err


def test_more_than_ten_refused_files_are_counted(rig: StickRig, hub: Hub) -> None:
    spans = [Span("alarm", f"e{epoch}", epoch * 10 + 1, epoch * 10 + 2) for epoch in range(12)]
    done = rig.export(ListedOutward(*spans))
    assert done.path is not None
    for file in done.path.glob("*.box"):
        file.write_bytes(b"")
    code, out, _ = hub.run("import", rig.medium)
    assert code == ExitCode.REFUSED
    assert out.count("bad_checksum") == 10
    assert "and 2 files more" in out
