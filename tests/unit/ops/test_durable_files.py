"""Small files that are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edged.ops import durable_files
from edged.ops.durable_files import FileTrouble


def test_what_exists_is_not_made_again(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert durable_files.create_once(file, b"first")
    assert not durable_files.create_once(file, b"second")
    assert file.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_file_is_replaced_as_a_whole_with_the_rights_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "receipt"
    durable_files.replace(file, b"one", 0o644)
    durable_files.replace(file, b"two", 0o644)
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_replacement_that_fails_leaves_what_was_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "receipt"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        durable_files.replace(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["receipt"]


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    link = tmp_path / "receipt"
    link.symlink_to(precious)
    durable_files.replace(link, b"new")
    assert (precious.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"keep", b"new", False)


def test_a_file_that_is_longer_than_expected_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_bytes(b"12345")
    assert durable_files.read_at_most(file, 5) == b"12345"
    with pytest.raises(FileTrouble, match="more than 4 bytes"):
        durable_files.read_at_most(file, 4)


def test_what_root_makes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files for others")
    os.chown(tmp_path, 12345, 12345)
    durable_files.make_folder(tmp_path / "identity")
    durable_files.create_once(tmp_path / "identity" / "key", b"x")
    assert (tmp_path / "identity").stat().st_uid == 12345
    assert (tmp_path / "identity" / "key").stat().st_uid == 12345


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir(mode=0o755)
    durable_files.make_folder(tmp_path / "exports")
    assert (tmp_path / "exports").stat().st_mode & 0o777 == 0o755


def test_a_file_system_that_cannot_sync_folders_is_no_error_but_a_bad_descriptor_is() -> None:
    reading, writing = os.pipe()
    try:
        durable_files.sync_open_folder(reading)  # fsync of a pipe: EINVAL, as of folders on some FUSE file systems
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        durable_files.sync_open_folder(reading)
    assert caught.value.errno == errno.EBADF
