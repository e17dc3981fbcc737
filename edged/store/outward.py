"""The store as the uplink and the stick see it: read-only, from another process, while the daemon writes.

Each call is one short read transaction, so that the WAL can be brought home between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edged.errors import StoreCorrupt, StoreError
from edged.messages import Notice, RecordColumns, ResultColumns, ResultContext, TelemetryColumns
from edged.store import lookup, place, records, starts, tombstones
from edged.store.cursors import table_stream
from edged.store.database import connect_reader, own_errors
from edged.store.segment import Unpacker, event_fields, result_fields, trim_events, trim_results
from edged.store.tombstones import REASON_FREED
from edged.sync.piece import Piece
from edged.sync.protocol import STREAMS, Lost, Probe, Stream, StreamExtent

if TYPE_CHECKING:
    import apsw

PIECE_BYTES = 8_000_000  # unpacked payloads of events in one piece, about
PIECE_UNITS = 20_000  # journal rows looked at for one piece
REASON_MISSING = "missing"
"""No row and no tombstone: given up by a program that wrote none, or removed by hand."""

_UNITS = """
SELECT batch, event_first, event_n, result_first, result_n, notice_n, arrival_wall_ms, arrival_mono_ns, boot, clock,
    {blob}
FROM journal WHERE batch >= ? ORDER BY batch LIMIT ?
"""
_STONE = """
SELECT id, stream, first, last, n, reason, since_wall_ms FROM tombstone
WHERE stream = ? AND last >= ? AND reason != ? ORDER BY last LIMIT 1
"""
_BLOB = {"result": "results", "event": "events", "alarm": "notices", "health": "notices"}


class _Unit(NamedTuple):
    """One journal row, with the blob of the stream that is read."""

    batch: int
    event_first: int
    event_n: int
    result_first: int
    result_n: int
    notice_n: int
    wall_ms: int
    mono_ns: int
    boot: str
    clock: str
    blob: bytes | None


class _Run(NamedTuple):
    """Consecutive numbers and their columns."""

    first: int
    last: int
    boot: str
    clock: str
    columns: ResultColumns | TelemetryColumns | RecordColumns


class _Span(NamedTuple):
    """Numbers of one stream that belong to one epoch; `end` is one past the last that was or can be made there."""

    epoch: str
    base: int
    end: int


class OutwardStore:
    """Implements `edged.ports.Outward`. Raises `StoreError` where the store is not there or not ours to read.

    state_dir: of the gateway.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / place.STORE_NAME
        self._unpacker = Unpacker()
        with own_errors(f"opening {self._path} for reading"):
            self._connection = connect_reader(self._path)
        self._inode = self._path.stat().st_ino

    def close(self) -> None:
        self._connection.close()

    def extents(self) -> tuple[StreamExtent, ...]:
        with self._reading() as connection:
            return tuple(
                StreamExtent(span.epoch, stream, span.base, span.end)
                for stream in STREAMS
                for span in _spans(connection, table_stream(stream))
            )

    def probes(self, after_seq: int, limit: int) -> tuple[Probe, ...]:
        with self._reading() as connection:
            return tuple(reversed(list(self._probes(connection, after_seq, limit))))

    def piece(self, stream: Stream, seq: int, limit: int) -> Piece | None:
        with self._reading() as connection:
            table = table_stream(stream)
            span = next((span for span in _spans(connection, table) if span.base <= seq < span.end), None)
            if span is None:
                return None
            # A tombstone comes before its rows: those that the receiver has refused are still there.
            stone = _stone(connection, table, seq)
            if stone is not None and stone.first <= seq:
                return self._lost(connection, stream, span, seq, stone)
            end = min(span.end, stone.first) if stone is not None else span.end
            run = self._run(connection, table, seq, min(limit, end - seq))
            if run is None or run.first > seq:
                # Without a run there may be one beyond `limit`: only so much is known to be missing.
                last = min(end, run.first if run is not None else seq + limit) - 1
                lost = Lost(reason=REASON_MISSING, since_ms=0)
                return Piece(stream, span.epoch, span.base, seq, last, "", "", None, lost)
            return Piece(stream, span.epoch, span.base, seq, run.last, run.boot, run.clock, run.columns, None)

    # --- lost numbers ---

    def _lost(
        self, connection: apsw.Connection, stream: Stream, span: _Span, seq: int, stone: tombstones.Tombstone
    ) -> Piece:
        """What the tombstone says of the numbers from `seq` on; a range has no size, so that it is told at once."""
        last = min(span.end - 1, stone.last)
        summary, interval_s = self._summary(connection, stone, whole=stone.first == seq and last == stone.last)
        lost = Lost(reason=stone.reason, since_ms=stone.since_wall_ms, interval_s=interval_s, summary=summary)
        return Piece(stream, span.epoch, span.base, seq, last, "", "", None, lost)

    def _summary(
        self, connection: apsw.Connection, stone: tombstones.Tombstone, *, whole: bool
    ) -> tuple[tuple[Any, ...], int]:
        """What is kept of the rows; nothing when only a part is told, or it would be counted twice."""
        if not whole:
            return (), 0
        row = connection.execute(
            "SELECT interval_s, n, data FROM aggregate WHERE tombstone = ?", (stone.id,)
        ).fetchone()
        if row is None:
            return (), 0
        try:
            return tuple(self._unpacker.summary(row[2], row[1])), row[0]
        except StoreCorrupt:
            return (), 0  # that the rows are gone is known all the same

    # --- rows ---

    def _run(self, connection: apsw.Connection, table: str, seq: int, limit: int) -> _Run | None:
        """Consecutive rows from the first number at or after `seq` that has one, before `seq + limit`."""
        if table in records.STREAMS:
            return self._records(connection, table, seq, limit)
        row = lookup.find(connection, "result" if table == "result" else "event", seq)
        if row is None:
            return None
        gather = _Results(self._unpacker) if table == "result" else _Events(self._unpacker)
        for unit in _units(connection, table, row.batch):
            if not gather.add(unit, seq, limit):
                break
        return gather.run()

    def _records(self, connection: apsw.Connection, table: str, seq: int, limit: int) -> _Run | None:
        found = records.at_or_after(connection, table, seq)
        first = last = 0
        boot = clock = ""
        columns = RecordColumns([], [], [], [], [], [])
        while found is not None and len(columns.kind) < limit:
            numbered, unit = self._numbered(connection, table, found, seq)
            if first and (not numbered or numbered[0].seq != last + 1):
                break
            if unit is None or not numbered:  # a former program removed the row: what comes after it is there
                found = records.at_or_after(connection, table, found.first + found.n)
                continue
            first = first or numbered[0].seq
            taken = numbered[: limit - len(columns.kind)]
            _extend(columns, taken, unit)
            last, boot, clock = taken[-1].seq, unit.boot, unit.clock
            found = records.at_or_after(connection, table, last + 1)
        return _Run(first, last, boot, clock, columns) if first else None

    def _numbered(
        self, connection: apsw.Connection, table: str, found: records.Record, seq: int
    ) -> tuple[list[Notice], _Unit | None]:
        """The records of one row from `seq` on."""
        unit = next(_units(connection, table, found.batch), None)
        if unit is None or unit.batch != found.batch or unit.blob is None:
            return [], None
        notices = self._unpacker.notices(unit.blob, unit.notice_n)
        return [notice for notice in notices if notice.stream == table and notice.seq >= seq], unit

    # --- where histories could part ---

    def _probes(self, connection: apsw.Connection, after_seq: int, limit: int) -> Iterator[Probe]:
        """Newest first."""
        told: set[int] = set()
        for start in starts.newest(connection, starts.STARTS_MAX):
            if len(told) >= limit or start.first_result <= after_seq:
                return
            run = self._run(connection, "result", start.first_result, 1)
            if run is not None and run.first == start.first_result and run.first not in told:
                columns = run.columns
                assert isinstance(columns, ResultColumns)
                told.add(run.first)
                boot = columns.contexts[columns.context[0]].boot
                yield Probe(start.epoch, run.first, boot, columns.mono_ns[0])

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """One read transaction."""
        self._require_same_file()
        with own_errors(f"reading {self._path}"):
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("COMMIT")

    def _require_same_file(self) -> None:
        """A salvage puts another file in its place; this connection would go on reading the old one."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if inode != self._inode:
            raise StoreError(
                f"reading {self._path}: another file stands in its place now",
                hint="open it again: a damaged store was set aside",
                retryable=True,
            )


class _Results:
    """Puts results of neighbouring units together."""

    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker
        self._first = self._next = 0
        self._boot = self._clock = ""
        self._columns: ResultColumns | None = None
        self._places: dict[ResultContext, int] = {}
        self._extend: list[Callable[[list[Any]], None]] = []

    def add(self, unit: _Unit, seq: int, limit: int) -> bool:
        """Take what follows; False when that was all of the run."""
        end = unit.result_first + unit.result_n
        if not unit.result_n or end <= seq:
            return True
        first = max(seq, unit.result_first)
        if self._columns is not None and first != self._next:
            return False
        if first >= seq + limit or unit.blob is None:
            return False
        columns = self._unpacker.results(unit.blob, unit.result_n)
        last = min(end, seq + limit)
        if first > unit.result_first or last < end:
            columns = _cut(columns, first - unit.result_first, last - unit.result_first, trim_results)
        self._boot, self._clock = unit.boot, unit.clock
        self._first = self._first or first
        self._next = last
        self._merge(columns)
        return last == end and last < seq + limit

    def _merge(self, columns: ResultColumns) -> None:
        places = [self._place(context) for context in columns.contexts]
        context = [places[index] for index in columns.context]
        if self._columns is None:
            columns.context = context
            self._columns = columns
            self._extend = [column.extend for column in result_fields(columns)[1:]]
        else:
            self._columns.context += context
            for extend, column in zip(self._extend, result_fields(columns)[1:], strict=True):
                extend(column)

    def _place(self, context: ResultContext) -> int:
        return self._places.setdefault(context, len(self._places))

    def run(self) -> _Run | None:
        if self._columns is None:
            return None
        self._columns.contexts = list(self._places)
        return _Run(self._first, self._next - 1, self._boot, self._clock, self._columns)


class _Events:
    """Puts events of neighbouring units together, as telemetry."""

    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker
        self._first = self._next = 0
        self._size = 0
        self._boot = self._clock = ""
        self._columns = TelemetryColumns(*([] for _ in TelemetryColumns.__struct_fields__))
        self._extend = [column.extend for column in event_fields(self._columns)]

    def add(self, unit: _Unit, seq: int, limit: int) -> bool:
        """Take what follows; False when that was all of the run."""
        end = unit.event_first + unit.event_n
        if not unit.event_n or end <= seq:
            return True
        first = max(seq, unit.event_first)
        if self._first and first != self._next:
            return False
        if first >= seq + limit or unit.blob is None:
            return False
        columns = self._unpacker.events(unit.blob, unit.event_n)
        last = min(end, seq + limit)
        if first > unit.event_first or last < end:
            columns = _cut(columns, first - unit.event_first, last - unit.event_first, trim_events)
        n = last - first
        into = self._columns
        for extend, column in zip(self._extend, event_fields(columns), strict=True):
            extend(column)
        into.arrival_wall_ms += [unit.wall_ms] * n
        into.arrival_mono_ns += [unit.mono_ns] * n
        into.gateway_boot += [unit.boot] * n
        into.clock += [unit.clock] * n
        self._boot, self._clock = unit.boot, unit.clock
        self._first = self._first or first
        self._next = last
        self._size += sum(map(len, columns.payload))
        return last == end and last < seq + limit and self._size < PIECE_BYTES

    def run(self) -> _Run | None:
        if not self._first:
            return None
        return _Run(self._first, self._next - 1, self._boot, self._clock, self._columns)


def _cut(columns: Any, start: int, stop: int, trim: Callable[[Any, int], Any]) -> Any:
    """Entries start..stop of columns."""
    columns = trim(columns, start)
    for name in columns.__struct_fields__:
        if name != "contexts":
            del getattr(columns, name)[stop - start :]
    return columns


def _extend(columns: RecordColumns, notices: Iterable[Notice], unit: _Unit) -> None:
    for notice in notices:
        columns.kind.append(notice.kind)
        columns.wall_ms.append(unit.wall_ms)
        columns.mono_ns.append(unit.mono_ns)
        columns.boot.append(unit.boot)
        columns.clock.append(unit.clock)
        columns.payload.append(notice.payload)


def _units(connection: apsw.Connection, table: str, batch: int) -> Iterator[_Unit]:
    """Journal rows from `batch` on, with the blob of one stream; read as they are asked for."""
    query = _UNITS.format(blob=_BLOB[table])
    for row in connection.execute(query, (batch, PIECE_UNITS)):
        yield _Unit(*row)


def _stone(connection: apsw.Connection, table: str, seq: int) -> tombstones.Tombstone | None:
    """The tombstone of lost numbers that covers `seq`, or the next one behind it."""
    row = connection.execute(_STONE, (table, seq, REASON_FREED)).fetchone()
    return tombstones.Tombstone(*row) if row else None


def _spans(connection: apsw.Connection, table: str) -> list[_Span]:
    """Which numbers belong to which epoch, oldest first. Within a store numbers never fall from epoch to epoch."""
    epochs = starts.epochs(connection)
    firsts = [_first(connection, epoch, table) for epoch in epochs]
    ends = [*firsts[1:], _end(connection, table, firsts[-1] if firsts else 1)]
    return [_Span(epoch.epoch, base, max(base, end)) for epoch, base, end in zip(epochs, firsts, ends, strict=True)]


def _first(connection: apsw.Connection, epoch: starts.EpochRow, table: str) -> int:
    """The first number of a stream in an epoch."""
    if table == "result":
        return epoch.first_result
    if table == "event":
        return epoch.first_event
    start = starts.of_epoch(connection, epoch.epoch)
    return start.first(table) if start is not None else 1


def _end(connection: apsw.Connection, table: str, first: int) -> int:
    """One past the newest number of a stream."""
    if table in records.STREAMS:
        return max(first, records.following(connection, table))
    newest = lookup.newest(connection)
    return max(first, newest.end("result" if table == "result" else "event")) if newest is not None else first
