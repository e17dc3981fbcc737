"""What systemd hears."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.ops.sdnotify import SystemdNotifier


class Systemd:
    """The receiving end of a notify socket."""

    def __init__(self, address: str, shown: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)
        self.environ = {"NOTIFY_SOCKET": shown}

    def heard(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    if request.param == "path":
        made = Systemd(str(tmp_path / "notify"), str(tmp_path / "notify"))
    else:
        name = f"edged-test-{os.getpid()}"
        made = Systemd("\0" + name, "@" + name)
    yield made
    made.socket.close()


def test_systemd_hears_the_whole_life(systemd: Systemd) -> None:
    notifier = SystemdNotifier(systemd.environ)
    assert notifier.active
    notifier.ready("normal; connected")
    assert systemd.heard() == "READY=1\nSTATUS=normal; connected"
    notifier.status("line\nbreak")
    assert systemd.heard() == "STATUS=line break"
    notifier.watchdog()
    assert systemd.heard() == "WATCHDOG=1"
    notifier.reloading(5_000_000)
    assert systemd.heard() == "RELOADING=1\nMONOTONIC_USEC=5000"
    notifier.extend_timeout(1.5)
    assert systemd.heard() == "EXTEND_TIMEOUT_USEC=1500000"
    notifier.stopping()
    assert systemd.heard() == "STOPPING=1"
    notifier.close()
    notifier.close()
    notifier.ready()
    assert (notifier.active, notifier.failed_count) == (False, 0)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_without_systemd_nothing_is_sent(environ: dict[str, str]) -> None:
    notifier = SystemdNotifier(environ)
    notifier.ready()
    assert (notifier.active, notifier.failed_count) == (False, 0)


def test_a_systemd_that_does_not_listen_is_counted_and_hurts_nobody(tmp_path: Path) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier.ready()
    assert notifier.failed_count == 1
    notifier.close()


async def test_notifying_never_blocks_the_loop_even_when_the_queue_is_full(systemd: Systemd) -> None:
    notifier = SystemdNotifier(systemd.environ)
    for _ in range(5000):
        notifier.watchdog()
        if notifier.failed_count:
            break
    assert notifier.failed_count == 1
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "7"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_interval_counts_only_for_this_process(environ: dict[str, str], interval_s: float | None) -> None:
    assert SystemdNotifier(environ, pid=7).watchdog_s == interval_s


def test_the_environment_of_the_process_is_the_default() -> None:
    assert SystemdNotifier().active == bool(os.environ.get("NOTIFY_SOCKET"))
