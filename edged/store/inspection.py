"""Looking at a store from outside, while the daemon runs or not: `edged store stats` and `edged store verify`.

Reads only; the database of a running daemon is read with its WAL, and no read lasts longer than a chunk of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import apsw
import msgspec

from edged.errors import StoreCorrupt, StoreError
from edged.store import agreement, lookup, place, records, tombstones
from edged.store.cursors import table_stream
from edged.store.database import connect_reader, is_damage, own_errors
from edged.store.forecast import Sample, forecast
from edged.store.lookup import Hole, Row
from edged.store.segment import Unpacker
from edged.store.tombstones import REASON_FREED
from edged.sync import ranges

if TYPE_CHECKING:
    from sqlite_utils import Database

ROWS_PER_READ = 500  # a longer read would keep the daemon from starting its WAL anew
PROBLEMS_MAX = 20  # the first ones tell the story
TOMBSTONES_MAX = 100  # the newest ones

RATE_ROWS = 500  # the newest ones tell the present rate
_ROOM = """
SELECT total(bytes), min(arrival_wall_ms), max(arrival_wall_ms),
    (SELECT (pages.page_count - free.freelist_count) * size.page_size
     FROM pragma_page_count AS pages, pragma_freelist_count AS free, pragma_page_size AS size),
    (SELECT value FROM info WHERE key = 'budget_bytes')
FROM (SELECT arrival_wall_ms, length(meta) + ifnull(length(notices), 0) + ifnull(length(results), 0)
        + ifnull(length(events), 0) AS bytes FROM journal ORDER BY batch DESC LIMIT :rows)
