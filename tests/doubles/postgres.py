"""A real PostgreSQL cluster of the test's own: temporary directory, free loopback port, Unix socket, fsync on.

initdb and the server refuse to run as root: then they run as the user `postgres` of the package.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.broker import free_port

BINARIES = Path("/usr/lib/postgresql")
START_TIMEOUT_S = 30.0
ATTEMPTS = 3  # another process may take the free port before the server does


def binaries() -> Path | None:
    """Folder of the newest installed version's programs, or None."""
    found = [path.parent for path in BINARIES.glob("*/bin/initdb")] if BINARIES.is_dir() else []
    if found:
        return max(found, key=lambda folder: int(folder.parent.name))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """One cluster. `url()` reaches its database `postgres`; `database()` makes an empty one and returns its URL."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        folder = binaries()
        if folder is None:
            pytest.skip("PostgreSQL is not installed: apt install postgresql")
        self._bin = folder
        self.settings = settings or {}
        self.port = 0
        self._made = 0
        self.folder = Path(tempfile.mkdtemp(prefix="edged-pg-"))
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    def start(self) -> Postgres:
        """Start, or start again after `kill` or `stop`, on the same port; returns when it takes connections."""
        for _ in range(ATTEMPTS):
            if self._try_to_start():
                return self
            self.port = 0
        raise AssertionError(f"PostgreSQL did not start: {self.log()[-2000:]}")

    def _try_to_start(self) -> bool:
        self.port = self.port or free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "on",
            **self.settings,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [str(self._bin / "postgres"), "-D", str(self._data), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._user,
                group=self._user,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), check=False) == 0:
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def kill(self) -> None:
        """SIGKILL to every process of the cluster at once: what was not written and synced by then is gone."""
        if self._process is None:
            return
        self._signal(signal.SIGSTOP)  # the first must not see its children die and clean up
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """An immediate but orderly end: no checkpoint, recovery at the next start."""
        if self._process is not None:
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop", check=False)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP to every backend: connections stand, nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def url(self, name: str = "postgres", *, port: int = 0) -> str:
        """port: of a proxy in front of it."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{name}"

    def socket_url(self, name: str = "postgres") -> str:
        return f"postgresql://postgres@/{name}?host={self.folder}&port={self.port}"

    def database(self, *options: str) -> str:
        """The name of a new, empty database. options: of createdb."""
        self._made += 1
        name = f"edged_{self._made}"
        self._run(
            "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-T", "template0", *options, name
        )
        return name

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True, check=False, cwd=self.folder, user=self._user, group=self._user,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{program} failed: {done.stderr.decode(errors='replace')}")
        return done.returncode

    def _signal(self, number: signal.Signals) -> None:
        """To the server and the processes it has started, itself first."""
        assert self._process is not None
        pid = self._process.pid
        for one in [pid, *_children(pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One running cluster for the whole session: tests make databases of their own in it and never kill it."""
    cluster = Postgres()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A running cluster of this test alone, which may kill it."""
    cluster = Postgres()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


async def kill_and_start(cluster: Postgres) -> None:
    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start)
