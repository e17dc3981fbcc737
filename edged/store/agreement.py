"""Do the tables beside the journal agree with it and with each other? For `edged store verify`; reads only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edged.errors import StoreCorrupt
from edged.store import records
from edged.store.protection import OPEN

if TYPE_CHECKING:
    import apsw

    from edged.messages import Notice
    from edged.store.segment import Unpacker

TABLES = ("start", "aggregate", "protected", "record")

_OVERLAPS = """
SELECT stream, first, last, reason FROM (
    SELECT stream, first, last, reason, max(last) OVER (
        PARTITION BY stream ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM tombstone WHERE stream != 'notice')
WHERE first <= before
"""
_MISCOUNTED = (
    "SELECT stream, first, last, n FROM tombstone WHERE first > last OR (stream != 'notice' AND n != last - first + 1)"
)
_SUMMARIES = """
SELECT aggregate.tombstone, interval_s, aggregate.n, data, tombstone.n
FROM aggregate LEFT JOIN tombstone ON tombstone.id = aggregate.tombstone
WHERE aggregate.tombstone > ? ORDER BY aggregate.tombstone LIMIT ?
"""
_RECORDS = """
SELECT stream, first, n, record.batch, notice_n, notices
FROM record LEFT JOIN journal ON journal.batch = record.batch
WHERE (stream, first) > (?, ?) ORDER BY stream, first LIMIT ?
"""
_PROTECTED = "SELECT first_batch, last_batch FROM protected ORDER BY first_batch"


def has_tables(connection: apsw.Connection) -> bool:
    """False for a store that only a former program has used."""
    return all(connection.table_exists("main", table) for table in TABLES)


def of_tombstones(connection: apsw.Connection) -> Iterator[str]:
    """Each number is lost once, and counted right."""
    for stream, first, last, reason in connection.execute(_OVERLAPS):
        yield f"tombstone {stream} {first} to {last} ({reason}): an earlier one stands for numbers of it"
    for stream, first, last, n in connection.execute(_MISCOUNTED):
        yield f"tombstone {stream} {first} to {last}: says {n} numbers"


def of_protected(connection: apsw.Connection) -> Iterator[str]:
    before = 0
    for first, last in connection.execute(_PROTECTED):
        if first <= before or last < first:
            yield f"surroundings of an alarm {first} to {'now' if last == OPEN else last}: do not follow those before"
        before = max(before, last)


def of_summaries(connection: apsw.Connection, unpacker: Unpacker, after: int, limit: int) -> tuple[int, list[str]]:
    """Looks at the next `limit` summaries behind tombstone `after`: (where to go on, 0 at the end; problems)."""
    problems = []
    tombstone = 0
    rows = list(connection.execute(_SUMMARIES, (after, limit)))
    for tombstone, interval_s, n, data, lost in rows:
        if lost is None:
            problems.append(f"summary {tombstone}: there is no tombstone that it belongs to")
            continue
        try:
            told = sum(row.n for row in unpacker.summary(data, n))
        except StoreCorrupt as error:
            problems.append(f"summary {tombstone}: {error.message}")
            continue
        if told > lost or interval_s not in (60, 3600):
            problems.append(
                f"summary {tombstone}: {told} rows in intervals of {interval_s} s, its tombstone has {lost}"
            )
    return (tombstone if len(rows) == limit else 0), problems


def of_records(
    connection: apsw.Connection, unpacker: Unpacker, after: tuple[str, int], limit: int
) -> tuple[tuple[str, int], list[str]]:
    """Looks at the next `limit` entries of the table `record`: (where to go on, ("", 0) at the end; problems)."""
    problems = []
    rows = list(connection.execute(_RECORDS, (*after, limit)))
    for stream, first, n, batch, notice_n, blob in rows:
        numbers = records.numbers(_notices(unpacker, blob, notice_n)).get(stream)
        if numbers != (first, first + n - 1):
            problems.append(f"record {stream} {first} to {first + n - 1}: row {batch} has {numbers or 'none of it'}")
    return ((rows[-1][0], rows[-1][1]) if len(rows) == limit else ("", 0)), problems


def of_notices(connection: apsw.Connection, batch: int, notices: list[Notice]) -> Iterator[str]:
    """The numbers in a row can be found by the table `record`."""
    for stream, (first, last) in records.numbers(notices).items():
        found = records.at_or_after(connection, stream, first)
        if found != (first, last - first + 1, batch):
            yield f"row {batch}: {stream} {first} to {last} is not in the table of records"


def _notices(unpacker: Unpacker, blob: Any, n: int | None) -> list[Notice]:
    try:
        return unpacker.notices(blob, n) if blob is not None and n else []
    except StoreCorrupt:
        return []  # the row itself has been named
