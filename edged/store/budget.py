"""How much room the store may take, and how much must be given up for the next row. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

ROW_OVERHEAD_BYTES = 128  # numbers, boot id and cell of a row
WAL_PAGES_MAX = 10_000
WAL_FRAME_HEADER_BYTES = 24
RETURN_PAGES_MAX = 64  # given back to the file system per commit, when the file is larger than it may be
SLACK_MAX_BYTES = 262_144
SLACK_SHARE = 64
PROTECTED_SHARE = 4
WAL_BUDGET_SHARE = 16  # the WAL is brought home at a sixteenth of the budget, when that is less


class Limits(NamedTuple):
    """Configured bounds, bytes."""

    budget_bytes: int
    free_floor_bytes: int
    page_bytes: int
    keep_bytes: int = 64_000_000

    @property
    def keep_pages(self) -> int:
        """Rows that are free stay while the file has no more than these; at most half of the budget."""
        return min(self.keep_bytes, self.budget_bytes // 2) // self.page_bytes

    @property
    def slack_bytes(self) -> int:
        """Room made beyond what is needed now, so that not every commit has to make some."""
        return min(SLACK_MAX_BYTES, self.budget_bytes // SLACK_SHARE)

    @property
    def protected_bytes(self) -> int:
        """What the surroundings of alarms may hold."""
        return self.budget_bytes // PROTECTED_SHARE

    @property
    def wal_pages(self) -> int:
        """From this length on the WAL is brought home."""
        return max(100, min(WAL_PAGES_MAX, self.budget_bytes // WAL_BUDGET_SHARE // self.page_bytes))

    @property
    def wal_bytes(self) -> int:
        """What the WAL may become: under load it is brought home at twice its usual length."""
        return 2 * self.wal_pages * (self.page_bytes + WAL_FRAME_HEADER_BYTES)


class Usage(NamedTuple):
    """What is used now. `free_pages` are inside the file and reused before it grows."""

    pages: int
    free_pages: int
    wal_bytes: int
    other_bytes: int
    disk_free_bytes: int


def file_allowance(usage: Usage, limits: Limits) -> int:
    """Bytes the database file may have: the budget without WAL (as it is, or as it may become) and other files."""
    return limits.budget_bytes - usage.other_bytes - max(usage.wal_bytes, limits.wal_bytes)


def row_bytes(payload_bytes: int, page_bytes: int) -> int:
    """Upper estimate of the file space that a row with so many blob bytes takes: whole pages."""
    return (payload_bytes + ROW_OVERHEAD_BYTES) // page_bytes * page_bytes + 2 * page_bytes


def shortage(usage: Usage, limits: Limits, need_bytes: int) -> int:
    """Bytes of old rows to give up before a row of `need_bytes` is written; 0 while there is room.

    Two bounds: the budget, and the floor below which the file system must not be filled (only growth fills it).
    """
    live_bytes = (usage.pages - usage.free_pages) * limits.page_bytes
    over_budget = live_bytes + need_bytes - file_allowance(usage, limits)
    growth = max(0, need_bytes - usage.free_pages * limits.page_bytes)
    below_floor = growth - max(0, usage.disk_free_bytes - limits.free_floor_bytes)
    return max(0, over_budget, below_floor)


def pages_to_return(usage: Usage, limits: Limits) -> int:
    """Free pages to give back to the file system: as many as the file is too large."""
    excess_bytes = usage.pages * limits.page_bytes - file_allowance(usage, limits)
    return min(usage.free_pages, max(0, -(-excess_bytes // limits.page_bytes)))
