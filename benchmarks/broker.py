"""A mosquitto of the benchmark's own, on a free loopback port, and who has subscribed to it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.native import NotMeasured

# The subscribe lines in the log tell when a contestant is ready; stderr, because it is not buffered.
COMMON = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest stderr
log_type error
log_type warning
log_type subscribe
"""
# Nagle's algorithm alone is worth 50 times the median latency; 20 in flight would cap every batch at 20.
TUNED = """\
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
"""
READY_TIMEOUT_S = 60


@dataclass(frozen=True)
class Broker:
    """A running broker."""

    port: int
    pid: int
    log: Path

    def subscriptions(self) -> int:
        """How many subscriptions to sensor events it has granted so far."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum(1 for line in lines if line.rsplit(" ", 1)[-1].startswith("in/"))

    def await_subscription(self, beyond: int, alive: subprocess.Popen[bytes]) -> None:
        """Return once there are more than `beyond` subscriptions to sensor events.

        Raises:
            NotMeasured: the contestant ended, or a minute has passed.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self.subscriptions() <= beyond:
            if alive.poll() is not None:
                raise NotMeasured(f"it ended with exit code {alive.returncode} before it subscribed")
            if time.monotonic() > deadline:
                raise NotMeasured(f"it did not subscribe within {READY_TIMEOUT_S} s")
            time.sleep(0.05)

    def forget(self, client_id: str) -> None:
        """End that client's session: else it goes on to queue whatever the next contestants are sent."""
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        connected = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True)
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        connected.wait(timeout=10)
        client.disconnect()
        client.loop_stop()


def free_port() -> int:
    """A TCP port that was free on the loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_mosquitto() -> str:
    """Path of the broker's program. Raises NotMeasured where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NotMeasured("no mosquitto found: apt-get install mosquitto")
    return found


@contextlib.contextmanager
def broker(workdir: Path, *, stock: bool) -> Iterator[Broker]:
    """Run a broker in `workdir` while the block runs. stock: as a distribution ships it, Nagle and all."""
    port = free_port()
    config, log = workdir / "mosquitto.conf", workdir / "mosquitto.log"
    config.write_text(COMMON.format(port=port) + ("" if stock else TUNED))
    with log.open("wb") as sink:
        process = subprocess.Popen([find_mosquitto(), "-c", str(config)], stderr=sink, stdout=sink)
    try:
        _await_port(port, process, log)
        yield Broker(port, process.pid, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError as refused:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotMeasured(f"mosquitto did not start: {log.read_text(errors='replace')[-300:]}") from refused
            time.sleep(0.05)
        else:
            return
