"""What the columns of a batch share while they are written or read. Pure."""

from __future__ import annotations

from itertools import chain, repeat
from operator import itemgetter
from typing import Any

from edged.sync.nodes import VALUES_MAX

WORK_PER_ROW = 256  # entries that all nodes of a batch together may expand to, per row


class Frame:
    """What the columns of a batch share: rows of one call, rows of one group, and the columns decoded so far.

    n: rows. call_rows: how many rows each call has. codes: the group of each row.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.call_rows: list[int] = [n]
        self.columns: dict[str, list[Any]] = {}  # as they are written, one entry per call where there is one per call
        self._work_left = WORK_PER_ROW * (n + 16) + 8 * VALUES_MAX
        self._values_left = VALUES_MAX
        self.group([0] * n, 1)

    def group(self, codes: list[int], groups: int) -> None:
        self.groups = groups
        self.order = sorted(range(self.n), key=codes.__getitem__)
        self.places = sorted(range(self.n), key=self.order.__getitem__)
        self.sizes = [0] * groups
        for code in codes:
            self.sizes[code] += 1
        self.codes = codes

    def spend(self, count: int) -> None:
        self._work_left -= count + 1
        if self._work_left < 0:
            raise ValueError("the columns expand to more than a batch may hold")

    def take_values(self, count: int) -> None:
        self._values_left -= count
        if self._values_left < 0:
            raise ValueError(f"more than {VALUES_MAX} numbers in `values`")


def gather(values: list[Any], order: list[int]) -> list[Any]:
    """The values at these places."""
    return list(itemgetter(*order)(values)) if len(order) > 1 else [values[place] for place in order]


def spread(values: list[Any], counts: list[int]) -> list[Any]:
    """Each value as often as its count says."""
    return list(chain.from_iterable(map(repeat, values, counts)))
