"""Finding rows: by batch, by event, by result. Works on any connection; bounded by the caller's limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from edged.ports import StoredEvents, StoredNotices, StoredResults
from edged.store import marks
from edged.store.segment import Unpacker, trim_events, trim_results
from edged.store.values import RowSpan

if TYPE_CHECKING:
    import apsw

Stream = Literal["event", "result"]
Hole = tuple[str, int, int]  # stream, first, last

PORTION_BYTES = 8_000_000  # payloads read at once, about; thousands of usual events, a handful of images


class Row(NamedTuple):
    """The numbers of one journal row."""

    batch: int
    event_first: int
    event_n: int
    result_first: int
    result_n: int

    def count(self, stream: Stream) -> int:
        return self.event_n if stream == "event" else self.result_n

    def end(self, stream: Stream) -> int:
        """First number of `stream` after this row."""
        return self.event_first + self.event_n if stream == "event" else self.result_first + self.result_n


ALL = "SELECT batch, event_first, event_n, result_first, result_n FROM journal ORDER BY batch"
SPAN_OLDEST = "SELECT batch, event_first, result_first, arrival_wall_ms FROM journal ORDER BY batch LIMIT 1"
SPAN_NEWEST = "SELECT batch, event_first, result_first, arrival_wall_ms FROM journal ORDER BY batch DESC LIMIT 1"
ALL_NEWEST_FIRST = ALL + " DESC"
NEWEST = "SELECT batch, event_first, event_n, result_first, result_n FROM journal ORDER BY batch DESC LIMIT 1"
AT_OR_AFTER = (
    "SELECT batch, event_first, event_n, result_first, result_n FROM journal WHERE batch >= ? ORDER BY batch LIMIT 1"
)
FAR = 1 << 62
_WITH = {
    stream: f"SELECT batch, event_first, event_n, result_first, result_n FROM journal"  # noqa: S608  two constants
    f" WHERE batch >= ? AND batch <= ? AND {stream}_n > 0 ORDER BY batch LIMIT 1"
    for stream in ("event", "result")
}
_PROTECTED = "SELECT first_batch, last_batch FROM protected WHERE last_batch >= ? ORDER BY first_batch LIMIT 1"
_LOSSES = (
    "SELECT (SELECT count(*) FROM tombstone WHERE reason != 'freed'),"
    " (SELECT total(n) FROM aggregate), (SELECT total(length(data)) FROM aggregate),"
    " (SELECT total(bytes) FROM protected)"
)


def newest(connection: apsw.Connection) -> Row | None:
    return _row(connection.execute(NEWEST).fetchone())


def span(connection: apsw.Connection) -> tuple[RowSpan | None, RowSpan | None]:
    """Oldest and newest row."""
    oldest, newest = (connection.execute(query).fetchone() for query in (SPAN_OLDEST, SPAN_NEWEST))
    return RowSpan(*oldest) if oldest else None, RowSpan(*newest) if newest else None


class LossFacts(NamedTuple):
    """What was given up, what is kept of it, and what is protected from it."""

    tombstones: int
    summary_rows: int
    summary_bytes: int
    protected_bytes: int


def losses(connection: apsw.Connection) -> LossFacts:
    row = connection.execute(_LOSSES).fetchone()
    return LossFacts(*(int(value) for value in row)) if row else LossFacts(0, 0, 0, 0)


def at_or_after(connection: apsw.Connection, batch: int) -> Row | None:
    return _row(connection.execute(AT_OR_AFTER, (batch,)).fetchone())


def find(connection: apsw.Connection, stream: Stream, seq: int) -> Row | None:
    """The row that holds `seq` of `stream`, or the first later row that holds any; about log2(rows) steps."""
    last = newest(connection)
    if last is None or last.end(stream) <= seq:
        return None
    row = _first_ending_after(connection, stream, seq, last.batch)
    return row if row.count(stream) else _next_with(connection, stream, row.batch)


def _next_with(connection: apsw.Connection, stream: Stream, batch: int) -> Row | None:
    """The first row at or after `batch` that holds any of `stream`, in a stretch whose numbers are gone.

    Rows without results in such a stretch are few. Rows without events are many, because they were stripped of them: up
    to the mark, only the surroundings of alarms have some.
    """
    stripped_upto = marks.number(connection, marks.STRIP_FROM) - 1 if stream == "event" else 0
    while batch <= stripped_upto:
        kept = connection.execute(_PROTECTED, (batch,)).fetchone()
        if kept is None or kept[0] > stripped_upto:
            batch = stripped_upto + 1
            break
        row = _row(connection.execute(_WITH[stream], (max(batch, kept[0]), kept[1])).fetchone())
        if row is not None:
            return row
        batch = kept[1] + 1
    return _row(connection.execute(_WITH[stream], (batch, FAR)).fetchone())


def _first_ending_after(connection: apsw.Connection, stream: Stream, seq: int, last_batch: int) -> Row:
    """Binary search for the first row whose end is beyond `seq`; the row `last_batch` must be such a row."""
    first = at_or_after(connection, 0)
    assert first is not None
    low, high = first.batch, last_batch
    while low < high:
        middle = (low + high) // 2
        row = at_or_after(connection, middle)
        assert row is not None
        if row.end(stream) > seq:
            high = middle
        else:
            low = row.batch + 1
    found = at_or_after(connection, low)
    assert found is not None
    return found


def rows_from(connection: apsw.Connection, stream: Stream, seq: int) -> Iterator[Row]:
    """Rows that hold `stream`, from `seq` on, in order; rows without any are skipped by search, not by scanning."""
    row = find(connection, stream, seq)
    while row is not None:
        yield row
        seq = row.end(stream)
        following = at_or_after(connection, row.batch + 1)
        row = following if following is None or following.count(stream) else find(connection, stream, seq)


def results_from(connection: apsw.Connection, unpacker: Unpacker, seq: int, limit: int) -> list[StoredResults]:
    """Stored results from `seq` on: whole groups until there are `limit`, the first trimmed to start at `seq`."""
    groups: list[StoredResults] = []
    total = 0
    for row in rows_from(connection, "result", seq):
        (blob,) = _one(connection, "SELECT results FROM journal WHERE batch = ?", row.batch)
        columns = unpacker.results(blob, row.result_n)
        skip = max(0, seq - row.result_first)
        groups.append(StoredResults(row.result_first + skip, trim_results(columns, skip) if skip else columns))
        total += row.result_n - skip
        if total >= limit:
            break
    return groups


def events_from(connection: apsw.Connection, unpacker: Unpacker, seq: int, limit: int) -> list[StoredEvents]:
    """Stored events from `seq` on: whole groups until there are `limit`, the first trimmed to start at `seq`.

    Large payloads end the portion earlier: what is read at once is in memory at once.
    """
    groups: list[StoredEvents] = []
    total = size = 0
    for row in rows_from(connection, "event", seq):
        wall_ms, mono_ns, boot, blob = _one(
            connection, "SELECT arrival_wall_ms, arrival_mono_ns, boot, events FROM journal WHERE batch = ?", row.batch
        )
        columns = unpacker.events(blob, row.event_n)
        skip = max(0, seq - row.event_first)
        groups.append(
            StoredEvents(
                row.event_first + skip, wall_ms, mono_ns, boot, trim_events(columns, skip) if skip else columns
            )
        )
        total += row.event_n - skip
        size += sum(map(len, columns.payload))
        if total >= limit or size >= PORTION_BYTES:
            break
    return groups


def notices_after(connection: apsw.Connection, unpacker: Unpacker, batch: int, limit: int) -> list[StoredNotices]:
    """Notices of the batches after `batch`, whole batches until there are `limit` notices."""
    groups: list[StoredNotices] = []
    total = 0
    rows = connection.execute(
        "SELECT batch, notice_n, notices FROM journal WHERE notice_n > 0 AND batch > ? ORDER BY batch", (batch,)
    )
    for number, n, blob in rows:
        groups.append(StoredNotices(number, unpacker.notices(blob, n)))
        total += n
        if total >= limit:
            break
    return groups


def holes(connection: apsw.Connection) -> list[Hole]:
    """Every range of numbers that is missing between two rows; reads all rows' numbers."""
    found: list[Hole] = []
    newest_of: dict[str, int] = {}
    previous: Row | None = None
    for numbers in connection.execute(ALL):
        row = Row(*numbers)
        for stream, first, last in holes_between(previous, row):
            at = newest_of.get(stream)
            if at is not None and found[at][2] == first - 1:  # rows that were stripped, one after the other
                found[at] = (stream, found[at][1], last)
            else:
                newest_of[stream] = len(found)
                found.append((stream, first, last))
        previous = row
    return found


def holes_between(previous: Row | None, row: Row) -> list[Hole]:
    """What is missing between a row and the one before it."""
    if previous is None:
        return []
    ends_and_starts = (
        ("event", previous.end("event"), row.event_first),
        ("result", previous.end("result"), row.result_first),
    )
    return [(stream, end, start - 1) for stream, end, start in ends_and_starts if start != end]


def check_row(connection: apsw.Connection, unpacker: Unpacker, row: Row) -> None:
    """Decode everything a row holds. Raises `StoreCorrupt`."""
    notice_n, meta, notices, results, events = _one(
        connection, "SELECT notice_n, meta, notices, results, events FROM journal WHERE batch = ?", row.batch
    )
    unpacker.unpack_bytes(meta)
    if notice_n:
        unpacker.notices(notices, notice_n)
    if row.result_n:
        unpacker.results(results, row.result_n)
    if row.event_n:
        unpacker.events(events, row.event_n)


def _one(connection: apsw.Connection, query: str, batch: int) -> tuple[Any, ...]:
    values = connection.execute(query, (batch,)).fetchone()
    assert values is not None  # the row was found in this very read transaction
    return tuple(values)


def _row(values: tuple[int, ...] | None) -> Row | None:
    return Row(*values) if values else None
