"""The real `edged-hub` as a child process: configured in a folder, watched through its notify and status sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.doubles.daemon import NotifySocket
from tests.doubles.waiting import until

EDGED_HUB = Path(sys.executable).with_name("edged-hub")
READY_WITHIN_S = 60.0


class HubProcess:
    """`edged-hub run` with everything it needs in `folder`. Leaving the `with` block kills it and its workers.

    tables: of the configuration, besides [hub] and [database]. hub: more lines of [hub].
    measured: count its lines for the coverage report.
    """

    def __init__(
        self,
        folder: Path,
        tables: str,
        *,
        database: str = "sqlite:///state/hub.db",
        workers: int = 1,
        hub: str = "",
        measured: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "hub.toml"
        self.config.write_text(
            f'[hub]\nstate_dir = "state"\nworkers = {workers}\n{hub}\n'
            f"[database]\nurl = {json.dumps(database)}\n{tables}"
        )
        self.log_file = folder / "hub.log"
        self.notify = NotifySocket(folder)
        self._env = dict(env or {})
        self._measured = measured
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> HubProcess:
        """Start without waiting for anything."""
        env = {**os.environ, "NOTIFY_SOCKET": self.notify.address}
        if not self._measured:
            env = {name: value for name, value in env.items() if not name.startswith("COV")}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(EDGED_HUB), "run", "--config", str(self.config)],
                env=env | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # workers die with it
            )
        return self

    def start(self) -> HubProcess:
        """Start and wait until it says READY."""
        self.launch()
        until(lambda: "READY=1" in self._heard(), f"edged-hub is ready:\n{self.log}", READY_WITHIN_S)
        return self

    def healthy(self) -> HubProcess:
        until(lambda: self.status()["healthy"], f"edged-hub is healthy:\n{self.log}", READY_WITHIN_S)
        return self

    def _heard(self) -> list[str]:
        assert self.ended is None, f"edged-hub ended with {self.ended}:\n{self.log}"
        self.notify.read()
        return self.notify.lines

    def kill(self) -> None:
        """SIGKILL, the workers included."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(within_s)

    def wait(self, within_s: float = 30.0) -> int:
        assert self._process is not None
        return self._process.wait(within_s)

    @property
    def ended(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    # --- looking ---

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def page(self, path: str) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(self.state / "hub.sock"))
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while piece := client.recv(1 << 16):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n", 1)[0], head
        return body

    def status(self) -> dict[str, Any]:
        """What `edged-hub status --json` would show."""
        document: dict[str, Any] = json.loads(self.page("/status"))
        return document

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def memory_bytes(self, field: str = "VmHWM") -> dict[int, int]:
        """Resident memory of each worker, at its highest (VmHWM) or now (VmRSS)."""
        found = {}
        for pid in self.worker_pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    found[pid] = int(line.split()[1]) * 1024
        return found

    def ledger(self) -> list[dict[str, Any]]:
        """What is home, as the database says."""
        done = subprocess.run(
            [str(EDGED_HUB), "ledger", "--json", "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def __enter__(self) -> HubProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
        self.notify.close()
