"""A clock that moves only when told to."""

from __future__ import annotations

from edged.ports import ClockQuality


class FakeClock:
    """Implements `edged.ports.Clock`. Monotonic and wall time advance together; `jump_wall_ms` moves the wall alone."""

    def __init__(
        self, *, mono_ns: int = 1_000_000_000, wall_ms: int = 1_700_000_000_000, boot_id: str = "boot-1"
    ) -> None:
        self.boot_id = boot_id
        self.quality_now: ClockQuality = "synced"
        self._mono_ns = mono_ns
        self._wall_ns = wall_ms * 1_000_000

    def mono_ns(self) -> int:
        return self._mono_ns

    def wall_ms(self) -> int:
        return self._wall_ns // 1_000_000

    def quality(self) -> ClockQuality:
        return self.quality_now

    def error_ns(self) -> int | None:
        return 1_000_000

    def advance_us(self, microseconds: float) -> None:
        self._mono_ns += int(microseconds * 1000)
        self._wall_ns += int(microseconds * 1000)

    def advance_s(self, seconds: float) -> None:
        self.advance_us(seconds * 1e6)

    def jump_wall_ms(self, milliseconds: int) -> None:
        self._wall_ns += milliseconds * 1_000_000
