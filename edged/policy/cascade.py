"""Which answers of a small model are worth asking a larger one about: a band of scores and a budget. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Band(NamedTuple):
    """Scores from `low` on and below `high` are too unsure to stand."""

    low: float
    high: float

    def holds(self, score: float | None) -> bool:
        """None: the small model has no answer, and what it could not read is not asked about."""
        return score is not None and self.low <= score < self.high


class Bucket(NamedTuple):
    """Questions that may be asked at once, as of `at_ns`; it fills with `per_s` and holds those of one second."""

    per_s: float
    tokens: float
    at_ns: int

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_s)

    def at(self, now_ns: int) -> Bucket:
        """The bucket at a later moment; a clock that stands still fills nothing."""
        gained = max(0, now_ns - self.at_ns) / 1e9 * self.per_s
        return self._replace(tokens=min(self.capacity, self.tokens + gained), at_ns=max(now_ns, self.at_ns))


def full_bucket(per_s: float, now_ns: int) -> Bucket:
    return Bucket(per_s, max(1.0, per_s), now_ns)


class Choice(NamedTuple):
    """Rows to ask about, rows there is no budget for, and the budget that is left."""

    ask: tuple[int, ...]
    shed: tuple[int, ...]
    bucket: Bucket


def choose(scores: Sequence[float | None], band: Band, bucket: Bucket) -> Choice:
    """In the order of the rows: the one that came first has the first claim."""
    unsure = tuple(row for row, score in enumerate(scores) if band.holds(score))
    count = min(len(unsure), int(bucket.tokens))
    return Choice(unsure[:count], unsure[count:], bucket._replace(tokens=bucket.tokens - count))
