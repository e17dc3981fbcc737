"""Small facts about the store itself, by name, in the table `info`. Lost ones are found out anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

STRIP_FROM = "strip_from"  # batches before it have no events any more, or are protected
DROP_FROM = "drop_from"  # batches before it are protected, or gone
ALARM_UNTIL = "alarm_until"  # "<boot> <monotonic ns>": until when what comes is around an alarm
BUDGET_BYTES = "budget_bytes"  # as configured at the last start, for those who look from outside
NEXT_ALARM = "next_alarm"
NEXT_HEALTH = "next_health"


def number(connection: apsw.Connection, key: str) -> int:
    """0 when it is not known."""
    row = connection.execute("SELECT value FROM info WHERE key = ?", (key,)).fetchone()
    return row[0] if row and isinstance(row[0], int) else 0


def text(connection: apsw.Connection, key: str) -> str:
    row = connection.execute("SELECT value FROM info WHERE key = ?", (key,)).fetchone()
    return row[0] if row and isinstance(row[0], str) else ""


def put(connection: apsw.Connection, key: str, value: int | str) -> None:
    connection.execute("INSERT OR REPLACE INTO info VALUES (?, ?)", (key, value))


def forget(connection: apsw.Connection, key: str) -> None:
    connection.execute("DELETE FROM info WHERE key = ?", (key,))
