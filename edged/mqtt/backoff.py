"""How long to wait before the next attempt, and how long in it: full jitter, and patience with slow lines. Pure."""

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


SLOW = frozenset({"timeout", "half_open"})
"""Ends that a line causes which loses or delays so much that the other side cannot have answered yet."""


def next_patience(patience: float, most: float, code: str, up_s: float, stable_s: float) -> float:
    """The factor on all waiting times of the next connection, after one has ended with `code`.

    On a line that loses 40 % of its packets a handshake takes minutes; who gives up sooner never arrives. It doubles up
    to `most` with each end of that kind, and falls by half when a connection was stable and ended otherwise.
    """
    if code in SLOW:
        return min(most, 2 * patience)
    return max(1.0, patience / 2) if up_s >= stable_s else patience
