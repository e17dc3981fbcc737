"""A mosquitto of the demo's own: free loopback port, own folder, settings that lose nothing a demo can produce."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from edged.demo.processes import Child, DemoError
from edged.demo.waiting import Waiter

HOST = "127.0.0.1"
_START_S = 10.0


def find_mosquitto(path: str | None = None, more: Sequence[str] = ("/usr/sbin", "/usr/local/sbin")) -> str:
    """Where the broker is. `path`: instead of $PATH. `more`: Debian puts it where only root's path leads."""
    folders = os.pathsep.join((path or os.environ.get("PATH", os.defpath), *more))
    found = shutil.which("mosquitto", path=folders)
    if found is None:
        raise DemoError(
            "the demo needs the MQTT broker mosquitto; it is neither on the path nor in /usr/sbin",
            hint="`apt install mosquitto` (as root), or `make demo`, which installs it",
        )
    return found


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def config(port: int) -> str:
    """mosquitto.conf. Its defaults would lose events: for a client that is away 1000 are queued, the rest dropped."""
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence false",
        "max_queued_messages 100000",
        "max_queued_bytes 268435456",
        "max_inflight_messages 1000",
        "max_packet_size 1048576",
        "set_tcp_nodelay true",  # without it small messages wait 40 ms for the delayed TCP acknowledgement
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # giving up root would also give up dying with the parent
    return "\n".join(lines) + "\n"


def start_broker(folder: Path, waiter: Waiter, path: str | None = None) -> tuple[Child, int]:
    """Start mosquitto and wait until it accepts; returns it and its port. The caller ends it."""
    binary = find_mosquitto(path)
    port = free_port()
    conf = folder / "mosquitto.conf"
    conf.write_text(config(port), encoding="utf-8")
    child = Child("mosquitto", [binary, "-c", str(conf)], folder / "mosquitto.log")
    child.start()
    if not waiter.until(lambda: child.ended() is not None or _accepts(port), _START_S) or child.ended() is not None:
        child.kill()
        raise DemoError(
            f"mosquitto did not accept connections on {HOST}:{port} within {_START_S:g} s; it said:\n{child.log_tail()}"
        )
    return child, port


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
