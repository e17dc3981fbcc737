"""Small files that must be whole or absent: secrets made once, records replaced, all of it durable before we say so."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from edged.errors import EdgedError, ExitCode

NO_SUCH_CALL = frozenset((errno.EINVAL, errno.ENOTSUP))  # file systems of other worlds cannot sync a folder


class FileTrouble(EdgedError):
    """Raised when a file cannot be read or written for a reason of the disk or of its rights."""

    exit_code = ExitCode.IO


def make_folder(path: Path) -> None:
    """The folder, private to its owner, durable. As root, its owner is the owner of the folder above."""
    if path.is_dir():
        return
    path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _adopt(descriptor, path.parent)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def create_once(path: Path, data: bytes) -> bool:
    """The file with this content, readable by us alone; False when it is there already: then nothing has changed."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    _write_new(part, data, 0o600)
    try:
        os.link(part, path)  # unlike a rename it never replaces what another process has just made
    except FileExistsError:
        return False
    finally:
        part.unlink()
    sync_folder(path.parent)
    return True


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """The file has this content, or after a power cut the content it had before."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        _write_new(part, data, mode)
        part.replace(path)
    except BaseException:  # whatever it was, half a file must not stay
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_at_most(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises `OSError`, `FileTrouble`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe in its place must not make us wait
    try:
        return read_open(descriptor, limit, path.name)
    finally:
        os.close(descriptor)


def read_open(descriptor: int, limit: int, name: str) -> bytes:
    """As `read_at_most`, of an open file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise FileTrouble(f"Reading {name}: it is no regular file", hint="name a file")
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FileTrouble(f"Reading {name}: it has more than {limit} bytes", hint="this is another kind of file")
    return data


def is_exposed(path: Path) -> bool:
    """Whether others than the owner may read or write the file."""
    return bool(path.stat().st_mode & 0o077)


def sync_folder(path: Path) -> None:
    """Make names in the folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_folder(descriptor)
    finally:
        os.close(descriptor)


def sync_open_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:
            raise


def write_all(descriptor: int, data: bytes) -> None:
    """Everything, however little one call takes, and durable."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        _adopt(descriptor, path.parent)
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _adopt(descriptor: int, parent: Path) -> None:
    """A file that root makes for the daemon must be the daemon's."""
    above = parent.stat()
    if os.geteuid() == 0 and above.st_uid != 0:
        try:
            os.fchown(descriptor, above.st_uid, above.st_gid)
        except PermissionError:
            pass  # a file system without owners
