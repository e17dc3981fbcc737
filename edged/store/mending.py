"""After a salvage: what stands beside the journal is brought in line with the rows that could be read.

Free pages still hold what was deleted from them, so that a salvage finds too much as well as too little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.errors import StoreCorrupt
from edged.store import lookup, marks, protection, records, sidings, starts, tombstones
from edged.store.cursors import table_stream
from edged.store.segment import Unpacker
from edged.sync import ranges

if TYPE_CHECKING:
    import apsw

    from edged.store.lookup import Hole

REASON_UNKNOWN = "damage"

_STONES = "SELECT id, stream, first, last FROM tombstone WHERE stream != 'notice' ORDER BY stream, first, last DESC"
_STARTED = "SELECT ifnull(max(first + n), 1) FROM record WHERE stream = ? AND batch < ?"
_START_COLUMNS = (
    "epoch, boot, instance, first_event, first_result, first_batch, first_alarm, first_health, since_wall_ms"
)
_ALARMS = "SELECT batch, boot, arrival_mono_ns, notice_n, notices FROM journal WHERE notice_n > 0 ORDER BY batch"
_BYTES = """
SELECT total(length(meta) + ifnull(length(notices), 0) + ifnull(length(results), 0) + ifnull(length(events), 0) + 128)
FROM journal WHERE batch BETWEEN ? AND ?
"""


class Books(msgspec.Struct, frozen=True):
    """The part of the newest row's meta that says what is home, and the last number of `alarm` and `health`."""

    synced: dict[str, tuple[tuple[int, int], ...]] = {}
    records: dict[str, int] = {}


def mend(connection: apsw.Connection, surroundings_s: float, protected_bytes: int) -> None:
    """Everything that follows from the rows, found anew; in one transaction. The last two: as configured."""
    with connection:
        sidings.repair(connection, anew=True)
        part_tombstones(connection)
        _mend_epochs(connection)
        _mend_starts(connection)
        _protect(connection, int(surroundings_s * protection.NS_PER_S), protected_bytes)
        with_events = connection.execute("SELECT min(batch) FROM journal WHERE event_n > 0").fetchone()
        if with_events is not None and with_events[0]:
            marks.put(connection, marks.STRIP_FROM, with_events[0])


def part_tombstones(connection: apsw.Connection) -> None:
    """Where two stand for the same number, the later one gives way: a number is lost once.

    Free pages and former programs leave such. A summary is told whole or not at all.
    """
    stream, upto = "", 0
    for number, of, first, last in list(connection.execute(_STONES)):
        if of != stream:
            stream, upto = of, 0
        if first <= upto:
            connection.execute("DELETE FROM aggregate WHERE tombstone = ?", (number,))
            if last <= upto:
                connection.execute("DELETE FROM tombstone WHERE id = ?", (number,))
            else:
                connection.execute(
                    "UPDATE tombstone SET first = ?, n = ? WHERE id = ?", (upto + 1, last - upto, number)
                )
        upto = max(upto, last)


# --- epochs and starts ---


def _mend_epochs(connection: apsw.Connection) -> None:
    """Epochs that only a start knows; and one for rows of which nobody knows it any more: they go home under it."""
    known = starts.epochs(connection)
    names = {row.epoch for row in known}
    for start in _starts(connection):
        if start.epoch not in names:
            names.add(start.epoch)
            firsts = (start.first_event, start.first_result, start.first_batch)
            known.append(starts.EpochRow(start.epoch, REASON_UNKNOWN, *firsts, start.since_wall_ms))
    known.sort(key=lambda row: row.first_batch)
    oldest = lookup.at_or_after(connection, 0)
    if oldest is not None and (not known or oldest.batch < known[0].first_batch):
        firsts = (oldest.event_first, oldest.result_first, oldest.batch)
        known.insert(0, starts.EpochRow(starts.new_epoch(), REASON_UNKNOWN, *firsts, 0))
    starts.write_epochs(connection, known)


def _mend_starts(connection: apsw.Connection) -> None:
    """Each epoch gets back the start that began it; all of them in their order."""
    found = _starts(connection)
    begun = {(start.epoch, start.first_batch) for start in found}
    for row in starts.epochs(connection):
        if (row.epoch, row.first_batch) not in begun:
            alarm, health = (_one(connection, _STARTED, stream, row.first_batch) for stream in records.STREAMS)
            firsts = (row.first_event, row.first_result, row.first_batch, alarm, health)
            found.append(starts.Start(0, row.epoch, "", "", *firsts, row.since_wall_ms))
    found.sort(key=lambda start: (start.first_batch, start.id))
    connection.execute("DELETE FROM start")
    connection.executemany(
        f"INSERT INTO start({_START_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608  constants
        (start[1:] for start in found),
    )


def _starts(connection: apsw.Connection) -> list[starts.Start]:
    """Oldest first."""
    return [starts.Start(*row) for row in connection.execute("SELECT * FROM start ORDER BY first_batch, id")]


