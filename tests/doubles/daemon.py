"""The real daemon as a child process: configured in a folder, watched through its notify and status sockets."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.doubles.waiting import until

EDGED = Path(sys.executable).with_name("edged")
PLUGINS = Path(__file__).with_name("plugins")
READY_WITHIN_S = 30.0

_HEAD = """
[gateway]
site = "plant"
id = "gw"
state_dir = {state}
[broker]
url = "mqtt://{host}:{port}"
{broker}
[store]
{store}
[limits]
{limits}
[results]
last_interval_ms = 250
[security]
allow_unsigned = true
"""

ROOT = "edged/v1/plant/gw"


def pipeline(
    name: str,
    model: Path,
    *,
    window: int = 1,
    stride: int = 1,
    topics: str = "in/+",
    chain: str = "onnxruntime:cpu",
    input_more: str = "",
    model_more: str = "",
) -> str:
    """One `[[pipeline]]` table that sums the fields a and b of a window into the value `total`."""
    return f"""
[[pipeline]]
name = "{name}"
topics = ["{topics}"]
device = "{{topic[1]}}"
input = {{ fields = ["a", "b"], window = {window}, stride = {stride}{_more(input_more)} }}
model = {{ path = {json.dumps(str(model))}, chain = ["{chain}"]{_more(model_more)} }}
output = {{ kind = "regression", names = ["total"] }}
"""


def _more(text: str) -> str:
    return f", {text}" if text else ""


class NotifySocket:
    """What systemd would hear, in order. A file, because abstract names end at a network namespace."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.address)

    def read(self) -> list[str]:
        """Take over what came; returns only the new lines."""
        new: list[str] = []
        while True:
            try:
                new += self._socket.recv(65_536).decode().split("\n")
            except BlockingIOError:
                self.lines += new
                return new

    def close(self) -> None:
        self._socket.close()


class Daemon:
    """`edged run` with everything it needs in `folder`. Leaving the `with` block kills it.

    pipelines: `[[pipeline]]` tables as text. env: added to the environment of the process.
    prefix: a command put before `edged` (setpriv, unshare).
    measured: count its lines for the coverage report, which makes it several times slower.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *pipelines: str,
        host: str = "127.0.0.1",
        broker: str = "",
        store: str = "snapshot_interval_s = 1",
        limits: str = "gap_grace_ms = 200",
        state: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        measured: bool = False,
    ) -> None:
        self.folder = folder
        self.state = state or folder / "state"
        self.config = folder / "edged.toml"
        self.log_file = folder / "edged.log"
        self.notify = NotifySocket(folder)
        self.env = dict(env or {})
        self.prefix = tuple(prefix)
        self.write_config(
            *pipelines, host=host, port=port, broker=broker, store=store, limits=limits
        )  # fmt: skip
        self._measured = measured
        self._process: subprocess.Popen[bytes] | None = None

    def write_config(
        self, *pipelines: str, port: int, host: str = "127.0.0.1", broker: str = "", store: str = "", limits: str = ""
    ) -> None:
        head = _HEAD.format(
            state=json.dumps(str(self.state)), host=host, port=port, broker=broker, store=store, limits=limits
        )
        self.config.write_text(head + "".join(pipelines))

    # --- life ---

    def launch(self) -> Daemon:
        """Start without waiting for anything."""
        env = {**os.environ, "NOTIFY_SOCKET": self.notify.address, "ORT_DISABLE_TELEMETRY": "1"}
        if not self._measured:
            env = {name: value for name, value in env.items() if not name.startswith("COV")}
        env.update(self.env)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, str(EDGED), "run", "--config", str(self.config)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # the child that reads the configuration dies with it
            )
        return self

    def start(self) -> Daemon:
        """Start and wait until it says READY."""
        self.notify.read()
        self.launch()
        self.wait_for("READY=1", READY_WITHIN_S)
        return self

    def wait_for(self, line: str, within_s: float = 20.0) -> None:
        """Until a notification that begins with `line` comes; ones that came before do not count."""

        def heard() -> bool:
            assert self.pid, "not started"
            if any(new.startswith(line) for new in self.notify.read()):
                return True
            assert self.ended is None, f"edged ended with {self.ended} before {line}:\n{self.log}"
            return False

        until(heard, f"edged said {line}:\n{self.log}", within_s)

    def kill(self) -> None:
        """SIGKILL, at whatever instant this is."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def live_a_while(self, chance: random.Random) -> Daemon:
        """Start and return at a random instant of its life: every fourth time while it still starts.

        The instant is what the caller asked for; nothing is waited for by it.
        """
        if chance.random() < 0.25:
            self.launch()
            time.sleep(chance.uniform(0.05, 1.2))
        else:
            self.start()
            time.sleep(chance.expovariate(1 / 0.2))
        return self

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait(within_s)

    def wait(self, within_s: float = 30.0) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"edged still runs after {within_s} s:\n{self.log}") from None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def ended(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    # --- looking ---

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def status(self) -> dict[str, Any]:
        """What `edged status --json` would show."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(self.state / "edged.sock"))
            client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := client.recv(1 << 16):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n", 1)[0], head
        status: dict[str, Any] = json.loads(body)
        return status

    def codes(self) -> set[str]:
        """Codes of the reasons that are present."""
        return {reason["code"] for reason in self.status()["reasons"]}

    def connected(self, within_s: float = 20.0) -> Daemon:
        until(lambda: self.status()["link"]["up"], f"edged is connected:\n{self.log}", within_s)
        return self

    def memory_bytes(self, field: str = "VmHWM") -> int:
        """Resident memory: at its highest since the start (VmHWM), or now (VmRSS)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field} of process {self.pid}")

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
        self.notify.close()
