"""What is refused before a runtime sees it, and how a bundle is checked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edged.errors import ModelError
from edged.infer.loading import open_model

ONNX_HEAD = b"\x08\x07\x12\x04edge"
TFLITE_HEAD = b"\x1c\x00\x00\x00TFL3"


def refused(location: Path, **options: Any) -> str:
    """The code with which a location is refused."""
    with pytest.raises(ModelError) as caught:
        open_model(location, **{"allow_unsigned": True, **options})
    assert str(caught.value)
    return caught.value.code


def file_of(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bundle(directory: Path, contents: dict[str, bytes], **changes: Any) -> Path:
    """A bundle with a correct manifest, then `changes` to the manifest's fields."""
    directory.mkdir(exist_ok=True)
    listed = []
    for name, data in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        role = "model" if name.endswith((".onnx", ".tflite")) else "extra"
        listed.append({"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": role})
    manifest = {"v": "edged.model/1", "model_id": "pump", "version": "3", "files": listed, **changes}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def listed(data: bytes, path: str, role: str = "model") -> dict[str, object]:
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": role}


def test_a_plain_file_is_identified_by_its_digest(tmp_path: Path) -> None:
    model = open_model(file_of(tmp_path / "m.onnx", ONNX_HEAD), allow_unsigned=True)
    digest = hashlib.sha256(ONNX_HEAD).hexdigest()
    assert (model.sha256, model.size_bytes, model.format, model.model_id) == (digest, len(ONNX_HEAD), "onnx", "m")
    assert model.version == f"sha256-{digest[:12]}"
    assert model.read() == ONNX_HEAD
    assert open_model(model.path, allow_unsigned=True, version="7").version == "7"


def test_without_signature_and_without_permission_nothing_is_loaded(tmp_path: Path) -> None:
    assert refused(file_of(tmp_path / "m.onnx", ONNX_HEAD), allow_unsigned=False) == "unsigned"
    assert refused(bundle(tmp_path / "b", {"m.onnx": ONNX_HEAD}), allow_unsigned=False) == "unsigned"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("m.onnx", b"", "empty"),
        ("m.tflite", b"", "empty"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "lfs_pointer"),
        ("m.onnx", TFLITE_HEAD, "wrong_format"),
        ("m.tflite", ONNX_HEAD, "wrong_format"),
        ("m.tflite", b"\0" * 64, "corrupt"),
        ("m.pkl", ONNX_HEAD, "wrong_format"),
        ("m", ONNX_HEAD, "wrong_format"),
    ],
)
def test_a_file_that_cannot_be_a_model_is_refused_with_its_reason(
    tmp_path: Path, name: str, data: bytes, code: str
) -> None:
    assert refused(file_of(tmp_path / name, data)) == code


