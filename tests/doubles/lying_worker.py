"""A process of a device that breaks the protocol, in one way each.

`python -m tests.doubles.lying_worker HOW ARGUMENTS`: how, and what a worker gets.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from edged.infer.hosting import wire, worker
from edged.infer.hosting.slots import Slot
from edged.infer.hosting.wire import Answer, Done, Hello, Loaded, Place, pack
from edged.messages import ModelInfo, TensorSpec

COMMAND = (sys.executable, "-P", "-m", "tests.doubles.lying_worker")

INFO = ModelInfo(
    "lies", "1", "0" * 64, "liar:here", (TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "f", ()),)
)
PLACES = {
    "beyond": Place("y", "float32", (1 << 30,), 0),
    "offset": Place("y", "float32", (4,), 1 << 39),
    "product": Place("y", "float32", (1 << 40, 1 << 40), 0),
    "empty_and_huge": Place("y", "float32", (0, *[1 << 40] * 10), 0),
    "type": Place("y", "object", (1,), 0),
}


def _numbered(number: int, message: object) -> bytes:
    """A packet that the real side would not make."""
    return number.to_bytes(wire.NUMBER_BYTES, "little") + msgspec.msgpack.encode(message)


PACKETS: Mapping[str, Callable[[int], bytes]] = {
    "negative": lambda number: _numbered(number, [1, [["y", "float32", [-4], 0]]]),
    "number": lambda number: pack(number + 1, Answer(())),
    "done": lambda number: pack(number, Done()),
    "load": lambda number: pack(number, Hello(1)),
    "long": lambda number: bytes(wire.MAX_PACKET_BYTES),
    "short": lambda number: b"x",
    "garbage": lambda number: b"\xc1" * 50,
}


def _close(channel: socket.socket) -> None:
    channel.close()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Event().wait()


def _die_beside_a_grandchild(channel: socket.socket) -> None:
    """It keeps the socket open when this process has gone."""
    subprocess.Popen(["sleep", "3"], pass_fds=[channel.fileno()])
    os.kill(os.getpid(), signal.SIGKILL)


def _begin(how: str, channel: socket.socket) -> None:
    if how == "no_hello":
        threading.Event().wait()
    if how == "dead":
        sys.stderr.write("no such library\n")
        raise SystemExit(1)
    channel.send(pack(0, Hello(2 if how == "newer" else wire.PROTOCOL)))


def _answer(how: str, number: int, channel: socket.socket, outputs: Slot) -> None:
    if how in PLACES:
        channel.send(pack(number, Answer((PLACES[how],))))
    elif how == "close":
        _close(channel)
    elif how == "grandchild":
        _die_beside_a_grandchild(channel)
    elif how == "shrinks":
        try:
            os.ftruncate(int(sys.argv[4]), 0)
        except OSError:
            channel.send(pack(number, Answer(outputs.put({"y": np.ones(3, np.float32)}))))
    else:
        channel.send(PACKETS[how](number))


def main(how: str, channel: socket.socket, outputs: Slot) -> None:
    _begin(how, channel)
    while packet := memoryview(channel.recv(wire.MAX_PACKET_BYTES)):
        number, request = wire.number_of(packet), wire.request_of(packet)
        if isinstance(request, wire.Load) and how != "load":
            channel.send(pack(number, Loaded(INFO, exclusive=False)))
        elif isinstance(request, wire.Ping | wire.Unload):
            channel.send(pack(number, Done()))
        else:
            _answer(how, number, channel, outputs)


if __name__ == "__main__":
    way, first, _, third, parent, _, most_bytes = sys.argv[1:]
    worker.guard(int(parent))
    main(way, socket.socket(fileno=int(first)), Slot(int(third), int(most_bytes)))
