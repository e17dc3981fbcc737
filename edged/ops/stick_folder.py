"""The folders of `edged-stick/1` on a medium that may be pulled out, and that may have been prepared by an enemy.

Every step goes from an open folder to a name in it and follows no link; of an export only the files that its signed
manifest lists are ever opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edged.ops.durable_files import FileTrouble, read_open, sync_open_folder, write_all
from edged.sync import stick
from edged.sync.keys import StickRefused

NAMES_MAX = 1000  # sites, gateways of a site, exports of a gateway on one stick
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as sites and gateways are named in the configuration

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Found(NamedTuple):
    """An export on a stick. `refused`: why it is left alone, a stable code; "" for one that can be read."""

    site: str
    gateway: str
    export_id: str
    refused: str = ""


# --- writing ----------------------------------------------------------------------------------------------------


class ExportWriter:
    """One export being written: everything in a folder `….part` until `finish` renames it. Raises `OSError`."""

    def __init__(self, gateway_folder: int, export_id: str) -> None:
        self._above = gateway_folder
        self._name = export_id
        self._part = export_id + stick.PART_SUFFIX
        os.mkdir(self._part, 0o755, dir_fd=gateway_folder)
        self._folder = os.open(self._part, _FOLDER, dir_fd=gateway_folder)
        self._finished = False

    def free_bytes(self) -> int:
        found = os.fstatvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def write(self, name: str, data: bytes) -> None:
        """A file, durable when this returns (its name is with `finish`)."""
        descriptor = os.open(name, _NEW, 0o644, dir_fd=self._folder)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def finish(self, manifest: bytes) -> None:
        """The manifest, then the name without `.part`: from here on the export is whole."""
        self.write(stick.MANIFEST_NAME, manifest)
        sync_open_folder(self._folder)
        os.rename(self._part, self._name, src_dir_fd=self._above, dst_dir_fd=self._above)
        sync_open_folder(self._above)
        self._finished = True

    def close(self) -> None:
        """Let go; what was not finished is taken away as far as the stick is still there."""
        try:
            if not self._finished:
                _remove_part(self._above, self._part)
        finally:
            os.close(self._folder)


@contextmanager
def gateway_folder(medium: Path, site: str, gateway: str) -> Iterator[int]:
    """The folder of one gateway's exports on the medium, made where it is missing, open."""
    folder = os.open(medium, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in (stick.FOLDER, site, gateway):
            try:
                os.mkdir(name, 0o755, dir_fd=folder)
                sync_open_folder(folder)
            except FileExistsError:
                pass
            below = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def remove_parts(folder: int) -> int:
    """Take away what was left of exports that were pulled out; how many. Only one process exports at a time."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, NAMES_MAX)]
    parts = [name for name in names if _is_part(name)]
    for name in parts:
        _remove_part(folder, name)
    return len(parts)


def _remove_part(above: int, name: str) -> None:
    """The folder with what an export writes; anything else in it stays, and the folder with it."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=above)
        try:
            with os.scandir(folder) as entries:
                ours = [entry.name for entry in entries if stick.is_file_name(entry.name)]
            for file in ours:
                os.unlink(file, dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=above)
    except OSError:
        pass  # the stick is gone, or somebody else's files are in there: the name says what it is


# --- reading ----------------------------------------------------------------------------------------------------


def find_exports(medium: Path) -> Iterator[Found]:
    """Every export on a medium, or in its folder `edged-export`, in order of name. Raises `OSError`, `StickRefused`."""
    top = medium if medium.name == stick.FOLDER else medium / stick.FOLDER
    root = os.open(top, _FOLDER)
    try:
        for site in _names(root):
            with _below(root, site) as site_folder:
                for gateway in _names(site_folder):
                    with _below(site_folder, gateway) as folder:
                        yield from _exports_in(folder, site, gateway)
    finally:
        os.close(root)


def _exports_in(folder: int, site: str, gateway: str) -> Iterator[Found]:
    for name in _names(folder, exports=True):
        if _is_part(name):
            yield Found(site, gateway, name, "unfinished")
        elif stick.is_export_id(name):
            yield Found(site, gateway, name)


def _names(folder: int, *, exports: bool = False) -> list[str]:
    """Folders in a folder, sorted; links and files are not entered. Raises `StickRefused` when there are too many."""
    with os.scandir(folder) as entries:
        looked_at = list(islice(entries, 2 * NAMES_MAX + 1))  # each export may have a receipt beside it
    if len(looked_at) > 2 * NAMES_MAX:
        raise StickRefused("too_many", f"a folder below {stick.FOLDER} holds more than {2 * NAMES_MAX} names")
    folders = [entry.name for entry in looked_at if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in folders if exports or NAME.fullmatch(name))


class ExportReader:
    """One export on a stick, open. Nothing is read twice: what was checked is what is used."""

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def read(self, name: str, limit: int) -> bytes:
        """A regular file. Raises `StickRefused`: `missing_file`, `bad_name`, `too_large`, `unreadable`."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._folder)
        except FileNotFoundError:
            raise StickRefused("missing_file", f"{name} is not there") from None
        except OSError as error:
            raise StickRefused("bad_name", f"{name} cannot be opened as a file: {error.strerror}") from None
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes > limit:
                raise StickRefused("too_large", f"{name} has {size_bytes} bytes, at most {limit} are expected")
            return read_open(descriptor, limit, name)
        except FileTrouble as error:
            raise StickRefused("bad_name", error.message) from None
        except OSError as error:
            raise StickRefused("unreadable", f"{name} cannot be read: {error.strerror}") from None
        finally:
            os.close(descriptor)


@contextmanager
def open_export(medium: Path, found: Found) -> Iterator[ExportReader]:
    """Raises `OSError`."""
    top = medium if medium.name == stick.FOLDER else medium / stick.FOLDER
    root = os.open(top, _FOLDER)
    try:
        with (
            _below(root, found.site) as site,
            _below(site, found.gateway) as gateway,
            _below(gateway, found.export_id) as folder,
        ):
            yield ExportReader(folder)
    finally:
        os.close(root)


@contextmanager
def _below(folder: int, name: str) -> Iterator[int]:
    below = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield below
    finally:
        os.close(below)


def _is_part(name: str) -> bool:
    return name.endswith(stick.PART_SUFFIX) and stick.is_export_id(name.removesuffix(stick.PART_SUFFIX))
