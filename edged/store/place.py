"""The state directory: is it fit for a database, is it ours alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from edged.errors import StoreError, StoreLocked

STORE_NAME = "store.db"
LOCK_NAME = "store.lock"
MARKER_NAME = "store.damaged"  # written when damage was met at run time: the next start salvages without asking

# fmt: off
NETWORK = frozenset((
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "coda", "gfs2",
    "ocfs2", "beegfs",
))
NETWORK_FUSE = frozenset((
    "sshfs", "s3fs", "rclone", "davfs", "curlftpfs", "gcsfuse", "blobfuse2", "juicefs",
))
# fmt: on


class Mount(NamedTuple):
    """One line of /proc/self/mountinfo."""

    point: str
    kind: str
    source: str
    options: tuple[str, ...]


def parse_mountinfo(text: str) -> list[Mount]:
    """Mounts in the order of the kernel: a later one hides an earlier one at the same point. See proc(5)."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(), right.split(" ")
        if separator and len(fields) >= 6 and len(tail) >= 3:
            mounts.append(Mount(_unescape(fields[4]), tail[0], _unescape(tail[1]), tuple(tail[2].split(","))))
    return mounts


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that holds the absolute path."""
    holding = [m for m in mounts if m.point in ("/", path) or path.startswith(m.point + "/")]
    longest = max((len(m.point) for m in holding), default=0)
    return next((m for m in reversed(holding) if len(m.point) == longest), None)


def is_network(mount: Mount) -> bool:
    family, _, kind = mount.kind.partition(".")
    return mount.kind in NETWORK or (family == "fuse" and (kind in NETWORK_FUSE or kind in NETWORK))


def judge(path: str, mounts: list[Mount]) -> tuple[str, ...]:
    """Warnings about the file system below `path`. Raises `StoreError` where a database would not be safe."""
    mount = mount_of(path, mounts)
    if mount is None:
        return (f"the file system of {path} is unknown: /proc/self/mountinfo does not show it",)
    if is_network(mount):
        raise _refusal(path, mount)
    if mount.kind == "overlay":
        upper = next((o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir=")), "")
        below = mount_of(upper, [m for m in mounts if m != mount]) if upper else None
        if below is not None and is_network(below):
            raise _refusal(path, below)
        return (f"{path} is on an overlay: what it holds is gone with the container; mount a volume there",)
    if mount.kind in ("tmpfs", "ramfs"):
        return (f"{path} is in memory ({mount.kind}): nothing in it survives a power cut",)
    return ()


def prepare(state_dir: Path) -> tuple[str, ...]:
    """Make the directory if it is missing, prove that it is fit and writable; returns warnings. Raises `StoreError`."""
    try:
        if not state_dir.is_dir():
            state_dir.mkdir(mode=0o700, parents=True)
            sync_directory(state_dir.parent)
        warnings = judge(str(state_dir.resolve()), parse_mountinfo(Path("/proc/self/mountinfo").read_text()))
    except OSError as error:
        raise _cannot("preparing", state_dir, error) from error
    return warnings


def create_file(path: Path) -> bool:
    """An empty file that only we may read, durable together with its name; False when it exists already."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot("creating", path, error) from error
    os.close(descriptor)
    sync_file(path)
    sync_directory(path.parent)
    return True


def sync_file(path: Path) -> None:
    """Make a file's content durable. Not for an open database: closing any descriptor drops SQLite's locks on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make names in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark_damaged(state_dir: Path, cause: str) -> None:
    """Leave word for the next start that it must salvage. Best effort: the start looks for itself, too."""
    try:
        (state_dir / MARKER_NAME).write_text(cause)
        sync_directory(state_dir)
    except OSError:
        pass  # a medium that fails to be read often fails to be written


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write on the file system of `path`."""
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize


class StoreLock:
    """Holds the state directory for this process; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / LOCK_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _cannot("opening", path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise StoreLocked(
                f"locking {path}: process {holder} has this store open",
                hint="stop the other edged, or give this one a state_dir of its own",
                retryable=True,
            ) from None
        except OSError as error:
            self.release()
            raise _cannot("locking", path, error) from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk must not keep us from running: we hold the lock, only our pid is not readable

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _cannot(doing: str, path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{doing} {path}: {error.strerror or error}",
        hint=f"the user that runs edged must own {path.parent if path.suffix else path} and be able to write there",
    )


def _refusal(path: str, mount: Mount) -> StoreError:
    return StoreError(
        f"Refusing to keep the store in {path}: {mount.point} is a network file system ({mount.kind}, {mount.source}),"
        " where a commit is not safe against a power cut or a second writer",
        hint="set gateway.state_dir to a folder on a local disk (ext4, xfs, f2fs, btrfs)",
    )


def _unescape(text: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text
