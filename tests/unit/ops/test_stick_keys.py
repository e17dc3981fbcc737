"""Key files: made once, private, and trusted only where they are what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.errors import EdgedError, ExitCode
from edged.ops import stick_keys
from edged.ops.durable_files import FileTrouble
from edged.sync import keys
from edged.sync.keys import StickRefused


def test_a_secret_is_made_on_first_use_and_stays(tmp_path: Path) -> None:
    first = stick_keys.gateway_secret(tmp_path)
    file = tmp_path / "identity" / "stick.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert stick_keys.gateway_secret(tmp_path) == first
    assert [path.name for path in file.parent.iterdir()] == ["stick.key"]


def test_the_hub_has_keys_of_its_own(tmp_path: Path) -> None:
    assert stick_keys.hub_secret(tmp_path) == stick_keys.hub_secret(tmp_path)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    stick_keys.gateway_secret(tmp_path)
    (tmp_path / "identity" / "stick.key").chmod(0o640)
    with pytest.raises(StickRefused) as caught:
        stick_keys.gateway_secret(tmp_path)
    assert (caught.value.reason, caught.value.exit_code) == ("key_exposed", ExitCode.REFUSED)


def test_a_damaged_secret_is_never_replaced_silently(tmp_path: Path) -> None:
    stick_keys.gateway_secret(tmp_path)
    file = tmp_path / "identity" / "stick.key"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StickRefused, match="is no text"):
        stick_keys.gateway_secret(tmp_path)
    file.write_text("edged-gateway-secret AAAA\n")
    with pytest.raises(StickRefused, match=r"stick\.key"):
        stick_keys.gateway_secret(tmp_path)
    assert file.read_text() == "edged-gateway-secret AAAA\n"


def test_a_state_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileTrouble, match="does not exist"):
        stick_keys.gateway_secret(tmp_path / "gone")


def test_an_identity_that_is_no_folder_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("in the way")
    with pytest.raises(FileTrouble) as caught:
        stick_keys.gateway_secret(tmp_path)
    assert caught.value.exit_code == ExitCode.IO


def test_hubs_are_trusted_by_file(tmp_path: Path) -> None:
    hub = keys.new_hub_secret().public
    file = tmp_path / "hub.pub"
    with pytest.raises(EdgedError, match="No such file"):
        stick_keys.trusted_hubs(file)
    file.write_text(hub.line)
    assert stick_keys.trusted_hubs(file) == (hub,)
    file.write_text(hub.line.replace("edged-hub-key", "ssh-ed25519"))
    with pytest.raises(StickRefused, match="bad_key"):
        stick_keys.trusted_hubs(file)


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge"])
def test_what_is_no_key_file_neither_hangs_nor_fills_the_memory(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "hub.pub"
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "huge":
            with file.open("wb") as sparse:
                sparse.truncate(2**40)
    with pytest.raises(FileTrouble):
        stick_keys.trusted_hubs(file)


def test_a_gateway_is_known_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(StickRefused, match="foreign_gateway") as caught:
        stick_keys.gateway_key(tmp_path, "lyon", "gw-03")
    assert "edged store identity" in caught.value.hint
    public = keys.new_gateway_secret().public
    (tmp_path / "lyon").mkdir()
    (tmp_path / "lyon" / "gw-03.pub").write_text(public.line)
    assert stick_keys.gateway_key(tmp_path, "lyon", "gw-03") == public
