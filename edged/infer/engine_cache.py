"""Engines that were built on this device, kept by what they depend on: anything else changed means another engine.

`<key>.plan` is the engine, `<key>.json` says what it was built from and for, its size and digest; the key is the digest
of what it was built from and for. Both are written to a temporary file, synced and renamed. What is not exactly what
its manifest says is removed and built again; an engine that does not fit is never tried "anyway".
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edged.errors import ModelError

MANIFEST_VERSION = "edged.engine/1"
MAX_BYTES = 2_000_000_000
MAX_ENGINES = 32
_MAX_MANIFEST_BYTES = 100_000
_MAX_TIMING_BYTES = 64_000_000
_FOLDER_MODE, _FILE_MODE = 0o750, 0o640
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

Parts = Mapping[str, str]
"""Everything that an engine depends on: digest of the model, versions, device, flags."""


class _Manifest(msgspec.Struct, frozen=True):
    v: str
    parts: dict[str, str]
    bytes: int
    sha256: str


class EngineCache:
    """A folder of engines, at most `max_engines` and `max_bytes` of them; the ones written first go first."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_engines: int = MAX_ENGINES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_engines = max_engines

    def holds(self, parts: Parts) -> bool:
        """Whether `read` would succeed."""
        try:
            self.read(parts)
        except ModelError:
            return False
        return True

    def read(self, parts: Parts) -> bytes:
        """The engine for `parts`, whole. A damaged one is removed.

        Raises:
            ModelError: `engine_stale`: there is none, or it is not what its manifest says; `io`.
        """
        key = key_of(parts)
        try:
            manifest = msgspec.json.decode(self._read(f"{key}.json", _MAX_MANIFEST_BYTES), type=_Manifest)
            plan = self._read(f"{key}.plan", self._max_bytes)
        except FileNotFoundError as error:
            raise ModelError(
                "engine_stale", f"No engine for this model, device and version in {self._folder}"
            ) from error
        except (msgspec.DecodeError, ValueError) as error:
            raise self._damaged(parts, str(error)) from error
        except OSError as error:
            raise ModelError("io", f"Cannot read an engine in {self._folder}: {error}", retryable=True) from error
        if manifest.v != MANIFEST_VERSION or manifest.parts != dict(parts):
            raise self._damaged(parts, "its manifest is of another engine")
        if len(plan) != manifest.bytes or hashlib.sha256(plan).hexdigest() != manifest.sha256:
            raise self._damaged(parts, "its bytes are not those that were built")
        return plan

    def write(self, parts: Parts, plan: bytes) -> None:
        """Keep an engine, and remove older ones until all fit. A full disk leaves what was there.

        Raises:
            ModelError: `prepare_failed`.
        """
        if len(plan) > self._max_bytes:
            raise ModelError(
                "prepare_failed", f"The engine has {len(plan)} bytes, the cache takes {self._max_bytes} at most"
            )
        key = key_of(parts)
        manifest = _Manifest(MANIFEST_VERSION, dict(parts), len(plan), hashlib.sha256(plan).hexdigest())
        with self._changing():
            self._replace(f"{key}.plan", plan)
            self._replace(f"{key}.json", msgspec.json.format(msgspec.json.encode(manifest)))
            self._trim(key)

    def remove(self, parts: Parts) -> None:
        """Forget an engine, so that the next preparation builds it again. What cannot be removed stays."""
        for suffix in (".json", ".plan"):
            try:
                (self._folder / f"{key_of(parts)}{suffix}").unlink(missing_ok=True)
            except OSError:
                return  # it is refused again, with its reason, when it is read

    def read_timing(self, parts: Parts) -> bytes:
        """What earlier builds on this device have learned about its speed; empty when nothing is known."""
        try:
            return self._read(f"{key_of(parts)}.timing", _MAX_TIMING_BYTES)
        except (OSError, ValueError):
            return b""

    def write_timing(self, parts: Parts, data: bytes) -> None:
        """Keep that for the next build; only one file of it is kept."""
        with self._changing():
            for old in self._folder.glob("*.timing"):
                old.unlink(missing_ok=True)
            if len(data) <= _MAX_TIMING_BYTES:
                self._replace(f"{key_of(parts)}.timing", data)

    def _read(self, name: str, max_bytes: int) -> bytes:
        """The bytes of a file that only its owner may have written. Raises OSError; ValueError for another file."""
        if (self._folder / name).is_symlink():
            raise ValueError(f"{name} is a link")
        descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS_WRITE:
                raise ValueError(f"{name} is no file that only its owner may write")
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ValueError(f"{name} has more than {max_bytes} bytes")
        return data

    def _damaged(self, parts: Parts, what: str) -> ModelError:
        self.remove(parts)
        return ModelError("engine_stale", f"An engine in {self._folder} is not used: {what}", hint="it is built again")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One process at a time, and no half-written file is left behind."""
        try:
            self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            with (self._folder / ".lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    for torn in self._folder.glob("*.new"):
                        torn.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(
                "prepare_failed",
                f"Cannot keep the engine in {self._folder}: {error}",
                hint="make room, or let the service user write there",
                retryable=True,
            ) from error

    def _replace(self, name: str, data: bytes) -> None:
        fresh = self._folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _trim(self, keep: str) -> None:
        """Remove the engines that were written first, never the one just written."""
        stats = [(path.stem, path.lstat()) for path in self._folder.glob("*.plan") if path.stem != keep]
        others = sorted((found.st_mtime_ns, key, found.st_size) for key, found in stats)
        total_bytes = sum(size for _, _, size in others) + (self._folder / f"{keep}.plan").lstat().st_size
        count = len(others) + 1
        for _, key, size in others:
            if count <= self._max_engines and total_bytes <= self._max_bytes:
                return
            for suffix in (".json", ".plan"):
                (self._folder / f"{key}{suffix}").unlink(missing_ok=True)
            count, total_bytes = count - 1, total_bytes - size


def key_of(parts: Parts) -> str:
    """The name of an engine: the digest of everything it depends on."""
    return hashlib.sha256(msgspec.json.encode(dict(sorted(parts.items())))).hexdigest()
