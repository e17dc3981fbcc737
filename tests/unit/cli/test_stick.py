"""`edged store identity` and `import-receipt`: what an operator sees, and what the daemon finds afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from edged.cli.stick import describe, describe_receipts
from edged.errors import ExitCode
from edged.sync import keys, stick
from edged.sync.protocol import Fork
from edged.uplink.export import Exported
from tests.doubles.outward import ListedOutward, Span
from tests.doubles.stick_rig import StickRig
from tests.unit.cli.conftest import Edged, Ran
from tests.unit.config.conftest import VALID
from tests.unit.store.plant import commit, opened
from tests.unit.store.samples import unit

STICK = 'hub_keys_file = "hub.pub"\n'


class Box:
    """A gateway's configuration and store in a folder, and a hub that it trusts."""

    def __init__(self, folder: Path, edged: Edged, upstream: str = STICK, meta: bytes = b"{}") -> None:
        self.folder = folder
        self._edged = edged
        self.rig = StickRig(folder)
        text = VALID.replace('"gw-01"', '"gw-03"')
        if upstream:
            text += f'\n[upstream]\nurl = "mqtts://hub.example"\n{upstream}'
        (folder / "edged.toml").write_text(text)
        (folder / "pump.onnx").write_bytes(b"model")
        (folder / "hub.pub").write_text(self.rig.hub.public.line)
        asyncio.run(self._fill(meta))

    async def _fill(self, meta: bytes) -> None:
        store = await opened(self.rig.state_dir)
        await commit(store.journal, unit(1, 5, 1, 5, meta=meta))
        await store.journal.close()

    def run(self, verb: str, *arguments: object) -> Ran:
        return self._edged("store", verb, *arguments, "--config", self.folder / "edged.toml")

    def there_and_back(self, *, export: bool = True) -> Path:
        """Export and import; the receipt."""
        if export:
            self.rig.export(ListedOutward(Span("result", "e1", 1, 5)))
        (outcome,) = self.rig.import_all()
        return self.rig.folder / f"{outcome.export_id}.receipt.json"

    @property
    def laid(self) -> list[Path]:
        folder = self.rig.state_dir / "receipts"
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def box(tmp_path: Path, edged: Edged) -> Box:
    return Box(tmp_path, edged)


def refusals(ran: Ran) -> Sequence[str]:
    assert ran.code == ExitCode.REFUSED
    return [outcome["refused"] for outcome in json.loads(ran.out)]


# --- identity ---------------------------------------------------------------------------------------------------


def test_the_identity_is_one_line_that_the_hub_can_read(box: Box) -> None:
    ran = box.run("identity")
    assert (ran.code, ran.err) == (0, "")
    key = keys.read_gateway_key(ran.out)
    facts = json.loads(box.run("identity", "--json").out)
    assert facts == {"site": "lyon", "gateway": "gw-03", "key": key.line.strip(), "fingerprint": key.fingerprint}


def test_an_identity_that_others_can_read_is_exit_code_77_with_its_code(box: Box) -> None:
    box.run("identity")
    (box.rig.state_dir / "identity" / "stick.key").chmod(0o644)
    ran = box.run("identity")
    assert (ran.code, ran.out) == (ExitCode.REFUSED, "")
    assert ran.err.startswith("edged: key_exposed: ")


@pytest.mark.parametrize("verb", ["export", "import-receipt", "identity"])
def test_every_verb_has_help_with_an_example(edged: Edged, verb: str) -> None:
    ran = edged("store", verb, "--help")
    assert ran.code == ExitCode.OK
    assert f"edged store {verb}" in ran.out.partition("Example:")[2]


# --- receipts ---------------------------------------------------------------------------------------------------


def test_a_receipt_is_laid_where_the_daemon_finds_it(box: Box) -> None:
    receipt = box.there_and_back()
    ran = box.run("import-receipt", receipt)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "taken    export 000001-00000001: 5 home at hub-db-1\n"
    (laid,) = box.laid
    assert (laid.name, laid.read_bytes()) == ("000001-00000001.json", receipt.read_bytes())
    assert laid.stat().st_mode & 0o777 == 0o600


def test_all_receipts_on_a_stick_are_taken_and_again_without_harm(box: Box) -> None:
    box.rig.export(ListedOutward(Span("result", "e1", 1, 3)))
    box.rig.export(ListedOutward(Span("result", "e1", 1, 5)))
    box.rig.import_all()
    for medium in (box.rig.medium, box.rig.medium / "edged-export", box.rig.medium):
        ran = box.run("import-receipt", medium, "--json")
        assert ran.code == 0
        assert [told["home"] for told in json.loads(ran.out)] == [3, 2]
    assert len(box.laid) == 2


def test_a_stick_without_a_receipt_for_us_is_said(box: Box) -> None:
    ran = box.run("import-receipt", box.rig.medium)
    assert (ran.code, ran.out) == (0, "no receipt for this gateway there\n")


def test_a_forged_receipt_is_refused_and_not_laid_down(box: Box) -> None:
    receipt = box.there_and_back()
    receipt.write_bytes(receipt.read_bytes().replace(b"[1,5]", b"[1,9]"))
    assert refusals(box.run("import-receipt", receipt, "--json")) == ["bad_signature"]
    ran = box.run("import-receipt", receipt)
    assert "bad_signature" in ran.out
    assert box.laid == []


