"""The tables beside the journal, at start: made where they are missing, brought in line with the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edged.errors import StoreCorrupt
from edged.store import records, schema
from edged.store.segment import Unpacker

if TYPE_CHECKING:
    import apsw


class _Numbered(msgspec.Struct):
    """The part of the newest row's meta that numbers records."""

    records: dict[str, int] = {}


def repair(connection: apsw.Connection, *, anew: bool) -> None:
    """Make what is missing, and forget what belongs to rows that are gone; inside the caller's transaction.

    A former program gives rows up without looking here. anew: the rows were salvaged, where records are is not known.
    """
    anew = anew or not connection.table_exists("main", "record")
    schema.create_beside(connection)
    connection.execute("DELETE FROM aggregate WHERE tombstone NOT IN (SELECT id FROM tombstone)")
    connection.execute("DELETE FROM record WHERE batch < (SELECT min(batch) FROM journal)")
    if anew:
        _find_records(connection)


def _find_records(connection: apsw.Connection) -> None:
    """Fill the table `record` from the rows with notices, which are few."""
    connection.execute("DELETE FROM record")
    unpacker = Unpacker()
    rows = connection.execute("SELECT batch, notice_n, notices FROM journal WHERE notice_n > 0 ORDER BY batch")
    for batch, n, blob in rows:
        try:
            notices = unpacker.notices(blob, n)
        except StoreCorrupt:
            continue  # its numbers are missing, and the receiver is told so
        records.note(connection, batch, records.numbers(notices))


def next_records(connection: apsw.Connection) -> dict[str, int]:
    """The next numbers of `alarm` and `health`: none that was ever used, as far as anything here tells."""
    row = connection.execute("SELECT meta FROM journal ORDER BY batch DESC LIMIT 1").fetchone()
    try:
        known = msgspec.json.decode(Unpacker().unpack_bytes(row[0]), type=_Numbered).records if row else {}
    except (msgspec.DecodeError, StoreCorrupt):
        known = {}  # whoever needs the rest of it looks with more care
    return {stream: max(records.following(connection, stream), known.get(stream, 0) + 1) for stream in records.STREAMS}
