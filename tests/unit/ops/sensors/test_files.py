"""Small files: bounded, never in the way, None for whatever is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.ops.sensors.files import MOST_BYTES, count, entries, text, whole


def test_text_comes_without_blanks_and_nuls(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b" Raspberry Pi 4\n\0")
    assert text(tmp_path / "model") == "Raspberry Pi 4"


def test_no_more_than_a_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("1" * 3 * MOST_BYTES)
    assert len(text(tmp_path / "large") or "") == MOST_BYTES


def test_what_is_missing_a_folder_or_no_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert [text(tmp_path / name) for name in ("gone", ".", "bytes")] == [None, None, None]


def test_a_pipe_that_nobody_writes_to_does_not_keep_us_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert whole(tmp_path / "pipe") is None


@pytest.mark.parametrize(("said", "number"), [("12", 12), ("0x1f", None), ("-1", None), ("", None), ("many", None)])
def test_a_count_is_a_number_from_zero(tmp_path: Path, said: str, number: int | None) -> None:
    (tmp_path / "n").write_text(said)
    assert count(tmp_path / "n") == number


def test_entries_come_in_natural_order_and_bounded(tmp_path: Path) -> None:
    for number in (10, 2, 1, 0):
        (tmp_path / f"cpu{number}").touch()
    (tmp_path / "cpufreq").touch()
    assert [path.name for path in entries(tmp_path, "cpu[0-9]*", 3)] == ["cpu0", "cpu1", "cpu2"]
    assert entries(tmp_path / "gone", "*", 3) == []
