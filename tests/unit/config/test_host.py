"""What the configuration promises about this machine: models, certificates, secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.config.host import file_fault
from tests.unit.config.conftest import VALID, Examine, keys, only, spoil

URL = 'url = "mqtt://127.0.0.1:1883"'
SLOT = ('path = "pump.onnx"', 'slot = "pump"')
MANIFEST = "state/models/pump/manifest.json"
MODEL = "state/models/pump/model.onnx"


def manifest(*files: object) -> bytes:
    return json.dumps({"files": files}).encode()


def test_a_missing_model_file_is_a_problem_that_names_it(look: Examine, tmp_path: Path) -> None:
    problem = only(look(spoil(('"pump.onnx"', '"models/none.onnx"'))))
    assert (problem.key, problem.message) == ("pipeline[pump].model.path", "does not exist")
    assert problem.got == f'"{tmp_path}/models/none.onnx"'


def test_a_missing_smaller_model_is_a_problem_that_names_it(look: Examine) -> None:
    problem = only(look(spoil(("[pipeline.output]", '[pipeline.model.smaller]\nslot = "tiny"\n[pipeline.output]'))))
    assert problem.key == "pipeline[pump].model.smaller.slot"
    assert "has no model" in problem.message


def test_the_daemon_may_start_without_its_model(look: Examine) -> None:
    assert look(spoil(('"pump.onnx"', '"none.onnx"')), need_models=False).config is not None


def test_a_model_that_is_a_folder_or_has_an_impossible_name_is_a_problem(look: Examine) -> None:
    assert only(look(spoil(('"pump.onnx"', '"."')))).message == "is a folder"
    assert "cannot be read" in only(look(spoil(('"pump.onnx"', '"a\\u0000"')))).message


def test_a_model_beyond_the_limit_of_the_hardware_class_is_a_problem(look: Examine) -> None:
    text = VALID + "\n[hardware.limits]\nmodel_bytes = 4\n"
    problem = only(look(text))
    assert (problem.key, problem.got, problem.unit) == ("pipeline[pump].model.path", "5", "bytes")
    assert "up to 4 bytes" in problem.allowed


def test_a_complete_slot_is_no_problem_and_need_not_be_writable(look: Examine, tmp_path: Path) -> None:
    files = {MANIFEST: manifest({"path": "model.onnx", "size": 3}), MODEL: b"abc"}
    look(spoil(SLOT), files=files)
    for folder in (tmp_path / "state", tmp_path / "state/models", tmp_path / "state/models/pump"):
        folder.chmod(0o555)
    try:
        assert look(spoil(SLOT)).config is not None
    finally:
        for folder in (tmp_path / "state", tmp_path / "state/models", tmp_path / "state/models/pump"):
            folder.chmod(0o755)


def test_an_empty_slot_is_a_problem_that_names_the_manifest(look: Examine, tmp_path: Path) -> None:
    problem = only(look(spoil(SLOT)))
    assert problem.key == "pipeline[pump].model.slot"
    assert f"{tmp_path}/{MANIFEST} does not exist" in problem.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (manifest({"path": "model.onnx"}), "model.onnx does not exist"),
        (manifest(), "lists no files"),
        (manifest({"path": "../other.onnx"}), "outside the slot"),
        (manifest({"path": "/etc/passwd"}), "outside the slot"),
        (manifest({"path": 3}), "outside the slot"),
        (manifest("model.onnx"), "is not a manifest"),
        (manifest({}), "is not a manifest"),
        (b"[]", "is not a manifest"),
        (b"{", "is not a manifest"),
        (b"\xff", "is not a manifest"),
        (b"[" * 100_000, "is not a manifest"),
        (b" " * 1_000_001, "too long"),
    ],
)
def test_a_bad_manifest_is_a_problem(look: Examine, content: bytes, message: str) -> None:
    problem = only(look(spoil(SLOT), files={MANIFEST: content}))
    assert message in problem.message


def test_a_file_of_another_size_than_in_the_manifest_is_a_problem(look: Examine) -> None:
    files = {MANIFEST: manifest({"path": "model.onnx", "size": 4}), MODEL: b"abc"}
    assert "has 3 bytes instead of 4" in only(look(spoil(SLOT), files=files)).message


def test_a_slot_beyond_the_limit_is_a_problem(look: Examine) -> None:
    files = {MANIFEST: manifest({"path": "model.onnx"}), MODEL: b"abcde"}
    text = spoil(SLOT) + "\n[hardware.limits]\nmodel_bytes = 4\n"
    assert "larger model" in only(look(text, files=files)).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_this_user_must_not_read_is_a_problem(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    assert file_fault(str(secret)) == "must not be read by this user"


def test_a_file_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert "cannot be read" in file_fault(str(tmp_path / "a" / "b"))


def test_a_missing_password_file_is_a_problem(look: Examine) -> None:
    text = spoil((URL, URL + '\nusername = "u"\npassword_file = "none"'))
    assert keys(look(text)) == ["broker.password_file"]


def test_a_credential_can_only_be_checked_inside_the_service(look: Examine, tmp_path: Path) -> None:
    text = spoil((URL, URL + '\nusername = "u"\npassword_credential = "broker"'))
    outside = look(text)
    assert outside.config is not None
    assert [note.key for note in outside.notes] == ["broker.password_credential"]
    inside = look(text, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "LoadCredential=" in only(inside).cure
    assert look(text, files={"broker": b"pw"}, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).notes == ()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A certificate with its key, another key, and the first key under a password, all PEM."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("genpkey", *curve, "-out", "key.pem")
    openssl("genpkey", *curve, "-out", "other.pem")
    openssl("req", "-x509", "-key", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=gateway")
    openssl("pkey", "-in", "key.pem", "-aes128", "-passout", "pass:x", "-out", "locked.pem")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tls(key: str, ca: str = "cert.pem") -> str:
    lines = f'\nca_file = "{ca}"\ncert_file = "cert.pem"\nkey_file = "{key}"'
    return spoil((URL, 'url = "mqtts://broker"' + lines))


def test_matching_certificates_are_no_problem(look: Examine, certificates: dict[str, bytes]) -> None:
    assert look(tls("key.pem"), files=certificates).config is not None


@pytest.mark.parametrize("key", ["other.pem", "locked.pem", "cert.pem"])
def test_a_key_that_does_not_fit_is_a_problem(look: Examine, certificates: dict[str, bytes], key: str) -> None:
    assert keys(look(tls(key), files=certificates)) == ["broker.key_file"]


def test_a_ca_file_without_certificate_is_a_problem(look: Examine, certificates: dict[str, bytes]) -> None:
    assert keys(look(tls("key.pem", ca="key.pem"), files=certificates)) == ["broker.ca_file"]


def test_missing_certificates_are_all_named(look: Examine) -> None:
    assert keys(look(tls("key.pem"))) == ["broker.ca_file", "broker.cert_file", "broker.key_file"]