def test_a_missing_model_is_named_missing(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.onnx") == "missing"
    assert refused(tmp_path / "absent" / "m.onnx") == "missing"


def test_a_model_beyond_the_limit_of_the_hardware_class_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.onnx", ONNX_HEAD + b"\0" * 100)
    assert refused(path, max_bytes=100) == "too_large"
    assert open_model(path, allow_unsigned=True, max_bytes=108).size_bytes == 108


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    assert refused(tmp_path / "m.onnx") == "wrong_format"


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = file_of(tmp_path / "real.onnx", ONNX_HEAD)
    (tmp_path / "m.onnx").symlink_to(target)
    assert refused(tmp_path / "m.onnx") == "outside_bundle"


def test_a_path_through_a_file_is_an_io_error_that_may_be_tried_again(tmp_path: Path) -> None:
    file_of(tmp_path / "file", b"x")
    with pytest.raises(ModelError) as caught:
        open_model(tmp_path / "file" / "m.onnx", allow_unsigned=True)
    assert (caught.value.code, caught.value.retryable) == ("io", True)


def test_a_file_swapped_after_the_check_is_not_handed_to_a_runtime(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.onnx", ONNX_HEAD)
    model = open_model(path, allow_unsigned=True)
    path.write_bytes(ONNX_HEAD[:-1] + b"E")
    with pytest.raises(ModelError) as caught:
        model.read()
    assert caught.value.code == "changed"


def test_a_bundle_gives_its_model_with_the_names_of_the_manifest(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b", {"deep/m.onnx": ONNX_HEAD, "labels.txt": b"ok"})
    model = open_model(directory, allow_unsigned=True)
    assert (model.model_id, model.version, model.path) == ("pump", "3", directory / "deep/m.onnx")
    assert model.golden is None


def test_a_bundle_with_golden_vectors_names_them_with_their_tolerance(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b", {"m.onnx": ONNX_HEAD, "golden.npz": b"z"}, golden={"file": "golden.npz"})
    golden = open_model(directory, allow_unsigned=True).golden
    assert golden is not None
    assert (golden.path, golden.rtol, golden.atol) == (directory / "golden.npz", 1e-4, 1e-4)


@pytest.mark.parametrize("path", ["../m.onnx", "/m.onnx", "a/../../m.onnx", "", "a\\m.onnx", "m\0.onnx", ".."])
def test_a_manifest_that_points_out_of_its_bundle_is_refused(tmp_path: Path, path: str) -> None:
    directory = bundle(tmp_path / "b", {}, files=[listed(ONNX_HEAD, path)])
    file_of(tmp_path / "m.onnx", ONNX_HEAD)
    assert refused(directory) == "outside_bundle"


def test_symbolic_links_inside_a_bundle_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    file_of(outside / "m.onnx", ONNX_HEAD)
    directory = bundle(tmp_path / "b", {}, files=[listed(ONNX_HEAD, "link/m.onnx")])
    (directory / "link").symlink_to(outside)
    assert refused(directory) == "outside_bundle"
    directory = bundle(tmp_path / "c", {}, files=[listed(ONNX_HEAD, "m.onnx")])
    (directory / "m.onnx").symlink_to(outside / "m.onnx")
    assert refused(directory) == "outside_bundle"


def test_one_changed_byte_in_any_listed_file_refuses_the_bundle(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b", {"m.onnx": ONNX_HEAD, "labels.txt": b"ok"})
    (directory / "labels.txt").write_bytes(b"ko")
    assert refused(directory) == "digest_mismatch"
    directory = bundle(tmp_path / "c", {"m.onnx": ONNX_HEAD})
    (directory / "m.onnx").write_bytes(ONNX_HEAD[:-1])
    assert refused(directory) == "digest_mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        {"v": "edged.model/2"},
        {"files": []},
        {"files": [listed(ONNX_HEAD, "m.onnx"), listed(ONNX_HEAD, "n.onnx")]},
        {"files": [listed(ONNX_HEAD, "m.onnx"), listed(ONNX_HEAD, "m.onnx", "extra")]},
        {"files": "m.onnx"},
        {"model_id": 3},
        {"golden": {"file": "unlisted.npz"}},
    ],
)
def test_a_manifest_that_is_not_what_it_should_be_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    assert refused(bundle(tmp_path / "b", {"m.onnx": ONNX_HEAD, "n.onnx": ONNX_HEAD}, **changes)) == "bad_manifest"


def test_a_bundle_may_hold_one_model_in_several_forms_and_each_runtime_gets_its_own(tmp_path: Path) -> None:
    tpu = TFLITE_HEAD + b"edgetpu-custom-op"
    files = {"m_edgetpu.tflite": tpu, "m.tflite": TFLITE_HEAD, "m.onnx": ONNX_HEAD}
    opened = open_model(bundle(tmp_path / "b", files), allow_unsigned=True)
    assert [opened.format, *(form.format for form in opened.forms)] == ["tflite-edgetpu", "tflite", "onnx"]
    assert opened.form_for(("onnx",)).path.name == "m.onnx"
    assert opened.form_for(("tflite", "onnx")).path.name == "m.tflite"
    assert opened.form_for(("hef",)) == opened


def test_a_file_compiled_for_an_edge_tpu_brings_the_one_that_it_was_compiled_from(tmp_path: Path) -> None:
    (tmp_path / "m_edgetpu.tflite").write_bytes(TFLITE_HEAD + b"edgetpu-custom-op")
    alone = open_model(tmp_path / "m_edgetpu.tflite", allow_unsigned=True)
    (tmp_path / "m.tflite").write_bytes(TFLITE_HEAD)
    both = open_model(tmp_path / "m_edgetpu.tflite", allow_unsigned=True)
    assert (alone.format, alone.forms) == ("tflite-edgetpu", ())
    assert [form.path.name for form in both.forms] == ["m.tflite"]


def test_a_folder_without_manifest_and_one_with_garbage_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == "missing"
    (tmp_path / "manifest.json").write_bytes(b"\xff{")
    assert refused(tmp_path) == "bad_manifest"
