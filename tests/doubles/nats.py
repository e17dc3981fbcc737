"""A real nats-server as an upstream broker: MQTT 3.1.1, QoS 1 at most, no shared subscriptions, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from tests.doubles.broker import free_port
from tests.doubles.waiting import until

NATS = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin")


class Nats:
    """One node with JetStream, which its MQTT needs. `port` speaks MQTT."""

    def __init__(self, folder: Path) -> None:
        if NATS is None:
            pytest.skip("nats-server is not installed: apt install nats-server")
        self.port = free_port()
        self.log = folder / "nats.log"
        self._config = folder / "nats.conf"
        self._config.write_text(
            f"server_name: one\nlisten: 127.0.0.1:{free_port()}\n"
            f'jetstream {{ store_dir: "{folder / "nats"}", max_mem: 64M, max_file: 256M }}\n'
            f"max_payload: 2MB\nmqtt {{ listen: 127.0.0.1:{self.port} }}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Nats:
        assert NATS is not None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([NATS, "-c", str(self._config)], stdout=log, stderr=log)
        until(self._takes_connections, f"nats-server listens: {self.log.read_text()[-2000:]}")
        return self

    def _takes_connections(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Nats:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