# --- the surroundings of alarms ---


class _Alarm(NamedTuple):
    batch: int
    boot: str
    mono_ns: int


def _protect(connection: apsw.Connection, around_ns: int, limit_bytes: int) -> None:
    """The table `protected` from the alarms in the journal; the newest of them, as far as they may be protected."""
    connection.execute("DELETE FROM protected")
    newest = lookup.newest(connection)
    if newest is None or not around_ns:
        return
    stretches: list[tuple[int, int]] = []
    boot, until_ns = "", 0
    for alarm in _alarms(connection):
        begin = alarm.batch
        if not (alarm.boot == boot and alarm.mono_ns <= until_ns):
            begin = protection.first_arrived(connection, alarm.boot, alarm.mono_ns - around_ns, alarm.batch)
        boot, until_ns = alarm.boot, alarm.mono_ns + around_ns
        last = _last_arrived(connection, boot, until_ns, alarm.batch, newest.batch)
        if stretches and begin <= stretches[-1][1] + 1:
            begin = stretches.pop()[0]
        stretches.append((begin, last))
    for first, last in reversed(stretches[-protection.STRETCHES_MAX :]):
        size = int(_one(connection, _BYTES, first, last))
        limit_bytes -= size
        if limit_bytes < 0:
            return
        goes_on = last == newest.batch  # what comes next may still be near it
        connection.execute("INSERT INTO protected VALUES (?,?,?)", (first, protection.OPEN if goes_on else last, size))
        if goes_on:
            marks.put(connection, marks.ALARM_UNTIL, f"{boot} {until_ns}")


def _alarms(connection: apsw.Connection) -> Iterator[_Alarm]:
    unpacker = Unpacker()
    for batch, boot, mono_ns, n, blob in connection.execute(_ALARMS):
        try:
            notices = unpacker.notices(blob, n)
        except StoreCorrupt:
            continue
        if any(notice.stream == "alarm" for notice in notices):
            yield _Alarm(batch, boot, mono_ns)


def _last_arrived(connection: apsw.Connection, boot: str, until_ns: int, batch: int, newest: int) -> int:
    """The last batch after `batch` that arrived in this boot until then, by search; `batch` itself is one."""
    low, high = batch, newest
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(
            "SELECT boot, arrival_mono_ns FROM journal WHERE batch <= ? ORDER BY batch DESC LIMIT 1", (middle,)
        ).fetchone()
        if row is not None and row[0] == boot and row[1] <= until_ns:
            low = middle
        else:
            high = middle - 1
    return low


# --- what is missing ---


def missing(connection: apsw.Connection) -> list[Hole]:
    """Numbers that somebody may still wait for and that have neither row nor tombstone nor are home.

    Holes between rows, records that are gone, and, of streams that go home, what stood before the oldest row.
    """
    holes = {*lookup.holes(connection), *_record_holes(connection), *_head(connection)}
    return [
        (stream, low, high)
        for stream, first, last in sorted(holes)
        for low, high in tombstones.uncovered(connection, stream, first, last)
    ]


def _record_holes(connection: apsw.Connection) -> Iterator[Hole]:
    books = _books(connection)
    for stream in records.STREAMS:
        expected = _one(connection, f"SELECT ifnull(min(first_{stream}), 1) FROM start")  # noqa: S608  one of STREAMS
        held = ranges.normalise(
            (first, first + n - 1)
            for first, n in connection.execute("SELECT first, n FROM record WHERE stream = ?", (stream,))
        )
        last = max(held[-1][1] if held else 0, books.records.get(stream, 0))
        for low, high in ranges.missing(held, expected, last):
            yield from ((stream, *part) for part in ranges.missing(books.synced.get(stream, ()), low, high))


def _head(connection: apsw.Connection) -> Iterator[Hole]:
    """Without a receiver nobody can say whether what stood there was only freed."""
    oldest, known = lookup.at_or_after(connection, 0), starts.epochs(connection)
    if oldest is None or not known:
        return
    for stream, home in _books(connection).synced.items():
        if stream == "result":
            parts = ranges.missing(home, known[0].first_result, oldest.result_first - 1)
        elif table_stream(stream) == "event":
            parts = ranges.missing(home, known[0].first_event, oldest.event_first - 1)
        else:
            continue
        yield from ((table_stream(stream), *part) for part in parts)


def _books(connection: apsw.Connection) -> Books:
    row = connection.execute("SELECT meta FROM journal ORDER BY batch DESC LIMIT 1").fetchone()
    try:
        return msgspec.json.decode(Unpacker().unpack_bytes(row[0]), type=Books) if row else Books()
    except (msgspec.DecodeError, StoreCorrupt):
        return Books()  # then more is said to be lost than is: the receiver knows better


def _one(connection: apsw.Connection, query: str, *values: int | str) -> int:
    row = connection.execute(query, values).fetchone()
    return row[0] if row else 0
