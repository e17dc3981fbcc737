"""How many inputs one call of a model should take, and where the model should run, from its measured cost. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

Host = Literal["inline", "lane"]
Commit = Literal["together", "after"]
CommitWish = Literal["together", "after", "auto"]

TYPICAL_BATCH_COUNT = 32  # what gathers during one commit at a usual rate; the call that is judged


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


def choose_host(cost: Cost, *, inline_max_us: float, items: int = TYPICAL_BATCH_COUNT) -> Host:
    """Where a model runs: on the loop while a call with `items` inputs stays short, else on a lane."""
    return "inline" if cost.batch_us(items) <= inline_max_us else "lane"


def choose_commit(wish: CommitWish, cost: Cost, *, together_max_ms: float, items: int = TYPICAL_BATCH_COUNT) -> Commit:
    """Whether events wait for their results before they are committed; `auto` decides by the measured cost."""
    if wish != "auto":
        return wish
    return "together" if cost.batch_us(items) <= together_max_ms * 1000 else "after"


def best_batch(cost: Cost, waiting: int, deadline_ms: float, *, largest: int = 1024) -> int:
    """How many of the `waiting` inputs the next call takes: as many as finish within the deadline, at least one.

    One is taken even where it cannot meet the deadline: a late answer says so, a missing one does not.
    """
    if waiting <= 0:
        return 0
    most = min(waiting, largest)
    deadline_us = deadline_ms * 1000
    if cost.item_us <= 0 or cost.batch_us(most) <= deadline_us:
        return most
    return int(max(1.0, min(most, (deadline_us - cost.call_us) / cost.item_us)))
