"""How many inputs one call of a model should take, and where the model should run, from its measured cost. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

Host = Literal["inline", "lane"]
CommitPolicy = Literal["together", "after", "auto"]

INLINE_BATCH_COUNT = 32
INLINE_LIMIT_US = 1_000  # blocking the loop longer than this would show in the p99 of every other pipeline


class Cost(NamedTuple):
    """A straight line through two measured calls: µs per call plus µs per item."""

    call_us: float
    item_us: float

    def batch_us(self, items: int) -> float:
        return self.call_us + self.item_us * items


def fit_cost(one_us: float, many_us: float, many: int) -> Cost:
    """The cost line through a call with one item and a call with `many` (>= 2); noise never makes a slope negative."""
    item_us = max(0.0, (many_us - one_us) / (many - 1))
    return Cost(max(0.0, one_us - item_us), item_us)


def choose_host(
    cost: Cost, commit: CommitPolicy, *, inline_limit_us: float = INLINE_LIMIT_US, items: int = INLINE_BATCH_COUNT
) -> Host:
    """Where a model runs. `together` (results in the transaction of their events) needs the loop, `after` a lane."""
    if commit == "together":
        return "inline"
    if commit == "after":
        return "lane"
    return "inline" if cost.batch_us(items) <= inline_limit_us else "lane"


def best_batch(cost: Cost, waiting: int, deadline_ms: float, *, largest: int = 1024) -> int:
    """How many of the `waiting` inputs the next call takes: as many as finish within the deadline, at least one.

    One is taken even where it cannot meet the deadline: a late answer says so, a missing one does not.
    """
    if waiting <= 0:
        return 0
    most = min(waiting, largest)
    budget_us = deadline_ms * 1000 - cost.call_us
    if cost.item_us <= 0:
        return most
    return max(1, min(most, int(budget_us / cost.item_us)))
