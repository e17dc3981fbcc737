"""How long to wait before the next attempt: full jitter. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a random part of a ceiling that doubles, so that a whole site does not return in step.

    first_s: ceiling of the first wait; cap_s: largest ceiling; stable_s: a connection that lived this long starts anew.
    """

    first_s: float = 1.0
    cap_s: float = 60.0
    stable_s: float = 60.0

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after the given number of failures in a row (from 1); `chance` is uniform in [0, 1)."""
        doublings = min(failures - 1, 32)  # 2**32 exceeds every sensible cap; more would only make large integers
        return chance * min(self.cap_s, self.first_s * (1 << doublings))

    def failures_after(self, failures: int, up_s: float) -> int:
        """Failures in a row after a connection that was up for `up_s` seconds (0: it never was) has ended."""
        return 1 if up_s >= self.stable_s else failures + 1
