"""A line that loses packets: two network namespaces joined by TUN devices. Root only; nothing leaves this machine.

The kernel's own netem is missing on many small systems, so packets pass through this program, which loses, delays and
spaces them. The near namespace is for the gateway, the far one for the hub and its broker: what is started inside
`with line.near():` lives there, threads and child processes, each namespace with a loopback of its own.
Run as a program it is the line itself: a process of its own, so that a busy test does not slow it down.

    python -m tests.doubles.netns NEAR FAR    shapes are read from stdin: `DELAY_S JITTER_S LOSS RATE_BYTES_S` or `cut`
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pytest

from tests.doubles.waiting import until

NEAR_ADDRESS, FAR_ADDRESS = "192.0.2.1", "192.0.2.2"  # reserved for examples: no route leads there
NAMESPACES = Path("/run/netns")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_DEVICE = "line"
_TUN = Path("/dev/net/tun")
_CLONE_NEWNET = 0x4000_0000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x4004_54CA, 0x1, 0x1000
_MTU_BYTES = 1400
_QUEUE_S = 2.0  # what a modem holds; later packets are dropped


class Loss(NamedTuple):
    """What happens to each packet, in either direction. loss: share that never arrives. rate_bytes_s: 0 is no limit."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    rate_bytes_s: float = 0.0


class LossyLine:
    """Two namespaces and the line between them, as long as the `with` block lasts."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("a line that loses packets needs root")
        if not _TUN.exists() or not shutil.which("ip", path=_PATH):
            pytest.skip("a line that loses packets needs /dev/net/tun and ip (apt install iproute2)")
        self._names = [f"edged-{end}-{os.getpid()}" for end in ("near", "far")]
        self._made: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def near(self) -> contextlib.AbstractContextManager[None]:
        """This thread, and what it starts, is at the gateway's end."""
        return inside(self._names[0])

    def far(self) -> contextlib.AbstractContextManager[None]:
        """This thread, and what it starts, is at the hub's end."""
        return inside(self._names[1])

    def shape(self, loss: Loss) -> None:
        self._say(" ".join(str(value) for value in loss))

    def cut(self) -> None:
        """No packet passes until the next `shape`; nobody is told."""
        self._say("cut")

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"ok\n", "the line is broken in another way than asked for"

    def __enter__(self) -> LossyLine:
        try:
            for name in self._names:
                done = _ip("netns", "add", name)
                if done.returncode:
                    pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
                self._made.append(name)
                _ip("-n", name, "link", "set", "lo", "up")
            command = [sys.executable, "-m", "tests.doubles.netns", *self._names]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == b"ok\n", "the line did not come up"
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        for name in self._made:
            until(lambda name=name: _ip("netns", "del", name).returncode == 0, f"{name} is gone")  # type: ignore[misc]


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in the network namespace; sockets stay where they were made, new threads begin where it is."""
    with Path("/proc/thread-self/ns/net").open("rb") as own, (NAMESPACES / namespace).open("rb") as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "entering a network namespace")


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ip", *arguments]
    return subprocess.run(command, env=os.environ | {"PATH": _PATH}, capture_output=True, text=True, check=False)


# --- the line itself ---


class Packets:
    """Packets under way, by the time they arrive."""

    def __init__(self, chance: random.Random) -> None:
        self.shape = Loss()
        self.is_cut = False
        self._chance = chance
        self._free_at: dict[int, float] = {}
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def put(self, target: int, packet: bytes, now: float) -> None:
        """A packet for the device `target` was sent."""
        leaves_at = now
        if self.shape.rate_bytes_s:
            leaves_at = max(now, self._free_at.get(target, 0.0)) + len(packet) / self.shape.rate_bytes_s
            if leaves_at - now > _QUEUE_S:
                return
            self._free_at[target] = leaves_at
        if self.is_cut or self._chance.random() < self.shape.loss:
            return
        delay_s = self.shape.delay_s + self._chance.uniform(-self.shape.jitter_s, self.shape.jitter_s)
        self._count += 1
        heapq.heappush(self._under_way, (leaves_at + max(0.0, delay_s), self._count, target, packet))

    def next_in_s(self, now: float) -> float | None:
        return max(0.0, self._under_way[0][0] - now) if self._under_way else None

    def arrived(self, now: float) -> list[tuple[int, bytes]]:
        found = []
        while self._under_way and self._under_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(self._under_way)
            found.append((target, packet))
        return found


def open_tun(namespace: str, address: str, peer: str) -> int:
    """A TUN device in the namespace, up and with a route to its peer."""
    with inside(namespace):
        device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        for words in (
            f"addr add {address}/32 peer {peer} dev {_DEVICE}",
            f"link set {_DEVICE} mtu {_MTU_BYTES} txqueuelen 1000 up",
        ):
            subprocess.run(["ip", *words.split()], check=True, env=os.environ | {"PATH": _PATH})
    return device


def obey(words: list[str], packets: Packets) -> None:
    packets.is_cut = words == ["cut"]
    if not packets.is_cut:
        packets.shape = Loss(*(float(word) for word in words))


def carry(near: str, far: str) -> None:
    """Pass packets on until stdin closes."""
    ends = [open_tun(near, NEAR_ADDRESS, FAR_ADDRESS), open_tun(far, FAR_ADDRESS, NEAR_ADDRESS)]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    packets = Packets(random.Random(1))
    ready = select.poll()
    for source in (*ends, 0):
        ready.register(source, select.POLLIN)
    os.write(1, b"ok\n")
    while True:
        wait_s = packets.next_in_s(time.monotonic())
        for source, _ in ready.poll(None if wait_s is None else wait_s * 1000):
            if source == 0:
                line = os.read(0, 4096)
                if not line:
                    return
                obey(line.decode().split(), packets)
                os.write(1, b"ok\n")
            else:
                take(source, other[source], packets)
        for target, packet in packets.arrived(time.monotonic()):
            try:
                os.write(target, packet)
            except OSError:
                pass  # the device's queue is full: one more packet that is lost


def take(source: int, target: int, packets: Packets) -> None:
    """Everything that the device has to send."""
    while True:
        try:
            packet = os.read(source, 65_536)
        except BlockingIOError:
            return
        packets.put(target, packet, time.monotonic())


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2])
