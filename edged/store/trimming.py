"""Giving space back after a backlog has gone home: few rows, few pages per step, so that no commit waits for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

    from edged.store.budget import Limits
    from edged.store.eviction import Retention

ROWS_FIRST, ROWS_MIN, ROWS_MAX = 16, 4, 256
PAGES_MIN, PAGES_MAX = 4, 512  # the first ones cost most: they are searched for in the whole list of free pages
LONG_US, SHORT_US = 4_000, 2_000  # a step, made durable: longer ones become smaller, shorter ones larger
SHRINK_FREE_SHARE = 4  # the file is made smaller from so large a part of free pages on: pages move at most once then
SHRUNK_FREE_SHARE = 32
SHRINK_ABOVE = 1.125  # times the pages that may stay
REMOVE_ABOVE = 1.0625


class Trimmer:
    """Sizes and order of the steps. `step` runs in the writer thread, inside a transaction of its own."""

    def __init__(self, limits: Limits, retention: Retention) -> None:
        self._limits = limits
        self._retention = retention
        self._rows = ROWS_FIRST
        self._pages = PAGES_MIN
        self._removing = False
        self._shrinking = False
        self.home_wanted = False
        """The file has become shorter: only when the WAL has come home, the file system gets the space."""

    def may_do(self, pages: int, free_pages: int) -> bool:
        """Whether a step could find something; asked on the loop."""
        if self._must_shrink(pages, free_pages) or self._retention.graves.sweep_wanted:
            return True
        return self._must_remove(pages - free_pages) and self._retention.free.may_find

    def step(self, connection: apsw.Connection) -> bool:
        """Remove some rows, or give some pages back; True when there is more to do."""
        pages, free_pages = connection.pragma("page_count"), connection.pragma("freelist_count")
        self._removing = self._must_remove(pages - free_pages)
        removed = self._retention.take_free(connection, self._rows) if self._removing else 0
        goes_on, self._shrinking = self._shrinking, self._must_shrink(pages, free_pages)
        if self._shrinking and not goes_on:
            self._pages = PAGES_MIN
        if self._shrinking and removed < self._rows:
            surplus = min(self._pages, free_pages, pages - self._limits.keep_pages)
            connection.pragma("incremental_vacuum", surplus)
            self._shrinking = self._must_shrink(connection.pragma("page_count"), connection.pragma("freelist_count"))
            self.home_wanted = not self._shrinking
        if not removed and not self._shrinking:
            self._retention.tidy(connection)
        return bool(removed) or self._shrinking or self._retention.graves.sweep_wanted

    def took(self, took_us: int) -> None:
        """How long the last step took until it was durable."""
        if took_us > LONG_US:
            self._rows, self._pages = max(ROWS_MIN, self._rows // 2), max(PAGES_MIN, self._pages // 2)
        elif took_us < SHORT_US:
            self._rows, self._pages = min(ROWS_MAX, self._rows * 2), min(PAGES_MAX, self._pages * 2)

    def _must_remove(self, live_pages: int) -> bool:
        """Many rows at once: a row per commit would cost a commit more."""
        keep = self._limits.keep_pages
        return live_pages > (keep if self._removing else keep * REMOVE_ABOVE)

    def _must_shrink(self, pages: int, free_pages: int) -> bool:
        if self._shrinking:
            return free_pages > pages // SHRUNK_FREE_SHARE and pages > self._limits.keep_pages
        return free_pages > pages // SHRINK_FREE_SHARE and pages > self._limits.keep_pages * SHRINK_ABOVE
