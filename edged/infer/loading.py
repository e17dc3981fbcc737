"""A model on disk becomes a checked `ModelFile`, before any runtime sees its bytes.

What can be refused without a runtime is refused here: missing, empty, too large, a git-LFS pointer, one format under
another's extension, a bundle whose files are not the ones its manifest lists.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

import msgspec

from edged.errors import ModelError
from edged.infer.onnx_file import has_external_data
from edged.infer.tflite_file import EDGETPU_OP

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = "edged.model/1"
MAX_MANIFEST_BYTES = 1_000_000  # a manifest is text about a model, never the model
DEFAULT_MAX_BYTES = 512_000_000  # a hardware class may say less or more
MAX_GOLDEN_BYTES = 64_000_000

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_EDGETPU_SUFFIX = "_edgetpu.tflite"  # what the compiler appends
_FORMAT_OF_SUFFIX = {".onnx": "onnx", ".tflite": "tflite", ".hef": "hef"}
# Formats that plug-ins read and no built-in runtime does, by their first bytes.
_PLUGIN_MAGIC = {"hef": b"\x01HEF"}


class GoldenFile(NamedTuple):
    """Stored inputs and the answers expected for them: an .npz with arrays `in.<name>` and `out.<name>`.

    min_pass: share of the stored rows whose answers must agree; below 1 for models in another number format.
    """

    path: Path
    sha256: str
    rtol: float
    atol: float
    min_pass: float = 1.0


class ModelFile(NamedTuple):
    """A model that passed the static checks. `sha256` is of its bytes; `read()` returns no others.

    format: `onnx`, `tflite`, `tflite-edgetpu` (compiled for a Coral Edge TPU), or `hef` (compiled for a Hailo).
    forms: the same model in other formats, in the bundle's order.
    """

    path: Path
    sha256: str
    size_bytes: int
    format: str
    model_id: str
    version: str
    golden: GoldenFile | None = None
    forms: tuple[ModelFile, ...] = ()

    def form_for(self, formats: Sequence[str]) -> ModelFile:
        """The form that a runtime reads, by the order of its `formats`; this one when it reads none: it will say so."""
        for wanted in formats:
            for form in (self, *self.forms):
                if form.format == wanted:
                    return form._replace(golden=self.golden)
        return self

    def read(self) -> bytes:
        """The bytes that were checked. Raises `ModelError` (`changed`) when the file is no longer the same."""
        return read_bounded(self.path, self.sha256, self.size_bytes)


class _ManifestFile(msgspec.Struct, frozen=True):
    path: str
    sha256: str
    size: int
    role: str = "model"


class _ManifestGolden(msgspec.Struct, frozen=True):
    file: str
    tolerance: float = 1e-4
    min_pass: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class _Manifest(msgspec.Struct, frozen=True):
    """The part of `edged.model/1` that loading needs; other fields belong to other readers."""

    v: str
    model_id: str
    version: str
    files: list[_ManifestFile]
    golden: _ManifestGolden | None = None


def open_model(
    location: Path, *, allow_unsigned: bool, max_bytes: int = DEFAULT_MAX_BYTES, version: str = ""
) -> ModelFile:
    """Check the model at `location`: a model file, or a slot directory with a manifest.

    Nothing here can verify a signature, so both need `allow_unsigned`. `version`: for a plain file, which has none.

    Raises:
        ModelError: `missing`, `unsigned`, `empty`, `too_large`, `lfs_pointer`, `wrong_format`, `bad_manifest`,
            `outside_bundle`, `digest_mismatch`, `io`.
    """
    if not allow_unsigned:
        raise ModelError(
            "unsigned",
            f"Refusing to load {location}: no signature vouches for it",
            hint="install a signed bundle, or set [security] allow_unsigned = true on a test gateway",
        )
    if location.is_dir():
        return _open_bundle(location, max_bytes)
    data = _read(location, max_bytes)
    format_ = sniff_format(location, data)
    digest = hashlib.sha256(data).hexdigest()
    file = ModelFile(location, digest, len(data), format_, location.stem, version or f"sha256-{digest[:12]}")
    return file._replace(forms=_twin_of(file, max_bytes))


def _twin_of(file: ModelFile, max_bytes: int) -> tuple[ModelFile, ...]:
    """The file that an Edge TPU file was compiled from, where the compiler found it: beside it, without `_edgetpu`."""
    twin = file.path.with_name(file.path.name.replace(_EDGETPU_SUFFIX, ".tflite"))
    if file.format != "tflite-edgetpu" or twin == file.path or not twin.is_file():
        return ()
    data = _read(twin, max_bytes)
    digest = hashlib.sha256(data).hexdigest()
    return (ModelFile(twin, digest, len(data), sniff_format(twin, data), file.model_id, file.version),)


def sniff_format(path: Path, data: bytes) -> str:
    """The format of a model's bytes, refused when they contradict the extension or are no model at all."""
    declared = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if declared is None:
        known = ", ".join(sorted(_FORMAT_OF_SUFFIX))
        raise ModelError("wrong_format", f"Refusing to load {path}: expected one of {known}, got {path.suffix!r}")
    if not data:
        raise ModelError("empty", f"Refusing to load {path}: the file has 0 bytes", hint="copy the model again")
    if data.startswith(_LFS_POINTER):
        raise ModelError(
            "lfs_pointer",
            f"Refusing to load {path}: it is a git-LFS pointer of {len(data)} bytes, not the model",
            hint="run `git lfs pull` where the file came from and copy it again",
        )
    if (magic := _PLUGIN_MAGIC.get(declared)) is not None:
        if not data.startswith(magic):
            raise ModelError("corrupt", f"Refusing to load {path}: expected {magic!r} at its start, got {data[:4]!r}")
        return declared
    found = "tflite" if data[4:8] == b"TFL3" else "onnx"
    if declared != found and (found == "tflite" or _looks_like_onnx(data)):
        raise ModelError("wrong_format", f"Refusing to load {path}: expected {declared}, the bytes are {found}")
    if declared == "tflite" and found != "tflite":
        raise ModelError("corrupt", f"Refusing to load {path}: expected the identifier TFL3 at byte 4")
    if declared == "onnx" and has_external_data(data):
        raise ModelError(
            "outside_bundle",
            f"Refusing to load {path}: it keeps weights in another file, which its digest does not cover",
            hint="save the model with its weights inside (onnx.save_model(..., save_as_external_data=False))",
        )
    return "tflite-edgetpu" if declared == "tflite" and EDGETPU_OP.encode() in data else declared


