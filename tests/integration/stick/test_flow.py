"""From the gateway onto a stick, into the hub, and the receipt back: what arrives is what was made, once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edged.errors import EdgedError
from edged.hub.ports import DatabaseAway
from edged.hub.stick import Outcome
from edged.sync import keys, stick
from edged.sync.keys import StickRefused
from edged.sync.protocol import RANGES_MAX, AckStatus, Stream
from edged.sync.ranges import Ranges
from edged.uplink.export import NoRoom, Room
from edged.uplink.export_records import ExportsBusy, held
from tests.doubles.outward import ListedOutward, Span
from tests.doubles.stick_rig import StickRig

RESULTS = Span("result", "e1", 1, 21_000)


@pytest.fixture
def rig(tmp_path: Path) -> StickRig:
    return StickRig(tmp_path)


def one(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def receipt_of(rig: StickRig, outcome: Outcome) -> stick.Receipt:
    return stick.read_receipt(outcome.receipt, (rig.hub.public,), "lyon", "gw-03")


def resign(rig: StickRig, change: Callable[[stick.Manifest], stick.Manifest], name: str = "") -> None:
    """Change the manifest of the only export as its own gateway could."""
    (folder,) = (path for path in rig.folder.iterdir() if path.is_dir())
    file = folder / stick.MANIFEST_NAME
    manifest = stick.read_manifest(file.read_bytes(), rig.secret.public, "lyon", "gw-03", folder.name)
    file.write_bytes(stick.sign_manifest(change(manifest), rig.secret))


# --- the way home -----------------------------------------------------------------------------------------------


def test_everything_arrives_once_and_the_receipt_names_exactly_that(rig: StickRig) -> None:
    outward = ListedOutward(
        Span("alarm", "e1", 1, 3), Span("health", "e1", 1, 40), Span("result", "e1", 1, 400, lost="budget"),
        Span("result", "e1", 401, 9000), Span("result", "e2", 9001, 9100),
    )  # fmt: skip
    done = rig.export(outward)
    assert done.manifest is not None
    assert (done.manifest.rows, done.manifest.lost, done.left) == (8743, 400, 0)

    outcome = one(rig.import_all())

    assert outcome.ok
    assert (outcome.home, outcome.before) == (9143, 0)
    assert rig.database.home == {
        ("lyon", "gw-03", "e1", "alarm"): ((1, 3),), ("lyon", "gw-03", "e1", "health"): ((1, 40),),
        ("lyon", "gw-03", "e1", "result"): ((1, 9000),), ("lyon", "gw-03", "e2", "result"): ((9001, 9100),),
    }  # fmt: skip
    receipt = receipt_of(rig, outcome)
    assert stick.home_of(receipt) == {
        "e1": {"alarm": ((1, 3),), "health": ((1, 40),), "result": ((1, 9000),)},
        "e2": {"result": ((9001, 9100),)},
    }
    assert receipt.receiver == "hub-db-1"
    written = rig.folder / f"{outcome.export_id}.receipt.json"
    assert written.read_bytes() == outcome.receipt


def test_alarms_stand_first_on_the_stick(rig: StickRig) -> None:
    done = rig.export(ListedOutward(RESULTS, Span("alarm", "e1", 1, 2), Span("health", "e1", 1, 2)))
    assert done.manifest is not None
    assert [file.stream for file in done.manifest.files][:2] == ["alarm", "health"]
    firsts = [file.first for file in done.manifest.files if file.stream == "result"]
    assert firsts == sorted(firsts)


def test_the_same_stick_again_changes_nothing(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    first = one(rig.import_all())
    written = rig.database.rows_written
    second = one(rig.import_all())
    assert (second.home, second.before) == (21_000, 21_000)
    assert rig.database.rows_written == written
    assert receipt_of(rig, second).home == receipt_of(rig, first).home


def test_what_is_home_already_is_not_exported(rig: StickRig) -> None:
    home: dict[Stream, tuple[tuple[int, int], ...]] = {"result": ((1, 20_000), (20_500, 20_900))}
    done = rig.export(ListedOutward(RESULTS), home=home)
    assert done.manifest is not None
    assert stick.contents(done.manifest.files) == {"e1": {"result": ((20_001, 20_499), (20_901, 21_000))}}


def test_nothing_to_export_leaves_the_stick_as_it_was(rig: StickRig) -> None:
    done = rig.export(ListedOutward(RESULTS), home={"result": ((1, 21_000),)})
    assert (done.manifest, done.left) == (None, 0)
    assert list(rig.folder.iterdir()) == []


def test_streams_that_do_not_go_home_stay(rig: StickRig) -> None:
    done = rig.export(ListedOutward(RESULTS, Span("telemetry", "e1", 1, 9)))
    assert done.manifest is not None
    assert {file.stream for file in done.manifest.files} == {"result"}
    assert {extent.stream for extent in done.manifest.hello.extents} == {"result"}, "the hub would wait for the others"


# --- several sticks ---------------------------------------------------------------------------------------------


def limited(rig: StickRig, rows: int = 21_000) -> list[int]:
    """Export with little room until nothing is left; the numbers of each export."""
    outward = ListedOutward(Span("health", "e1", 1, rows), payload_bytes=200)
    counts: list[int] = []
    while True:
        done = rig.export(outward, room=Room(max_bytes=1_500_000))
        if done.manifest is None:
            return counts
        assert done.size_bytes <= 1_500_000
        counts.append(done.manifest.rows)


def test_a_small_stick_takes_the_oldest_and_the_next_call_continues_behind_it(rig: StickRig) -> None:
    counts = limited(rig)
    assert len(counts) > 1
    assert sum(counts) == 21_000
    outcomes = rig.import_all()
    assert [outcome.home for outcome in outcomes] == counts
    assert all(outcome.before == 0 for outcome in outcomes)
    assert rig.database.home == {("lyon", "gw-03", "e1", "health"): ((1, 21_000),)}


def test_how_much_is_left_is_said_to_both_sides(rig: StickRig) -> None:
    outward = ListedOutward(Span("health", "e1", 1, 21_000), payload_bytes=200)
    done = rig.export(outward, room=Room(max_bytes=1_500_000))
    assert done.manifest is not None
    assert done.left == 21_000 - done.manifest.rows
    assert one(rig.import_all()).left == done.left


def test_a_lost_stick_is_written_again_when_asked_for(rig: StickRig) -> None:
    outward = ListedOutward(RESULTS)
    first = rig.export(outward)
    assert first.manifest is not None
    shutil.rmtree(rig.folder)
    after = rig.export(outward)
    assert (after.manifest, after.elsewhere) == (None, 21_000)
    again = rig.export(outward, again=True)
    assert again.manifest is not None
    assert again.manifest.rows == 21_000
    assert again.manifest.export_id > first.manifest.export_id


def test_what_a_receipt_leaves_out_goes_with_the_next_export(rig: StickRig) -> None:
    outward = ListedOutward(Span("health", "e1", 1, 40_000), Span("alarm", "e1", 1, 5))
    done = rig.export(outward)
    assert done.manifest is not None
    assert done.path is not None
    broken = done.manifest.files[-1]
    (done.path / broken.name).write_bytes(b"a bad sector")
    outcome = one(rig.import_all())
    assert [(name, code) for name, code, _ in outcome.files] == [(broken.name, "bad_checksum")]
    receipt = receipt_of(rig, outcome)
    with held(rig.state_dir) as records:
        record = records.find(outcome.export_id)
        assert record is not None
        stick.check_exported(receipt, record.manifest_sha256, record.contents)
        records.settle(record, receipt.home)
    shutil.rmtree(rig.folder)
    second = rig.export(outward)
    assert second.manifest is not None
    assert stick.contents(second.manifest.files) == {"e1": {broken.stream: ((broken.first, broken.last),)}}


def test_a_store_without_room_for_its_memory_of_exports_forgets_the_oldest(rig: StickRig) -> None:
    from edged.uplink import export_records

    for number in range(1, export_records.RECORDS_MAX + 3):
        done = rig.export(ListedOutward(Span("alarm", "e1", 1, number)))
        assert done.manifest is not None
    with held(rig.state_dir) as records:
        assert len(records.all()) == export_records.RECORDS_MAX
        assert records.next_number() == export_records.RECORDS_MAX + 3
        assert records.find("../../etc/passwd") is None


def test_a_record_that_cannot_be_read_is_exported_again(rig: StickRig) -> None:
    rig.export(ListedOutward(Span("alarm", "e1", 1, 5)))
    (record,) = (rig.state_dir / "exports").iterdir()
    record.write_bytes(b"\xff{")
    done = rig.export(ListedOutward(Span("alarm", "e1", 1, 5)))
    assert done.manifest is not None
    assert done.manifest.rows == 5


def test_one_export_at_a_time(rig: StickRig) -> None:
    with held(rig.state_dir), pytest.raises(ExportsBusy):
        rig.export(ListedOutward(RESULTS))


# --- pulled out, full, too large --------------------------------------------------------------------------------


class PulledOutError(OSError):
    """The stick is gone."""


def pull_out(rig: StickRig) -> None:
    def on_file(_size_bytes: int) -> None:
        (part,) = rig.folder.iterdir()
        part.rename(rig.medium / "away")  # as the medium would vanish: what was written is out of reach
        raise PulledOutError(5, "Input/output error")

    with pytest.raises(PulledOutError):
        rig.export(ListedOutward(RESULTS), on_file=on_file)


def test_a_stick_that_is_pulled_out_is_recognised_and_nothing_is_forgotten(rig: StickRig) -> None:
    pull_out(rig)
    (rig.medium / "away").rename(rig.folder / "000001-00000001.part")

    outcome = one(rig.import_all())
    assert (outcome.refused, outcome.receipt) == ("unfinished", b"")
    assert rig.database.rows_written == 0

    done = rig.export(ListedOutward(RESULTS))
    assert done.manifest is not None
    assert (done.manifest.rows, done.removed_parts) == (21_000, 1)
    assert one(rig.import_all()).ok


def test_a_failed_export_takes_its_files_away_again(rig: StickRig) -> None:
    def on_file(_size_bytes: int) -> None:
        raise PulledOutError(28, "No space left on device")

    with pytest.raises(PulledOutError):
        rig.export(ListedOutward(RESULTS), on_file=on_file)
    assert list(rig.folder.iterdir()) == []
    assert list((rig.state_dir / "exports").iterdir()) == []


def test_files_of_others_in_an_unfinished_export_are_not_removed(rig: StickRig) -> None:
    part = rig.folder / "000009-00000009.part"
    part.mkdir(parents=True)
    (part / "holiday.jpg").write_bytes(b"picture")
    (part / "000001.box").write_bytes(b"half")
    rig.export(ListedOutward(Span("alarm", "e1", 1, 5)))
    assert [path.name for path in part.iterdir()] == ["holiday.jpg"]


def test_an_export_has_at_most_so_many_files_and_the_next_goes_on(rig: StickRig) -> None:
    home: dict[Stream, Ranges] = {"alarm": tuple((number, number) for number in range(2, 60, 2))}
    first = rig.export(ListedOutward(Span("alarm", "e1", 1, 60)), home=home, room=Room(files_max=20))
    assert first.manifest is not None
    assert (len(first.manifest.files), first.left) == (20, 11)
    second = rig.export(ListedOutward(Span("alarm", "e1", 1, 60)), home=home, room=Room(files_max=20))
    assert second.manifest is not None
    assert (second.manifest.files[0].first, second.left) == (41, 0)


def test_no_room_for_a_single_batch_is_said(rig: StickRig) -> None:
    with pytest.raises(NoRoom, match="not even one batch"):
        rig.export(ListedOutward(RESULTS), room=Room(max_bytes=1000))
    assert list(rig.folder.iterdir()) == []


def test_large_rows_go_in_smaller_batches(rig: StickRig) -> None:
    done = rig.export(ListedOutward(Span("health", "e1", 1, 40), payload_bytes=400_000))
    assert done.manifest is not None
    assert done.manifest.rows == 40
    assert len(done.manifest.files) > 7
    assert one(rig.import_all()).home == 40


def test_a_row_that_fits_in_no_batch_stays_and_stops_nothing(rig: StickRig) -> None:
    class OneHuge(ListedOutward):
        def _rows(self, stream: Stream, first: int, n: int):  # type: ignore[no-untyped-def]
            self.payload_bytes = 3_000_000 if first <= 3 < first + n else 20
            return super()._rows(stream, first, n)

    done = rig.export(OneHuge(Span("health", "e1", 1, 10)))
    assert done.manifest is not None
    assert (done.manifest.rows, done.too_large, done.left) == (9, 1, 1)
    shutil.rmtree(rig.state_dir / "exports")
    only = rig.export(OneHuge(Span("health", "e1", 3, 3)))
    assert (only.manifest, only.too_large) == (None, 1)


# --- the hub --------------------------------------------------------------------------------------------------


def test_a_database_that_goes_away_leaves_no_receipt_and_the_next_import_ends_it(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.database.away_after = 1
    with pytest.raises(DatabaseAway):
        rig.import_all()
    assert list(rig.folder.glob("*.receipt.json")) == []
    assert rig.database.rows_written > 0
    rig.database.away_after = None
    outcome = one(rig.import_all())
    assert outcome.ok
    assert 0 < outcome.before < 21_000
    assert rig.database.rows_written == 21_000


def test_a_database_that_says_retry_is_away(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.database.answer = ("retry", "database_slow")
    with pytest.raises(DatabaseAway, match="database_slow"):
        rig.import_all()


def test_a_hub_that_rejects_the_gateway_says_so(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.database.answer = ("reject", "foreign_gateway")
    outcome = one(rig.import_all())
    assert (outcome.refused, outcome.receipt) == ("foreign_gateway", b"")


@pytest.mark.parametrize(("status", "reason"), [("retry", "busy"), ("reject", "before_base")])
def test_a_batch_that_the_database_does_not_take_stops_none_behind_it(
    rig: StickRig, status: AckStatus, reason: str
) -> None:
    rig.export(ListedOutward(Span("alarm", "e1", 1, 5), Span("health", "e1", 1, 5)))
    rig.database.answers["alarm"] = (status, reason)
    outcome = one(rig.import_all())
    assert [(name, code) for name, code, _ in outcome.files] == [("000001.box", reason)]
    assert rig.database.home == {("lyon", "gw-03", "e1", "health"): ((1, 5),)}
    receipt = receipt_of(rig, outcome)
    assert (receipt.refused_n, receipt.refused) == (1, (stick.RefusedFile("000001.box", reason),))


def test_a_hello_that_the_database_cannot_answer_now_is_away(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.database.answer = ("retry", "busy")
    with pytest.raises(DatabaseAway, match="busy"):
        rig.import_all()


def test_a_damaged_file_does_not_hide_where_histories_part(rig: StickRig) -> None:
    class Unseen(ListedOutward):
        def probes(self, after_seq: int, limit: int):  # type: ignore[no-untyped-def]
            return ()

    rig.export(ListedOutward(Span("result", "e1", 1, 9000), boot="boot-2"))
    assert one(rig.import_all()).ok
    shutil.rmtree(rig.folder)
    old = rig.export(Unseen(Span("result", "e1", 1, 9000), boot="boot-1"), again=True)
    assert old.manifest is not None
    assert old.path is not None
    assert len(old.manifest.files) > 1
    (old.path / old.manifest.files[-1].name).write_bytes(b"a bad sector")
    outcome = one(rig.import_all())
    assert [fork.seq for fork in outcome.forks] == [old.manifest.files[-2].last]


def test_receipts_go_where_they_are_asked_for_too(rig: StickRig, tmp_path: Path) -> None:
    rig.export(ListedOutward(RESULTS))
    (tmp_path / "mail").mkdir()
    outcome = one(rig.import_all(tmp_path / "mail"))
    (receipt,) = (tmp_path / "mail").iterdir()
    assert receipt.name == f"lyon.gw-03.{outcome.export_id}.receipt.json"
    assert receipt.read_bytes() == outcome.receipt


def test_a_stick_that_cannot_be_written_needs_another_place_for_the_receipt(rig: StickRig, tmp_path: Path) -> None:
    done = rig.export(ListedOutward(RESULTS))
    assert done.manifest is not None
    (rig.folder / f"{done.manifest.export_id}.receipt.json").mkdir()
    with pytest.raises(EdgedError, match="Writing the receipt"):
        rig.import_all()
    (tmp_path / "mail").mkdir()
    assert one(rig.import_all(tmp_path / "mail")).ok
    assert len(list((tmp_path / "mail").iterdir())) == 1


# --- stores that were put back from a copy ----------------------------------------------------------------------


def test_a_store_that_was_put_back_is_told_by_the_receipt_and_nothing_is_taken(rig: StickRig) -> None:
    rig.export(ListedOutward(Span("result", "e1", 1, 100), boot="boot-1"))
    assert one(rig.import_all()).ok
    shutil.rmtree(rig.folder)
    shutil.rmtree(rig.state_dir / "exports")
    restored = ListedOutward(Span("result", "e1", 50, 80), boot="boot-2")
    rig.export(restored)

    outcome = one(rig.import_all())

    assert not outcome.ok
    assert [(fork.epoch, fork.seq) for fork in outcome.forks] == [("e1", 50)]
    receipt = receipt_of(rig, outcome)
    assert (receipt.forks, receipt.home) == (outcome.forks, ())
    assert rig.database.rows_written == 100


def test_an_export_of_the_history_that_was_given_up_does_not_fill_the_numbers_of_the_other(rig: StickRig) -> None:
    class Unseen(ListedOutward):
        def probes(self, after_seq: int, limit: int):  # type: ignore[no-untyped-def]
            return ()

    rig.export(Unseen(Span("result", "e1", 1, 9000), boot="boot-1"))
    (old,) = (path for path in rig.folder.iterdir() if path.is_dir())
    old.rename(rig.medium / "courier")
    shutil.rmtree(rig.state_dir / "exports")
    rig.export(ListedOutward(Span("result", "e1", 1, 5500), boot="boot-2"))
    assert one(rig.import_all()).ok
    shutil.rmtree(rig.folder)
    rig.folder.mkdir()
    (rig.medium / "courier").rename(rig.folder / old.name)

    outcome = one(rig.import_all())

    assert [(fork.epoch, fork.seq) for fork in outcome.forks] == [("e1", 5500)]
    assert rig.database.home == {("lyon", "gw-03", "e1", "result"): ((1, 5500),)}


# --- hostile sticks ---------------------------------------------------------------------------------------------


def test_the_export_of_an_unknown_gateway_is_refused(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.gateway_keys.clear()
    outcome = one(rig.import_all())
    assert (outcome.refused, rig.database.rows_written) == ("foreign_gateway", 0)


def test_an_export_in_the_folder_of_another_gateway_is_refused(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.gateway_keys["lyon", "gw-04"] = keys.new_gateway_secret().public
    rig.folder.rename(rig.folder.with_name("gw-04"))
    assert one(rig.import_all()).refused == "unknown_signer"
    rig.gateway_keys["lyon", "gw-04"] = rig.secret.public
    assert one(rig.import_all()).refused == "foreign_gateway"
    assert rig.database.rows_written == 0


def test_an_export_under_another_name_is_refused(rig: StickRig) -> None:
    done = rig.export(ListedOutward(RESULTS))
    assert done.path is not None
    done.path.rename(done.path.with_name("000009-ffffffff"))
    assert one(rig.import_all()).refused == "foreign_gateway"


def test_an_export_for_another_hub_is_refused(rig: StickRig) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.hub = keys.new_hub_secret()
    outcome = one(rig.import_all())
    assert outcome.refused == "wrong_receiver"
    assert "edged-hub keys" in outcome.hint


def test_files_exchanged_between_two_exports_are_refused_and_the_others_are_taken(rig: StickRig) -> None:
    first = rig.export(ListedOutward(Span("alarm", "e1", 1, 5), Span("health", "e1", 1, 5)))
    second = rig.export(ListedOutward(Span("alarm", "e1", 1, 9), Span("health", "e1", 1, 9)))
    assert first.path is not None
    assert second.path is not None
    a, b = first.path / "000001.box", second.path / "000001.box"
    a.rename(rig.medium / "x")
    b.rename(a)
    (rig.medium / "x").rename(b)
    outcomes = rig.import_all()
    assert [[(name, code) for name, code, _ in outcome.files] for outcome in outcomes] == [
        [("000001.box", "bad_checksum")], [("000001.box", "bad_checksum")],
    ]  # fmt: skip
    assert rig.database.home == {("lyon", "gw-03", "e1", "health"): ((1, 9),)}
    for outcome in outcomes:
        assert set(stick.home_of(receipt_of(rig, outcome))["e1"]) == {"health"}


@pytest.mark.parametrize("kind", ["gone", "link", "folder", "pipe", "huge", "cut"])
def test_a_file_that_is_not_what_it_was_is_refused_with_its_reason(rig: StickRig, kind: str) -> None:
    done = rig.export(ListedOutward(Span("alarm", "e1", 1, 5), Span("health", "e1", 1, 5)))
    assert done.path is not None
    file = done.path / "000001.box"
    data = file.read_bytes()
    file.unlink()
    match kind:
        case "link":
            (rig.medium / "same").write_bytes(data)
            file.symlink_to(rig.medium / "same")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "huge":
            with file.open("wb") as sparse:
                sparse.truncate(2**40)
        case "cut":
            file.write_bytes(data[:-10])
    outcome = one(rig.import_all())
    expected = {"gone": "missing_file", "huge": "too_large", "cut": "bad_checksum"}.get(kind, "bad_name")
    assert [(name, code) for name, code, _ in outcome.files] == [("000001.box", expected)]
    assert rig.database.home == {("lyon", "gw-03", "e1", "health"): ((1, 5),)}


@pytest.mark.parametrize("kind", ["gone", "link", "huge", "empty"])
def test_a_manifest_that_is_none_is_refused(rig: StickRig, kind: str) -> None:
    done = rig.export(ListedOutward(RESULTS))
    assert done.path is not None
    file = done.path / "manifest.json"
    data = file.read_bytes()
    file.unlink()
    match kind:
        case "link":
            (rig.medium / "same").write_bytes(data)
            file.symlink_to(rig.medium / "same")
        case "huge":
            with file.open("wb") as sparse:
                sparse.truncate(2**40)
        case "empty":
            file.touch()
    reasons = {"gone": "missing_file", "link": "bad_name", "huge": "too_large", "empty": "bad_document"}
    assert one(rig.import_all()).refused == reasons[kind]
    assert rig.database.rows_written == 0


def test_links_in_place_of_folders_are_not_followed(rig: StickRig, tmp_path: Path) -> None:
    rig.export(ListedOutward(RESULTS))
    rig.folder.rename(tmp_path / "elsewhere")
    rig.folder.symlink_to(tmp_path / "elsewhere")
    assert rig.import_all() == []
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        rig.export(ListedOutward(Span("alarm", "e1", 1, 5)))
    assert not [path for path in (tmp_path / "elsewhere").iterdir() if path.name.startswith("000002")]


def test_a_signed_manifest_that_lies_about_a_batch_is_refused(rig: StickRig) -> None:
    rig.export(ListedOutward(Span("result", "e1", 1, 50)))
    resign(
        rig,
        lambda manifest: msgspec.structs.replace(
            manifest, files=tuple(msgspec.structs.replace(file, last=90) for file in manifest.files)
        ),
    )
    outcome = one(rig.import_all())
    assert [code for _, code, _ in outcome.files] == ["bad_header"]
    assert (outcome.home, rig.database.rows_written) == (0, 0)


def test_a_bomb_in_a_sealed_batch_is_refused(rig: StickRig) -> None:
    import zstandard

    done = rig.export(ListedOutward(Span("result", "e1", 1, 50)))
    assert done.path is not None
    packer = zstandard.ZstdCompressor().compressobj()
    body = packer.compress(bytes(100_000_000)) + packer.flush()
    plain = stick.open_file((done.path / "000001.box").read_bytes(), done.manifest.files[0], rig.hub)  # type: ignore[union-attr]
    head = json.loads(plain.partition(b"\n")[0])
    head["sha256"] = hashlib.sha256(body).hexdigest()
    sealed = keys.seal(json.dumps(head).encode() + b"\n" + body, rig.hub.public)
    (done.path / "000001.box").write_bytes(sealed)
    resign(
        rig,
        lambda manifest: msgspec.structs.replace(
            manifest,
            files=(
                msgspec.structs.replace(
                    manifest.files[0], size_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest()
                ),
            ),
        ),
    )
    outcome = one(rig.import_all())
    assert [code for _, code, _ in outcome.files] in (["too_large"], ["bad_body"])
    assert rig.database.rows_written == 0


def test_a_hello_that_the_wire_would_refuse_is_refused(rig: StickRig) -> None:
    rig.export(ListedOutward(Span("result", "e1", 1, 50)))
    resign(
        rig,
        lambda manifest: msgspec.structs.replace(
            manifest, hello=msgspec.structs.replace(manifest.hello, epoch="../../x")
        ),
    )
    assert one(rig.import_all()).refused == "bad_header"


def test_many_names_on_a_stick_are_refused_and_many_files_in_an_export_are_never_looked_at(rig: StickRig) -> None:
    done = rig.export(ListedOutward(Span("result", "e1", 1, 50)))
    assert done.path is not None
    for number in range(3000):
        (done.path / f"junk-{number}").touch()
    assert one(rig.import_all()).ok
    for number in range(2001):
        (rig.folder / f"junk-{number}").touch()
    with pytest.raises(StickRefused, match="too_many"):
        rig.import_all()


def test_an_older_export_that_is_replayed_takes_nothing_back(rig: StickRig, tmp_path: Path) -> None:
    first = rig.export(ListedOutward(Span("result", "e1", 1, 100)))
    assert first.path is not None
    shutil.copytree(first.path, tmp_path / "copy")
    assert one(rig.import_all()).ok
    shutil.rmtree(rig.folder)
    rig.export(ListedOutward(Span("result", "e1", 1, 200)))
    assert one(rig.import_all()).ok
    home = dict(rig.database.home)
    shutil.rmtree(rig.folder)
    shutil.copytree(tmp_path / "copy", rig.folder / first.path.name)
    outcome = one(rig.import_all())
    assert (outcome.ok, outcome.home - outcome.before) == (True, 0)
    assert rig.database.home == home


def test_many_holes_make_many_files_and_a_receipt_that_still_fits(rig: StickRig) -> None:
    holes = tuple((number, number) for number in range(2, 400, 2))
    assert len(holes) > RANGES_MAX
    done = rig.export(ListedOutward(Span("alarm", "e1", 1, 400)), home={"alarm": holes})
    assert done.manifest is not None
    outcome = one(rig.import_all())
    assert stick.home_of(receipt_of(rig, outcome)) == stick.contents(done.manifest.files)