"""
_LOST = f"reason != '{REASON_FREED}'"
_NUMBERS = "batch, event_first, event_n, result_first, result_n, arrival_wall_ms"
_CHUNK = (
    "SELECT batch, event_first, event_n, result_first, result_n FROM journal WHERE batch > ? ORDER BY batch LIMIT ?"
)


@dataclass
class Verdict:
    """What reading everything found. `holes`: (stream, first, last) missing and not explained by a tombstone."""

    rows: int = 0
    events: int = 0
    results: int = 0
    problems: list[str] = field(default_factory=list)
    holes: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.holes


class HomeMarks(msgspec.Struct, frozen=True):
    """What the newest row says is home: ranges of numbers by stream, and the receiver that has them, "" if none yet."""

    synced: dict[str, tuple[tuple[int, int], ...]] = {}
    receiver: str = ""


def home_marks(state_dir: Path) -> HomeMarks:
    """What is home, as of the newest row. Raises `StoreError`."""
    path = _existing(state_dir)
    with own_errors(f"reading {path}"), closing(connect_reader(_address(path))) as connection:
        row = connection.execute("SELECT meta FROM journal ORDER BY batch DESC LIMIT 1").fetchone()
        if row is None:
            return HomeMarks()
        try:
            return msgspec.json.decode(Unpacker().unpack_bytes(row[0]), type=HomeMarks)
        except ValueError as error:
            raise StoreCorrupt(f"reading the books of {path}: {error}", hint="edged store verify says more") from error


def stats(state_dir: Path) -> dict[str, Any]:
    """Sizes, ranges, epochs and tombstones, from a few rows. Raises `StoreError`."""
    path = _existing(state_dir)
    with _tooling(path) as database:
        oldest = _first(database["journal"].rows_where(order_by="batch", limit=1, select=_NUMBERS))
        newest = _first(database["journal"].rows_where(order_by="batch desc", limit=1, select=_NUMBERS))
        page_bytes = _pragma(database, "page_size")
        return {
            "path": str(path),
            "schema": _pragma(database, "user_version"),
            "epochs": list(database["epoch"].rows_where(order_by="id")),
            "oldest": oldest,
            "newest": newest,
            "events": _between(oldest, newest, "event"),
            "results": _between(oldest, newest, "result"),
            "snapshot": _first(database["snapshot"].rows_where(select="event_seq, length(state) AS bytes")),
            "tombstones": list(database["tombstone"].rows_where(_LOST, order_by="id desc", limit=TOMBSTONES_MAX)),
            "file_bytes": _pragma(database, "page_count") * page_bytes,
            "free_bytes": _pragma(database, "freelist_count") * page_bytes,
            "wal_bytes": _wal_bytes(path),
            **_aging(database, oldest, newest),
        }


def _aging(database: Database, oldest: dict[str, Any] | None, newest: dict[str, Any] | None) -> dict[str, Any]:
    """What waits to go home, what is kept of what was given up, and how long the room lasts at the present rate."""
    nothing = {
        "unsent": {}, "tombstone_count": 0, "summary_rows": 0, "summary_bytes": 0, "protected_bytes": 0,
        "bytes_per_day": 0.0, "days_of_room": None,
    }  # fmt: skip
    if oldest is None or newest is None or not database["aggregate"].exists():  # new, or made by a former program
        return nothing
    unsent = {
        stream: ranges.count(tuple(ranges.missing(home, 1, _made(database, stream, newest))))
        for stream, home in _home(database).items()
    }
    room = database.execute(_ROOM, {"rows": RATE_ROWS}).fetchone()
    stored_bytes, since_ms, until_ms, live_bytes, budget_bytes = room
    share = min(1.0, unsent.get("result", 0) / max(1, _between(oldest, newest, "result")))
    samples = [Sample(int(since_ms) * 1_000_000, 0), Sample(int(until_ms) * 1_000_000, int(stored_bytes))]
    outlook = forecast(samples, int((budget_bytes or 0) - live_bytes * share))
    given_up = database.execute(f"SELECT count(*) FROM tombstone WHERE {_LOST}").fetchone()  # noqa: S608  a constant
    summaries = database.execute("SELECT total(n), total(length(data)) FROM aggregate").fetchone()
    protected = database.execute("SELECT total(bytes) FROM protected").fetchone()
    return {
        "unsent": unsent,
        "tombstone_count": int(given_up[0]),
        "summary_rows": int(summaries[0]),
        "summary_bytes": int(summaries[1]),
        "protected_bytes": int(protected[0]),
        "bytes_per_day": outlook.bytes_per_day,
        "days_of_room": outlook.days_of_room if budget_bytes else None,
    }


def _home(database: Database) -> Mapping[str, ranges.Ranges]:
    """What is home of each stream that goes there: records are numbered only where a receiver is configured."""
    row = database.execute("SELECT meta FROM journal ORDER BY batch DESC LIMIT 1").fetchone()
    try:
        synced = msgspec.json.decode(Unpacker().unpack_bytes(row[0]), type=HomeMarks).synced
        if not synced and not any(_made(database, stream, {}) for stream in records.STREAMS):
            return {}
        return {"alarm": (), "result": (), "health": (), **synced}
    except (ValueError, StoreCorrupt):
        return {}  # verify says more


def _made(database: Database, stream: str, newest: dict[str, Any]) -> int:
    """The newest number of a stream."""
    if stream in records.STREAMS:
        row = database.execute("SELECT value FROM info WHERE key = ?", [records.NEXT[stream]]).fetchone()
        return int(row[0]) - 1 if row else 0
    table = table_stream(stream)
    return int(newest[f"{table}_first"] + newest[f"{table}_n"]) - 1


def verify(state_dir: Path, *, quick: bool = False, on_rows: Callable[[int], None] = lambda _rows: None) -> Verdict:
    """Check the file's structure, decode every row and look for missing numbers. Raises `StoreError`.

    quick: leave out what takes time in proportion to the content of the indices. on_rows: told the rows read so far.
    """
    path = _existing(state_dir)
    verdict = Verdict()
    with own_errors(f"verifying {path}"), closing(connect_reader(_address(path))) as connection:
        try:
            check = "PRAGMA quick_check(20)" if quick else "PRAGMA integrity_check(20)"
            verdict.problems += [str(row[0]) for row in connection.execute(check) if row[0] != "ok"]
            beside = agreement.has_tables(connection)
            _read_rows(connection, verdict, on_rows, beside=beside)
            if beside:
                _read_beside(connection, verdict)
        except apsw.Error as error:
            if not is_damage(error):
                raise
            verdict.problems.append(str(error))
    return verdict


def _read_beside(connection: apsw.Connection, verdict: Verdict) -> None:
    """Tombstones, summaries, records, surroundings of alarms; the many of them in portions."""
    unpacker = Unpacker()
    verdict.problems += agreement.of_tombstones(connection)
    verdict.problems += agreement.of_protected(connection)
    tombstone, goes_on = 0, True
    while goes_on and len(verdict.problems) < PROBLEMS_MAX:
        tombstone, problems = agreement.of_summaries(connection, unpacker, tombstone, ROWS_PER_READ)
        verdict.problems += problems
        goes_on = tombstone > 0
    where, goes_on = ("", 0), True
    while goes_on and len(verdict.problems) < PROBLEMS_MAX:
        where, problems = agreement.of_records(connection, unpacker, where, ROWS_PER_READ)
        verdict.problems += problems
        goes_on = where != ("", 0)


def _read_rows(connection: apsw.Connection, verdict: Verdict, on_rows: Callable[[int], None], *, beside: bool) -> None:
    unpacker = Unpacker()
    previous: Row | None = None
    while len(verdict.problems) < PROBLEMS_MAX:
        connection.execute("BEGIN")
        try:
            after = previous.batch if previous else 0
            rows = [Row(*numbers) for numbers in connection.execute(_CHUNK, (after, ROWS_PER_READ))]
            for row in rows:
                _read_row(connection, unpacker, row, verdict)
                if beside:
                    verdict.problems += _unrecorded(connection, unpacker, row)
                verdict.holes += _unexplained(connection, lookup.holes_between(previous, row))
                previous = row
        finally:
            connection.execute("COMMIT")
        on_rows(verdict.rows)
        if not rows:
            return


def _read_row(connection: apsw.Connection, unpacker: Unpacker, row: Row, verdict: Verdict) -> None:
    verdict.rows += 1
    verdict.events += row.event_n
    verdict.results += row.result_n
    try:
        lookup.check_row(connection, unpacker, row)
    except StoreCorrupt as error:
        verdict.problems.append(f"row {row.batch}: {error.message}")


def _unrecorded(connection: apsw.Connection, unpacker: Unpacker, row: Row) -> Iterator[str]:
    found = connection.execute("SELECT notice_n, notices FROM journal WHERE batch = ?", (row.batch,)).fetchone()
    if found is None or not found[0]:
        return
    try:
        notices = unpacker.notices(found[1], found[0])
    except StoreCorrupt:
        return  # the row itself has been named
    yield from agreement.of_notices(connection, row.batch, notices)


def _unexplained(connection: apsw.Connection, holes: list[Hole]) -> Iterator[Hole]:
    for stream, first, last in holes:
        for low, high in tombstones.uncovered(connection, stream, first, last):
            yield stream, low, high


def _existing(state_dir: Path) -> Path:
    path = state_dir / place.STORE_NAME
    try:
        if not path.stat().st_size:
            raise FileNotFoundError
        with path.open("rb"):
            return path
    except FileNotFoundError:
        raise StoreError(
            f"Looking for a store in {state_dir}: there is none", hint="name the daemon's folder with --state-dir"
        ) from None
    except OSError as error:
        raise StoreError(
            f"Reading {path}: {error.strerror}", hint="run as the user of the daemon: sudo -u edged edged store ..."
        ) from error


def _wal_bytes(path: Path) -> int:
    wal = path.with_name(path.name + "-wal")
    return wal.stat().st_size if wal.exists() else 0


def _address(path: Path) -> str:
    """Read-only; where no WAL is, the file cannot change and needs no files beside it, which we may not be allowed."""
    return f"file:{quote(str(path))}?mode=ro" + ("" if _wal_bytes(path) else "&immutable=1")


@contextmanager
def _tooling(path: Path) -> Iterator[Database]:
    """The database for sqlite-utils. Raises `StoreError` where that is not installed or the file cannot be read."""
    try:
        from sqlite_utils import Database
    except ModuleNotFoundError as error:
        raise StoreError(
            "Looking into the store: the Python package sqlite-utils is missing", hint="pip install 'edged[tools]'"
        ) from error
    try:
        with closing(sqlite3.connect(_address(path), uri=True)) as connection:
            yield Database(connection)
    except sqlite3.Error as error:
        raise StoreError(f"Reading {path}: {error}", hint="edged store verify says more") from error


def _first(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    return next(iter(rows), None)


def _pragma(database: Database, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _between(oldest: dict[str, Any] | None, newest: dict[str, Any] | None, stream: str) -> int:
    """How many numbers lie between the oldest and the newest row; holes count."""
    if oldest is None or newest is None:
        return 0
    return int(newest[f"{stream}_first"] + newest[f"{stream}_n"] - oldest[f"{stream}_first"])
