"""A real RabbitMQ as an upstream broker: MQTT 3.1.1, QoS 1, a user name, on loopback. Starts within ten seconds or so.

`port` speaks MQTT; the user is guest, the password is guest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest

from tests.doubles.broker import free_port

RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER = PASSWORD = "guest"
START_TIMEOUT_S = 60.0


class Rabbit:
    """One node with the MQTT plugin, its own name service included."""

    def __init__(self, folder: Path) -> None:
        if not RABBIT.exists() or shutil.which("epmd") is None:
            pytest.skip("RabbitMQ is not installed: apt install rabbitmq-server")
        self.port = free_port()
        self.log = folder / "rabbit.log"
        home, data = folder / "home", folder / "data"
        for made in (home, data):
            made.mkdir()
        plugins, config = folder / "plugins", folder / "rabbit.conf"
        plugins.write_text("[rabbitmq_mqtt].\n")
        amqp = free_port()
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "log.file = false\nlog.console = true\n"
        )
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ERLANG_COOKIE": "edgedtest",
            "RABBITMQ_NODENAME": f"r{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(amqp),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(data),
            "RABBITMQ_LOG_BASE": str(data),
            "RABBITMQ_CONFIG_FILE": str(config.with_suffix("")),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None

    def start(self) -> Rabbit:
        with self.log.open("ab") as log:
            self._names = subprocess.Popen(["epmd"], env=self._environment, stdout=log, stderr=log)
            self._process = subprocess.Popen(
                [RABBIT], env=self._environment, stdout=log, stderr=log, process_group=0, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.1)
        self.kill()
        raise AssertionError(f"RabbitMQ did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL to the whole group, and to its name service."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._names is not None:
            self._names.kill()
            self._names.wait()
            self._names = None

    def __enter__(self) -> Rabbit:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