def read_bounded(path: Path, sha256: str, max_bytes: int) -> bytes:
    """The bytes of `path` if they still have this digest; a file swapped since the check is never loaded."""
    data = _read(path, max_bytes)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError("changed", f"Refusing to load {path}: its bytes changed since it was checked, {sha256=}")
    return data


def _looks_like_onnx(data: bytes) -> bool:
    """An ONNX file opens with `ir_version` (field 1, varint below 128), then another field of ModelProto."""
    return len(data) > 2 and data[0] == 0x08 and 0 < data[1] < 0x80 and data[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def _read(path: Path, max_bytes: int) -> bytes:
    """All bytes of a regular file of at most `max_bytes`; symbolic links are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelError("missing", f"Cannot load {path}: there is no such file", hint="check the path") from None
    except OSError as error:
        code = "outside_bundle" if path.is_symlink() else "io"
        raise ModelError(code, f"Cannot load {path}: {error.strerror}", retryable=code == "io") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError("wrong_format", f"Refusing to load {path}: expected a regular file")
        if found.st_size > max_bytes:
            raise ModelError(
                "too_large",
                f"Refusing to load {path}: {found.st_size} bytes, this hardware class allows {max_bytes}",
                hint="use a smaller (INT8) model or another hardware class",
            )
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise ModelError("io", f"Cannot read {path}: {error.strerror}", retryable=True) from error
    if len(data) > max_bytes:
        raise ModelError("too_large", f"Refusing to load {path}: it grew beyond {max_bytes} bytes while being read")
    return data


def _open_bundle(directory: Path, max_bytes: int) -> ModelFile:
    manifest_path = directory / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(_read(manifest_path, MAX_MANIFEST_BYTES), type=_Manifest)
    except msgspec.DecodeError as error:
        raise ModelError("bad_manifest", f"Refusing to load {directory}: {MANIFEST_NAME}: {error}") from error
    if manifest.v != MANIFEST_VERSION:
        raise ModelError(
            "bad_manifest", f"Refusing to load {directory}: expected v = {MANIFEST_VERSION!r}, got {manifest.v!r}"
        )
    listed = {entry.path: entry for entry in manifest.files}
    models = [entry for entry in manifest.files if entry.role == "model"]
    if not models or len(listed) != len(manifest.files):
        raise ModelError(
            "bad_manifest",
            f"Refusing to load {directory}: expected a file with role 'model' and no path twice, "
            f"got {len(models)} models among {len(manifest.files)} files",
        )
    forms: list[ModelFile] = []
    for entry in manifest.files:
        data = _read_listed(directory, entry, max_bytes)
        if entry.role == "model":
            path = directory / entry.path
            format_ = sniff_format(path, data)
            forms.append(ModelFile(path, entry.sha256, entry.size, format_, manifest.model_id, manifest.version))
    if len({form.format for form in forms}) != len(forms):
        raise ModelError("bad_manifest", f"Refusing to load {directory}: two files with role 'model' have one format")
    opened = forms[0]._replace(forms=tuple(forms[1:]))
    if manifest.golden is None:
        return opened
    golden = listed.get(manifest.golden.file)
    if golden is None:
        raise ModelError("bad_manifest", f"Refusing to load {directory}: golden file is not among the listed files")
    tolerance, path = manifest.golden.tolerance, directory / golden.path
    return opened._replace(
        golden=GoldenFile(path, golden.sha256, rtol=tolerance, atol=tolerance, min_pass=manifest.golden.min_pass)
    )


def _read_listed(directory: Path, entry: _ManifestFile, max_bytes: int) -> bytes:
    """The bytes of one listed file; size and digest as listed, no link and no path out of the bundle."""
    pure = PurePosixPath(entry.path)
    if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\\" in entry.path or "\0" in entry.path:
        raise ModelError("outside_bundle", f"Refusing to load {directory}: path {entry.path!r} leaves the bundle")
    parents = [directory.joinpath(*pure.parts[:depth]) for depth in range(1, len(pure.parts))]
    if any(parent.is_symlink() for parent in parents):
        raise ModelError("outside_bundle", f"Refusing to load {directory}: {entry.path!r} goes through a symbolic link")
    data = _read(directory / entry.path, max_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != entry.size or digest != entry.sha256:
        raise ModelError(
            "digest_mismatch",
            f"Refusing to load {directory}: {entry.path} should have {entry.size} bytes and sha256 {entry.sha256}, "
            f"got {len(data)} bytes and {digest}",
            hint="copy the bundle again",
        )
    return data
