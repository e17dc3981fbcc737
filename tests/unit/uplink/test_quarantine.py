"""Refused batches are kept for people, in bounded number and size."""

from __future__ import annotations

from pathlib import Path

from edged.uplink import quarantine
from edged.uplink.quarantine import FILES_MAX, Quarantine


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_refused_batch_is_kept_as_it_travelled_under_a_name_that_says_what_it_is(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path / "quarantine").keep("result", 5, 9, "bad_body", b"header\nbody")

    assert kept == tmp_path / "quarantine" / "00000001-result-5-9-bad_body.batch"
    assert kept.read_bytes() == b"header\nbody"


def test_a_reason_from_outside_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path).keep("alarm", 1, 1, "../../etc/passwd\n" + "x" * 200, b"")

    assert kept.parent == tmp_path
    assert names(tmp_path) == [kept.name]


def test_the_oldest_copies_go_when_there_are_too_many(tmp_path: Path) -> None:
    for number in range(FILES_MAX + 5):
        Quarantine(tmp_path).keep("result", number, number, "bad_body", b"x")

    assert len(names(tmp_path)) == FILES_MAX
    assert names(tmp_path)[0].startswith("00000006-result-5-5")


def test_the_oldest_copies_go_when_they_are_too_large_but_the_newest_stays(tmp_path: Path) -> None:
    folder = Quarantine(tmp_path)
    for number in range(30):
        folder.keep("result", number, number, "bad_body", bytes(1_000_000))
    assert len(names(tmp_path)) == quarantine.BYTES_MAX // 1_000_000

    folder.keep("result", 99, 99, "bad_body", bytes(quarantine.BYTES_MAX + 1))
    assert [name.split("-")[2] for name in names(tmp_path)] == ["99"]


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "00000007-result-1-1-x.part").write_bytes(b"half")
    Quarantine(tmp_path).keep("result", 1, 1, "bad_body", b"x")

    assert names(tmp_path) == ["00000001-result-1-1-bad_body.batch"]
