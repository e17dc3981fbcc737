"""A disk whose power can be cut: ext4 on a block device that forgets what was not flushed. Root only.

nbdkit serves an image through a write-back cache of its own, nbdfuse makes a file of it, a loop device a disk. What
reaches the image are the blocks that were there when somebody flushed: fsync goes through ext4, the loop device (fsync
of its file), FUSE and NBD's flush to the cache. `cut` kills nbdkit with -9; everything since the last flush is gone.
The control runs of tests/fault/disk show that it is: a writer that does not wait for its fsync loses rows here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.doubles.waiting import until

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
TOOLS = {"nbdkit": "nbdkit", "nbdfuse": "libnbd-bin", "mkfs.ext4": "e2fsprogs", "mount": "mount", "losetup": "mount"}
VOLATILE = ("--filter=cache", "file", "IMAGE", "cache=writeback", "cache-min-block-size=4096")
LYING = ("--filter=cache", "file", "IMAGE", "cache=unsafe", "cache-min-block-size=4096")


def slow_and_failing(trigger: Path, write_ms: int) -> tuple[str, ...]:
    """A server whose every write takes `write_ms` (an fsync is about five of them); all fail while `trigger` exists."""
    fails = ("error-pwrite=EIO", "error-pwrite-rate=100%", f"error-pwrite-file={trigger}")
    return ("--filter=error", "--filter=delay", "file", "IMAGE", f"wdelay={write_ms}ms", *fails)


def skip_without_tools() -> None:
    """Skip the test, saying why, where such a disk cannot be."""
    if os.geteuid() != 0:
        pytest.skip("a disk of its own needs root")
    missing = [
        f"{tool} (apt install {package})" for tool, package in TOOLS.items() if not shutil.which(tool, path=PATH)
    ]
    if missing:
        pytest.skip(f"a disk of its own needs {', '.join(missing)}")
    absent = [device for device in ("/dev/fuse", "/dev/loop-control") if not Path(device).exists()]
    if absent:
        pytest.skip(f"a disk of its own needs {' and '.join(absent)}, which this kernel does not offer")


class PowerCutDisk:
    """Mounted at `place` as long as the `with` block lasts, apart from the time between `cut` and `power_on`.

    server: arguments of nbdkit, IMAGE stands for the image's path.
    """

    def __init__(self, folder: Path, *, size_mb: int = 128, server: Sequence[str] = VOLATILE) -> None:
        skip_without_tools()
        self.place = folder / "disk"
        self.log = folder / "disk.log"
        self.cuts = 0
        self._image = folder / "disk.img"
        self._folder = folder
        self._size = size_mb << 20
        self._server = server
        self._processes: list[subprocess.Popen[bytes]] = []
        self._loop = ""

    def __enter__(self) -> PowerCutDisk:
        self.place.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._size)
        self._run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        return self.power_on()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._processes:
            with contextlib.suppress(AssertionError):  # what the test said about it is more to the point
                self.cut()
        self._image.unlink(missing_ok=True)

    def power_on(self) -> PowerCutDisk:
        """Start the server on what the image holds, and mount it: ext4 replays its journal."""
        device = self._folder / f"nbd-{self.cuts}"
        device.mkdir()
        socket = self._folder / f"nbd-{self.cuts}.sock"
        arguments = [part.replace("IMAGE", str(self._image)) for part in self._server]
        self._start("nbdkit", "--foreground", "--exit-with-parent", "-U", str(socket), *arguments)
        until(socket.exists, f"nbdkit listens: {self._said()}")
        self._start("nbdfuse", str(device / "disk"), "--unix", str(socket))
        until((device / "disk").exists, f"nbdfuse serves: {self._said()}")
        self._loop = self._run("losetup", "--find", "--show", str(device / "disk")).strip()
        done = self._try("mount", self._loop, str(self.place))
        if done.returncode:
            self.cut()
            if self.cuts > 1:
                raise AssertionError(f"the disk cannot be mounted after the power cut: {done.stderr}")
            pytest.skip(f"a disk of its own cannot be mounted here: {done.stderr.strip()}")
        return self

    def cut(self) -> None:
        """The power goes: the cache is lost. For a disk that nobody uses."""
        self.lose_cache()
        self.power_off()

    def lose_cache(self) -> None:
        """From now on nothing reaches the image, and every access fails."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def power_off(self) -> None:
        """Forget the dead device. Nobody may have a file open on it."""
        self._try("umount", "--lazy", str(self.place))
        self._try("losetup", "--detach", self._loop)
        self._try("umount", "--lazy", str(self._folder / f"nbd-{self.cuts}"))
        until(lambda: not self._try("losetup", self._loop).stdout, f"{self._loop} is free again")
        self._processes = []
        self.cuts += 1

    def _start(self, *command: str) -> None:
        with self.log.open("ab") as log:
            env = os.environ | {"PATH": PATH}
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PATH": PATH}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)

    def _run(self, *command: str) -> str:
        done = self._try(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
