"""Which rows nobody needs any more, oldest first, found by search and never by counting through those that are needed.

A hand goes over the journal once; when cursors move or more comes home, it goes over what may have become free since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edged.errors import StoreCorrupt
from edged.store import lookup, records
from edged.store.cursors import Seen, first_new

if TYPE_CHECKING:
    import apsw

    from edged.store.cursors import Cursors
    from edged.store.segment import Unpacker

LOOKS_MAX = 512  # rows looked at per call
PORTION = 64  # rows read at once
JUMPS_MAX = 16  # searches per call

_ROWS = (
    "SELECT batch, event_first, event_n, result_first, result_n, notice_n FROM journal"
    " WHERE batch >= ? AND batch < ? ORDER BY batch LIMIT ?"
)


class Numbered(NamedTuple):
    """The numbers of one row."""

    batch: int
    event_first: int
    event_n: int
    result_first: int
    result_n: int
    notice_n: int


class FreeRows:
    """The hand. What it remembers is only where to look; `reset` after a rolled-back transaction is all it needs."""

    def __init__(self, cursors: Cursors, unpacker: Unpacker) -> None:
        self._cursors = cursors
        self._unpacker = unpacker
        self._hand = 0
        self._at_end = False
        self._again_from: int | None = None
        self._seen: Seen | None = None

    def reset(self) -> None:
        self._hand, self._at_end, self._again_from, self._seen = 0, False, None, None

    @property
    def may_find(self) -> bool:
        """False when nothing has changed since the hand came to the end: asking costs nothing then."""
        return not self._at_end or self._seen is None or self._cursors.seen() != self._seen

    def take(self, connection: apsw.Connection, newest: int, limit: int) -> list[Numbered]:
        """Up to `limit` free rows, oldest first, before batch `newest`; the caller removes them.

        An empty answer says that none was found now: the hand may only have used up its looks.
        """
        self._notice_changes(connection)
        self._at_end = False
        found: list[Numbered] = []
        looks = jumps = 0
        while len(found) < limit and looks < LOOKS_MAX and jumps < JUMPS_MAX:
            rows = [Numbered(*row) for row in connection.execute(_ROWS, (self._hand, newest, PORTION))]
            goes_on = False
            for row in rows:
                looks += 1
                jump = self._blocked(connection, row, newest)
                if jump is not None:
                    jumps += jump != row.batch + 1
                    self._hand = jump
                    goes_on = jump < newest
                    break
                found.append(row)
                self._hand = row.batch + 1
                goes_on = True
                if len(found) >= limit:
                    break
            if not goes_on:
                self._hand = newest
                if self._again_from is None:
                    self._at_end = True
                    break
                self._hand, self._again_from = self._again_from, None
                if found:
                    break
        return found

    def _blocked(self, connection: apsw.Connection, row: Numbered, newest: int) -> int | None:
        """None for a free row, else the next batch that may be free."""
        cursors = self._cursors
        last_event, last_result = row.event_first + row.event_n - 1, row.result_first + row.result_n - 1
        if last_result > cursors.results or last_event >= cursors.folded or last_event > cursors.events:
            return newest  # these only grow from row to row
        if row.notice_n and row.batch > cursors.notice_batch:
            return row.batch + 1
        if row.result_n and not cursors.is_home("result", row.result_first, last_result):
            return self._jump(connection, "result", row.result_first, row.batch, newest)
        if row.event_n and not cursors.is_home("event", row.event_first, last_event):
            return self._jump(connection, "event", row.event_first, row.batch, newest)
        if row.notice_n and not self._records_home(connection, row):
            return row.batch + 1
        return None

    def _jump(self, connection: apsw.Connection, stream: lookup.Stream, seq: int, batch: int, newest: int) -> int:
        start = self._cursors.next_home(stream, seq)
        row = lookup.find(connection, stream, start) if start is not None else None
        return max(row.batch, batch + 1) if row is not None else newest

    def _records_home(self, connection: apsw.Connection, row: Numbered) -> bool:
        if not self._cursors.outward.intersection(records.STREAMS):
            return True
        blob = connection.execute("SELECT notices FROM journal WHERE batch = ?", (row.batch,)).fetchone()
        try:
            notices = self._unpacker.notices(blob[0], row.notice_n) if blob else []
        except StoreCorrupt:
            return False  # the start salvages; here it only stays where it is
        return all(self._cursors.is_home(stream, *span) for stream, span in records.numbers(notices).items())

    # --- what has changed ---

    def _notice_changes(self, connection: apsw.Connection) -> None:
        seen, now = self._seen, self._cursors.seen()
        if seen == now:
            return
        self._seen = now
        if seen is None or seen.outward != now.outward:
            self._hand, self._again_from = 0, None
            return
        candidates = [
            _batch_of(connection, "result", seen.results + 1) if now.results > seen.results else None,
            _batch_of(connection, "event", seen.events) if now.events > seen.events else None,
            seen.notice_batch + 1 if now.notice_batch > seen.notice_batch else None,
        ]
        for stream in now.outward:
            first = first_new(seen.home.get(stream, ()), now.home.get(stream, ()))
            if first is not None:
                candidates.append(_batch_of(connection, stream, first))
        lowest = min((batch for batch in candidates if batch is not None), default=None)
        if lowest is not None and lowest < self._hand:
            self._again_from = min(lowest, self._again_from) if self._again_from is not None else lowest


def _batch_of(connection: apsw.Connection, stream: str, seq: int) -> int | None:
    if stream not in records.STREAMS:
        row = lookup.find(connection, "result" if stream == "result" else "event", seq)
        return row.batch if row is not None else None
    record = records.at_or_after(connection, stream, seq)
    return record.batch if record is not None else None
