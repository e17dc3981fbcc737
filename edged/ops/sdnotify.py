"""What systemd hears from us: READY, STATUS, WATCHDOG, RELOADING, STOPPING (sd_notify protocol)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class SystemdNotifier:
    """Datagrams to `NOTIFY_SOCKET`; does nothing without one. Sending never blocks and never raises.

    Whether to feed the watchdog is the caller's decision and must depend on progress, not on being alive.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, pid: int | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address[:1] in ("/", "\0"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self.watchdog_s = _watchdog_s(environ, os.getpid() if pid is None else pid)
        self.failed_count = 0

    @property
    def active(self) -> bool:
        """Whether systemd listens."""
        return self._socket is not None

    def ready(self, status: str = "") -> None:
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        self._send("", text)

    def watchdog(self) -> None:
        """Feed the watchdog once; call at least every `watchdog_s / 2`."""
        self._send("WATCHDOG=1")

    def reloading(self, mono_ns: int, status: str = "") -> None:
        """A reload begins; `ready` ends it. systemd wants the monotonic time with it (Type=notify-reload)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={mono_ns // 1000}", status)

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time while starting or draining."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, status: str = "") -> None:
        if self._socket is None:
            return
        lines = [message] if message else []
        if status:
            lines.append(f"STATUS={status.replace(chr(10), ' ')}")
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # systemd is restarting, or its queue is full: the next message says the same
            self.failed_count += 1


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """The watchdog interval in seconds, if systemd set one for this very process."""
    try:
        interval_us = int(environ.get("WATCHDOG_USEC", "0"))
        watched_pid = int(environ.get("WATCHDOG_PID", pid))
    except ValueError:
        return None
    return interval_us / 1e6 if interval_us > 0 and watched_pid == pid else None
