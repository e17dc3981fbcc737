"""Whether the other side is still there: decided by progress, not by the state of the socket. Pure."""

from __future__ import annotations

from typing import NamedTuple

_NS = 1_000_000_000


class Verdict(NamedTuple):
    """What the moment asks for. `half_open`: why the connection is to be given up, empty while it lives."""

    ping: bool
    short_read: bool
    half_open: str


class Liveness:
    """When bytes were last read, written and acknowledged. All times are monotonic nanoseconds.

    keep_alive_s: longest silence MQTT allows us; twice refreshed within it, so that one lost timer does no harm.
    ack_timeout_s: with publishes in flight and no acknowledgement for so long, nobody is listening.
    """

    __slots__ = ("_ack_timeout_ns", "_keep_alive_ns", "paused_ns", "pinged", "progress_ns", "read_ns", "written_ns")

    def __init__(self, now_ns: int, *, keep_alive_s: float, ack_timeout_s: float) -> None:
        self._keep_alive_ns = int(keep_alive_s * _NS)
        self._ack_timeout_ns = int(ack_timeout_s * _NS)
        self.read_ns = self.written_ns = self.progress_ns = now_ns
        self.paused_ns = 0  # since when we do not read; 0 while we do
        self.pinged = False  # and nothing came since

    @property
    def tick_s(self) -> float:
        """How often to ask for a verdict."""
        return min(1.0, self._keep_alive_ns / _NS / 8)

    def heard(self, now_ns: int) -> None:
        """Bytes came: any byte proves life."""
        self.read_ns = now_ns
        self.pinged = False

    def paused(self, now_ns: int) -> None:
        self.paused_ns = now_ns

    def resumed(self, now_ns: int) -> None:
        """Time that passed unread says nothing about the broker."""
        self.paused_ns = 0
        self.read_ns = self.progress_ns = now_ns

    def verdict(self, now_ns: int, *, inflight: int) -> Verdict:
        """What to do now, with `inflight` publishes unacknowledged."""
        due_ns = self._keep_alive_ns * 3 // 4
        reading = not self.paused_ns
        ping = now_ns - self.written_ns >= due_ns or (reading and not self.pinged and now_ns - self.read_ns >= due_ns)
        if not reading:  # the silence is our own doing
            return Verdict(ping, now_ns - self.paused_ns >= self._keep_alive_ns, "")
        silent_ns = now_ns - self.read_ns
        waiting_ns = now_ns - self.progress_ns
        half_open = ""
        if self.pinged and silent_ns >= self._keep_alive_ns * 3 // 2:
            half_open = f"nothing came for {silent_ns / _NS:.1f} s, not even an answer to a ping"
        elif inflight and waiting_ns >= self._ack_timeout_ns:
            half_open = f"{inflight} publishes, no acknowledgement for {waiting_ns / _NS:.1f} s"
        return Verdict(ping, False, half_open)