def test_a_refused_receipt_stops_no_other(box: Box) -> None:
    receipt = box.there_and_back()
    (box.folder / "junk").write_bytes(b"junk")
    with (box.folder / "huge").open("wb") as sparse:
        sparse.truncate(2**40)
    ran = box.run("import-receipt", box.folder / "junk", box.folder / "huge", receipt, "--json")
    assert ran.code == ExitCode.REFUSED
    assert [told.get("refused", "taken") for told in json.loads(ran.out)] == ["bad_document", "bad_document", "taken"]
    assert len(box.laid) == 1


def test_a_receipt_for_an_export_that_is_not_remembered_is_refused_with_comfort(box: Box) -> None:
    receipt = box.there_and_back()
    (box.rig.state_dir / "exports" / "000001-00000001.json").unlink()
    ran = box.run("import-receipt", receipt)
    assert ran.code == ExitCode.REFUSED
    assert "unknown_export" in ran.out
    assert "nothing is lost" in ran.out


def signed(box: Box, receipt: Path, secret: keys.HubSecret | None = None, **fields: object) -> None:
    told = stick.read_receipt(receipt.read_bytes(), (box.rig.hub.public,), "lyon", "gw-03")
    receipt.write_bytes(stick.sign_receipt(msgspec.structs.replace(told, **fields), secret or box.rig.hub))


def test_a_receipt_that_claims_more_than_the_export_held_is_refused(box: Box) -> None:
    receipt = box.there_and_back()
    signed(box, receipt, home=(stick.Home("e1", "result", ((1, 6),)),))
    assert refusals(box.run("import-receipt", receipt, "--json")) == ["claims_too_much"]
    assert box.laid == []


def test_a_receipt_by_a_hub_that_is_not_trusted_is_refused(box: Box) -> None:
    receipt = box.there_and_back()
    signed(box, receipt, keys.new_hub_secret())
    assert refusals(box.run("import-receipt", receipt, "--json")) == ["unknown_signer"]


@pytest.mark.parametrize(
    ("upstream", "meta"),
    [(STICK, b'{"receiver":"another-db"}'), (STICK + 'receiver = "another-db"\n', b"{}")],
    ids=["answered", "configured"],
)
def test_a_receipt_of_another_database_than_ours_is_refused(
    tmp_path: Path, edged: Edged, upstream: str, meta: bytes
) -> None:
    box = Box(tmp_path, edged, upstream, meta)
    assert refusals(box.run("import-receipt", box.there_and_back(), "--json")) == ["other_receiver"]


def test_what_was_not_taken_and_a_fork_are_told_to_people() -> None:
    told = {
        "export_id": "000001-00000001", "home": 0, "receiver": "db", "forked": [{"epoch": "e1", "seq": 3}],
        "not_taken": 2, "reasons": ["bad_checksum"],
    }  # fmt: skip
    assert list(describe_receipts([told])) == [
        "taken    export 000001-00000001: 0 home at db",
        "  the hub has other rows under these numbers: this store is an old copy, its rows get a new epoch",
        "  2 files were not taken (bad_checksum): their rows go with the next export",
    ]


def test_a_fork_reaches_the_folder_of_the_daemon(box: Box) -> None:
    receipt = box.there_and_back()
    signed(box, receipt, home=(), forks=(Fork("e1", 3),))
    ran = box.run("import-receipt", receipt, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)[0]["forked"] == [{"epoch": "e1", "seq": 3}]
    assert len(box.laid) == 1


# --- what is missing --------------------------------------------------------------------------------------------


def test_without_a_key_of_the_hub_the_configuration_is_what_is_wrong(tmp_path: Path, edged: Edged) -> None:
    box = Box(tmp_path, edged, upstream="rate_limit_kbit_s = 8\n")
    ran = box.run("import-receipt", box.there_and_back())
    assert ran.code == ExitCode.CONFIG
    assert "hub_keys_file" in ran.err
    given = box.run("import-receipt", box.there_and_back(export=False), "--hub-keys", tmp_path / "hub.pub")
    assert given.code == 0


def test_a_gateway_without_an_upstream_has_nothing_to_export(tmp_path: Path, edged: Edged) -> None:
    box = Box(tmp_path, edged, upstream="")
    ran = box.run("export", "--to", tmp_path)
    assert ran.code == ExitCode.CONFIG
    assert "[upstream]" in ran.err


def test_a_folder_that_is_not_there_is_a_usage_error(box: Box) -> None:
    assert box.run("export", "--to", box.folder / "gone").code == ExitCode.USAGE
    assert box.run("import-receipt", box.folder / "gone").code == ExitCode.USAGE


def test_an_export_is_told_in_lines(tmp_path: Path) -> None:
    rig = StickRig(tmp_path)
    done = rig.export(ListedOutward(Span("result", "e1", 1, 5), Span("result", "e1", 6, 8, lost="budget")))
    lines = list(describe(done, rig.hub.public))
    assert lines[0].startswith("exported 5 rows and 3 that were given up in 2 files, ")
    assert lines[1] == f"sealed to the hub {rig.hub.public.fingerprint}"
    rest = Exported(None, None, 0, left=7, elsewhere=3, too_large=1, removed_parts=1)
    assert [line.split()[0] for line in describe(rest, rig.hub.public)] == ["nothing", "left", "on", "too", "removed"]
