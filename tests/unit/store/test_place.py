"""Where a store may live, and that it lives there alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.errors import ExitCode, StoreError, StoreLocked
from edged.store import place
from edged.store.place import Mount, StoreLock, judge, mount_of, parse_mountinfo

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:24 / /dev/shm rw - tmpfs tmpfs rw,size=1024k
41 22 0:40 / /mnt/nas rw,relatime shared:9 - nfs4 nas:/plant rw,vers=4.2
42 22 0:41 / /mnt/share\\040one rw - cifs //nas/one rw
43 22 0:42 / /mnt/ssh rw - fuse.sshfs pi@host:/ rw
44 22 0:43 / /mnt/fuse rw - fuse.unionfs /dev/fuse rw
45 22 0:44 / /run/box rw - overlay overlay rw,lowerdir=/a,upperdir=/var/up,workdir=/w
46 22 0:45 / /run/netbox rw - overlay overlay rw,lowerdir=/a,upperdir=/mnt/nas/up,workdir=/w
47 22 0:46 / /host rw - 9p hostshare rw
a line that is no mount
48 22 254:1 / /mnt/nas/local rw - ext4 /dev/vdb rw
"""
MOUNTS = parse_mountinfo(MOUNTINFO)


def test_mountinfo_is_read_with_its_escapes_and_without_its_noise() -> None:
    assert len(MOUNTS) == 10
    assert Mount("/mnt/share one", "cifs", "//nas/one", ("rw",)) in MOUNTS


def test_the_longest_and_latest_mount_holds_a_path() -> None:
    assert mount_of("/var/lib/edged", MOUNTS) == MOUNTS[0]
    assert mount_of("/mnt/nasty", MOUNTS) == MOUNTS[0], "a name that only begins alike is another folder"
    hiding = Mount("/mnt/nas", "ext4", "/dev/vdc", ("rw",))
    assert mount_of("/mnt/nas", [*MOUNTS, hiding]) == hiding


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/nas/edged", "nfs4"),
        ("/mnt/share one", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/run/netbox/var", "nfs4"),
        ("/host", "9p"),
    ],
)
def test_a_network_file_system_is_refused_by_name_with_a_cure(path: str, kind: str) -> None:
    with pytest.raises(StoreError, match=f"Refusing to keep the store in {path}.*{kind}.*state_dir") as refusal:
        judge(path, MOUNTS)
    assert refusal.value.exit_code == ExitCode.IO


@pytest.mark.parametrize("path", ["/var/lib/edged", "/mnt/nas/local/edged", "/mnt/fuse"])
def test_a_local_file_system_is_taken_without_a_word(path: str) -> None:
    assert judge(path, MOUNTS) == ()


@pytest.mark.parametrize(("path", "words"), [("/run/box/state", "container"), ("/dev/shm/state", "power cut")])
def test_a_file_system_that_forgets_is_taken_with_a_warning(path: str, words: str) -> None:
    (warning,) = judge(path, MOUNTS)
    assert words in warning


def test_an_unknown_file_system_is_taken_with_a_warning() -> None:
    (warning,) = judge("/var/lib/edged", [])
    assert "unknown" in warning


def test_folder_and_files_are_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    place.prepare(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert place.create_file(folder / "store.db")
    assert not place.create_file(folder / "store.db")
    assert (folder / "store.db").stat().st_mode & 0o777 == 0o600


def test_a_second_lock_names_the_process_that_holds_the_first(tmp_path: Path) -> None:
    held = StoreLock(tmp_path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} has this store open") as locked:
        StoreLock(tmp_path)
    assert locked.value.exit_code == ExitCode.TEMPORARY
    held.release()
    held.release()
    StoreLock(tmp_path).release()


def test_a_folder_that_cannot_be_used_says_who_must_own_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"preparing .*file/state.*must own") as error:
        place.prepare(tmp_path / "file" / "state")
    assert error.value.exit_code == ExitCode.IO
    with pytest.raises(StoreError, match="creating"):
        place.create_file(tmp_path / "missing" / "store.db")
    with pytest.raises(StoreError, match="opening"):
        StoreLock(tmp_path / "missing")


def test_marking_damage_never_fails(tmp_path: Path) -> None:
    place.mark_damaged(tmp_path / "missing", "why")
    place.mark_damaged(tmp_path, "why")
    assert (tmp_path / place.MARKER_NAME).read_text() == "why"
