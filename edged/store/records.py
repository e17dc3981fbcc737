"""Where the numbers of the streams `alarm` and `health` are: notices carry them, a small table finds their batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edged.store import marks

if TYPE_CHECKING:
    import apsw

    from edged.messages import Notice

STREAMS = ("alarm", "health")
NEXT = {"alarm": marks.NEXT_ALARM, "health": marks.NEXT_HEALTH}


class Record(NamedTuple):
    """Numbers first..first + n - 1 are in `batch`."""

    first: int
    n: int
    batch: int


def numbers(notices: Sequence[Notice]) -> dict[str, tuple[int, int]]:
    """(first, last) of each stream in one unit; they are dense there."""
    found: dict[str, tuple[int, int]] = {}
    for notice in notices:
        if notice.stream:
            first, _ = found.get(notice.stream, (notice.seq, 0))
            found[notice.stream] = (first, notice.seq)
    return found


def note(connection: apsw.Connection, batch: int, found: dict[str, tuple[int, int]]) -> None:
    """Remember where they are, and which number comes next."""
    for stream, (first, last) in found.items():
        connection.execute("INSERT OR REPLACE INTO record VALUES (?,?,?,?)", (stream, first, last - first + 1, batch))
        marks.put(connection, NEXT[stream], last + 1)


def forget(connection: apsw.Connection, stream: str, first: int) -> None:
    connection.execute("DELETE FROM record WHERE stream = ? AND first = ?", (stream, first))


def at_or_after(connection: apsw.Connection, stream: str, seq: int) -> Record | None:
    """The record that holds `seq`, or the next one behind it."""
    row = connection.execute(
        "SELECT first, n, batch FROM record WHERE stream = ? AND first <= ? ORDER BY first DESC LIMIT 1", (stream, seq)
    ).fetchone()
    if row is None or row[0] + row[1] <= seq:
        row = connection.execute(
            "SELECT first, n, batch FROM record WHERE stream = ? AND first > ? ORDER BY first LIMIT 1", (stream, seq)
        ).fetchone()
    return Record(*row) if row else None


def following(connection: apsw.Connection, stream: str) -> int:
    """The number that the next record gets, as far as is known."""
    made = connection.execute(
        "SELECT max(ifnull((SELECT first + n FROM record WHERE stream = ?1 ORDER BY first DESC LIMIT 1), 1),"
        " ifnull((SELECT last + 1 FROM tombstone WHERE stream = ?1 ORDER BY last DESC LIMIT 1), 1))",
        (stream,),
    ).fetchone()
    begun = connection.execute(f"SELECT max(first_{stream}) FROM start").fetchone()  # noqa: S608  one of STREAMS
    return max(marks.number(connection, NEXT[stream]), made[0] if made else 1, (begun[0] if begun else None) or 1)
