"""A broker moved by hand, in threads of its own: says, withholds, breaks off and repeats as the test wants. MQTT 5."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from tests.doubles.waiting import until

CONNACK = b"\x20\x03\x00\x00\x00"
CONNACK_SESSION = b"\x20\x03\x01\x00\x00"
SERVER_BUSY = b"\x20\x03\x00\x89\x00"


def length(count: int) -> bytes:
    """A variable byte integer."""
    out = b""
    while True:
        count, low = divmod(count, 128)
        if not count:
            return out + bytes((low,))
        out += bytes((low | 128,))


def publish_packet(packet_id: int, topic: str, payload: bytes, *, duplicate: bool = False) -> bytes:
    name = topic.encode()
    head = struct.pack(">H", len(name)) + name + struct.pack(">H", packet_id) + b"\0"
    return bytes((0x3A if duplicate else 0x32,)) + length(len(head) + len(payload)) + head + payload


class HandConnection:
    """One client. acks: packet ids it acknowledged, in order. published: (topic, payload) in order.

    withhold: leave its publishes unacknowledged until `acknowledge_all`.
    """

    def __init__(self, sock: socket.socket, *, withhold: bool = False) -> None:
        self.acks: list[int] = []
        self.published: list[tuple[str, bytes]] = []
        self.withhold = withhold
        self.subscribed = threading.Event()
        self.ended = threading.Event()
        self._socket = sock
        self._owed: list[int] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        with self._sending:  # two threads send; a packet of megabytes goes out in many pieces
            self._socket.sendall(data)

    def drip(self, data: bytes, pause_s: float) -> None:
        """One byte at a time, as slowly as a bad radio link."""
        with self._sending:
            for byte in data:
                self._socket.sendall(bytes((byte,)))
                time.sleep(pause_s)

    def break_off(self, data: bytes) -> None:
        """Say this much, and nothing more."""
        with self._sending:
            self._socket.sendall(data)
            self.close()

    def publish(self, packet_id: int, topic: str, payload: bytes) -> None:
        self.send(publish_packet(packet_id, topic, payload))

    def acknowledge_all(self) -> None:
        """Everything owed, and from now on at once."""
        with self._lock:
            self.withhold = False
            owed, self._owed = self._owed, []
        for packet_id in owed:
            self.send(b"\x40\x02" + struct.pack(">H", packet_id))

    def bodies(self, topic: str) -> list[dict[str, Any]]:
        """The JSON it published to this topic and below."""
        found = [body for name, body in list(self.published) if name == topic or name.startswith(f"{topic}/")]
        return [json.loads(body) for body in found]

    def owed(self) -> int:
        return len(self._owed)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Read until the client leaves."""
        try:
            stream = self._socket.makefile("rb")
            while kind := stream.read(1):
                size, shift = 0, 0
                while (byte := stream.read(1)[0]) & 128:
                    size |= (byte & 127) << shift
                    shift += 7
                self._on_packet(kind[0], stream.read(size | byte << shift))
        except (OSError, IndexError, ValueError):
            pass  # the client left
        finally:
            self.ended.set()
            self._socket.close()

    def _on_packet(self, kind: int, body: bytes) -> None:
        match kind >> 4:
            case 3:
                self._on_publish(kind, body)
            case 4:
                self.acks.append(int.from_bytes(body[:2], "big"))
            case 8:
                count, at = 0, 3
                while at < len(body):
                    at += 3 + int.from_bytes(body[at : at + 2], "big")
                    count += 1
                self.send(b"\x90" + length(3 + count) + body[:2] + b"\0" + b"\x01" * count)
                self.subscribed.set()
            case 12:
                self.send(b"\xd0\x00")

    def _on_publish(self, kind: int, body: bytes) -> None:
        at = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:at].decode()
        packet_id = 0
        if kind & 6:
            packet_id = int.from_bytes(body[at : at + 2], "big")
            at += 2
        at += 1 + body[at]  # properties; those the daemon sends are shorter than 128 bytes
        self.published.append((topic, body[at:]))
        if packet_id:
            with self._lock:
                if self.withhold:
                    self._owed.append(packet_id)
                    return
            self.send(b"\x40\x02" + struct.pack(">H", packet_id))


Greeting = Callable[[HandConnection], bool]
"""Answers CONNECT; False ends the connection there."""


def accept(connack: bytes = CONNACK_SESSION) -> Greeting:
    def greet(connection: HandConnection) -> bool:
        connection.send(connack)
        return True

    return greet


def refuse(connection: HandConnection) -> bool:
    connection.send(SERVER_BUSY)
    return False


def break_off(connection: HandConnection) -> bool:
    """In the middle of CONNACK."""
    connection.send(CONNACK[:2])
    return False


def hang_up(_connection: HandConnection) -> bool:
    return False


class HandBroker:
    """Greets the n-th connection with the n-th greeting; the last one is repeated."""

    def __init__(self, *greetings: Greeting, withhold: bool = False) -> None:
        self._greetings: Sequence[Greeting] = greetings or (accept(CONNACK), accept())
        self._withhold = withhold
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.attempts = 0
        self.connections: list[HandConnection] = []
        """Those that were greeted to the end."""
        self._open: list[socket.socket] = []

    def connection(self, number: int = 1, within_s: float = 30.0) -> HandConnection:
        """The n-th that was greeted, from 1, once it has subscribed."""
        found = until(lambda: self.connections[number - 1 :], f"connection {number}", within_s)[0]
        assert found.subscribed.wait(within_s), "the daemon did not subscribe"
        return found

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return  # closed: the test is over
            self._open.append(sock)
            greet = self._greetings[min(self.attempts, len(self._greetings) - 1)]
            self.attempts += 1
            threading.Thread(target=self._meet, args=(sock, greet), daemon=True).start()

    def _meet(self, sock: socket.socket, greet: Greeting) -> None:
        connection = HandConnection(sock, withhold=self._withhold)
        try:
            sock.recv(65_536)  # CONNECT comes in one piece
            if not greet(connection):
                sock.close()
                return
        except OSError:
            return  # the client left
        self.connections.append(connection)
        connection.serve()

    def __enter__(self) -> HandBroker:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._server.close()
        for sock in self._open:
            sock.close()
