"""Giving up the oldest rows inside the transaction that needs their room; what was not delivered leaves a tombstone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edged.store.lookup import Row

if TYPE_CHECKING:
    import apsw

EVICT_ROWS_MAX = 256  # per commit: a commit's time stays bounded, the next commit continues
REASON_BUDGET = "budget"
REASON_DAMAGE = "damage"

_OLDEST = """
SELECT batch, event_first, event_n, result_first, result_n, notice_n,
    length(meta) + ifnull(length(notices), 0) + ifnull(length(results), 0) + ifnull(length(events), 0)
FROM journal WHERE batch < (SELECT max(batch) FROM journal) ORDER BY batch LIMIT ?
"""


@dataclass
class Cursors:
    """How far everything has been delivered, kept up to date by the engine; read in the writer thread.

    results, events: newest seq that is no longer needed here (delivered; answered). notice_batch: the same for notices.
    """

    results: int = 0
    events: int = 0
    notice_batch: int = 0


class Evicted(NamedTuple):
    rows: int = 0
    events: int = 0
    results: int = 0
    unsent_results: int = 0
    result_upto: int = 0


def evict(connection: apsw.Connection, need_bytes: int, page_bytes: int, cursors: Cursors, wall_ms: int) -> Evicted:
    """Delete oldest rows until pages worth `need_bytes` are free, never the newest row, at most `EVICT_ROWS_MAX`."""
    victims: list[Row] = []
    notices = 0
    free_pages = connection.pragma("freelist_count")
    missing = need_bytes
    while missing > 0 and len(victims) < EVICT_ROWS_MAX:
        chosen = _choose(connection, missing, EVICT_ROWS_MAX - len(victims))
        if not chosen:
            break
        connection.execute("DELETE FROM journal WHERE batch <= ?", (chosen[-1][0].batch,))
        victims += [row for row, _ in chosen]
        notices += sum(n for row, n in chosen if row.batch > cursors.notice_batch)
        # Rows share pages with their neighbours, so that only the file itself knows what came free.
        missing = need_bytes - (connection.pragma("freelist_count") - free_pages) * page_bytes
    if not victims:
        return Evicted()
    first, last = victims[0], victims[-1]
    unsent = _bury(connection, "result", first, last, cursors.results, wall_ms)
    _bury(connection, "event", first, last, cursors.events, wall_ms)
    if notices:
        since = max(first.batch, cursors.notice_batch + 1)
        bury(connection, "notice", since, last.batch, notices, REASON_BUDGET, wall_ms)
    events, results = sum(row.event_n for row in victims), sum(row.result_n for row in victims)
    return Evicted(len(victims), events, results, unsent, last.end("result") - 1)


def _choose(connection: apsw.Connection, need_bytes: int, limit: int) -> list[tuple[Row, int]]:
    """(row, notices in it) of the oldest rows whose blobs come to `need_bytes`."""
    chosen: list[tuple[Row, int]] = []
    for *numbers, notice_n, blob_bytes in connection.execute(_OLDEST, (limit,)):
        if need_bytes <= 0:
            break
        chosen.append((Row(*numbers), notice_n))
        need_bytes -= blob_bytes
    return chosen


def bury(connection: apsw.Connection, stream: str, first: int, last: int, n: int, reason: str, wall_ms: int) -> None:
    """Write a tombstone for `first`..`last`, or lengthen the newest one of the stream that ends just before."""
    connection.execute(
        "UPDATE tombstone SET last = ?1, n = n + ?2"
        " WHERE id = (SELECT max(id) FROM tombstone WHERE stream = ?3) AND reason = ?4 AND last = ?5 - 1",
        (last, n, stream, reason, first),
    )
    if not connection.changes():
        connection.execute(
            "INSERT INTO tombstone(stream, first, last, n, reason, since_wall_ms) VALUES (?,?,?,?,?,?)",
            (stream, first, last, n, reason, wall_ms),
        )


def _bury(connection: apsw.Connection, stream: str, first: Row, last: Row, upto: int, wall_ms: int) -> int:
    """Tombstone for the undelivered part of the rows `first`..`last`; returns how many numbers that was."""
    start, end = _span(stream, first, last)
    start = max(start, upto + 1)
    if start >= end:
        return 0
    bury(connection, stream, start, end - 1, end - start, REASON_BUDGET, wall_ms)
    return end - start


def _span(stream: str, first: Row, last: Row) -> tuple[int, int]:
    if stream == "event":
        return first.event_first, last.end("event")
    return first.result_first, last.end("result")
