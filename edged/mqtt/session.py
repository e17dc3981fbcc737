"""State that outlives a connection: what is not yet safe, who takes us over, which version to speak. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

WantedVersion = Literal["auto", "5", "3.1.1"]
Version = Literal["5", "3.1.1"]

QUICK_DROP_S = 2.0  # a connection lost this soon after CONNACK is suspicious
QUICK_DROPS = 3  # this many in a row look like another client with our id
SILENT_CLOSES = 2  # closed without an answer to an MQTT 5 CONNECT this often: try 3.1.1


class InboundBudget:
    """How many received messages and payload bytes are not yet safe, and whether reading should pause.

    Pauses at the limit, resumes at half of it, so that one commit frees room for more than one read.
    """

    __slots__ = ("bytes", "count", "max_bytes", "max_count", "paused")

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0
        self.paused = False

    def received(self, count: int, size_bytes: int) -> bool:
        """Count new messages; return whether reading should be paused now."""
        self.count += count
        self.bytes += size_bytes
        if self.count >= self.max_count or self.bytes >= self.max_bytes:
            self.paused = True
        return self.paused

    def released(self, count: int, size_bytes: int) -> bool:
        """Count messages that became safe; return whether reading should be paused still."""
        self.count -= count
        self.bytes -= size_bytes
        if self.paused and self.count <= self.max_count // 2 and self.bytes <= self.max_bytes // 2:
            self.paused = False
        return self.paused

    @property
    def twice_full(self) -> bool:
        """Whether even a short read for the sake of the keep-alive would be too much."""
        return self.count >= 2 * self.max_count or self.bytes >= 2 * self.max_bytes


class TakeoverWatch:
    """Notices that another client uses our client id: the broker says so (MQTT 5), or drops us quickly, repeatedly."""

    __slots__ = ("_quick_drops",)

    def __init__(self) -> None:
        self._quick_drops = 0

    def ended(self, *, taken_over: bool, connected_s: float | None) -> bool:
        """Count the end of a connection; return whether the client id must be suspected.

        connected_s: seconds since CONNACK, None when there was none.
        """
        if connected_s is None:
            return False
        self._quick_drops = self._quick_drops + 1 if connected_s < QUICK_DROP_S else 0
        return taken_over or self._quick_drops >= QUICK_DROPS


class VersionChoice:
    """Which MQTT version the next CONNECT speaks. With "auto" it starts with 5 and remembers what worked."""

    __slots__ = ("_silent_closes", "_spoken", "_wanted", "version")

    def __init__(self, wanted: WantedVersion) -> None:
        self._wanted = wanted
        self._silent_closes = 0
        self._spoken: Version | None = None
        self.version: Version = "3.1.1" if wanted == "3.1.1" else "5"

    def accepted(self) -> None:
        self._silent_closes = 0
        self._spoken = self.version

    def refused(self) -> bool:
        """The broker does not speak this version; return whether another one is worth trying."""
        if self._wanted != "auto":
            return False
        self._silent_closes = 0
        self.version = "5" if self.version == "3.1.1" else "3.1.1"
        return self.version == "3.1.1"  # back to 5 means that both were refused: no hurry

    def silently_closed(self) -> None:
        """The broker closed before CONNACK: a restart, or a broker that does not know our version.

        A version that this broker has spoken before is not given up for that: it is a restart or a broken line.
        """
        if self._spoken == self.version:
            return
        self._silent_closes += 1
        if self._silent_closes >= SILENT_CLOSES:
            self.refused()


class Alarms:
    """Tells changes only: an alarm that is active already, or inactive still, is not repeated."""

    __slots__ = ("_active", "_tell")

    def __init__(self, tell: Callable[[str, bool, str], None]) -> None:
        self._tell = tell
        self._active: set[str] = set()

    def set(self, code: str, active: bool, detail: str) -> None:
        if active == (code in self._active):
            return
        if active:
            self._active.add(code)
        else:
            self._active.discard(code)
        self._tell(code, active, detail)
