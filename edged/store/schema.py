"""The tables of the store and how older stores become this one. One journal row is one unit is one transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from edged.errors import StoreError
from edged.store import place

APPLICATION_ID = 0x45444744  # "EDGD", so that `file` and we can tell this database from any other
BACKUP_PAGES = 4096  # per step

# Numbers come first in the row: a search by number then reads one page and never follows the blobs.
# event_first and result_first never fall from one batch to the next (a unit without events keeps the next number),
# so a search over `batch` finds any event or result without an index that each commit would have to write.
JOURNAL = """
CREATE TABLE journal(
    batch INTEGER PRIMARY KEY,
    event_first INTEGER NOT NULL, event_n INTEGER NOT NULL,
    result_first INTEGER NOT NULL, result_n INTEGER NOT NULL,
    notice_n INTEGER NOT NULL,
    arrival_wall_ms INTEGER NOT NULL, arrival_mono_ns INTEGER NOT NULL,
    boot TEXT NOT NULL, clock TEXT NOT NULL,
    meta BLOB NOT NULL, notices BLOB, results BLOB, events BLOB
);
-- Notices are rare: only the rows that have some pay for this index.
CREATE INDEX journal_notices ON journal(batch) WHERE notice_n > 0;
CREATE TABLE snapshot(id INTEGER PRIMARY KEY CHECK (id = 1), event_seq INTEGER NOT NULL, state BLOB NOT NULL);
-- Ranges of sequence numbers (batch numbers for stream 'notice') that were given up before they were delivered.
CREATE TABLE tombstone(
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, n INTEGER NOT NULL,
    reason TEXT NOT NULL, since_wall_ms INTEGER NOT NULL
);
-- Sequence numbers from the given ones on belong to this epoch; the last row is the current one.
CREATE TABLE epoch(
    id INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL, reason TEXT NOT NULL,
    first_event INTEGER NOT NULL, first_result INTEGER NOT NULL, first_batch INTEGER NOT NULL,
    since_wall_ms INTEGER NOT NULL
);
CREATE TABLE info(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE migration(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_wall_ms INTEGER NOT NULL);
"""

# Beside the journal, so that the former program, which writes whole rows of the tables above, can still use the store.
# Made again at every start where they are missing: what stands in them can be found out anew, or done without.
BESIDE = """
-- One row per opening of the store: the numbers that came next. Newest 1000, and the first of every epoch.
CREATE TABLE IF NOT EXISTS start(
    id INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL, boot TEXT NOT NULL, instance TEXT NOT NULL,
    first_event INTEGER NOT NULL, first_result INTEGER NOT NULL, first_batch INTEGER NOT NULL,
    first_alarm INTEGER NOT NULL, first_health INTEGER NOT NULL,
    since_wall_ms INTEGER NOT NULL
);
-- What is kept of the rows that a tombstone stands for: n packed summary rows.
CREATE TABLE IF NOT EXISTS aggregate(
    tombstone INTEGER PRIMARY KEY, interval_s INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL
);
-- Batches around alarms: given up after all others. bytes: about what they take.
CREATE TABLE IF NOT EXISTS protected(
    first_batch INTEGER PRIMARY KEY, last_batch INTEGER NOT NULL, bytes INTEGER NOT NULL
);
-- In which batch the numbers first..first + n - 1 of the streams 'alarm' and 'health' are.
CREATE TABLE IF NOT EXISTS record(
    stream TEXT NOT NULL, first INTEGER NOT NULL, n INTEGER NOT NULL, batch INTEGER NOT NULL,
    PRIMARY KEY (stream, first)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tombstone_last ON tombstone(stream, last);
"""


class Migration(NamedTuple):
    """One step from `version - 1` to `version`; runs inside the transaction that also records it.

    compatible_from: the oldest program (by its newest migration) that may use the store after this step: a downgrade to
    it needs nothing.
    """

    version: int
    name: str
    compatible_from: int
    apply: Callable[[apsw.Connection], None]


def _create_journal(connection: apsw.Connection) -> None:
    connection.execute(JOURNAL)


def create_beside(connection: apsw.Connection) -> None:
    """The tables that stand beside the journal, where they are missing."""
    connection.execute(BESIDE)


MIGRATIONS = (
    Migration(1, "create_journal", 1, _create_journal),
    Migration(2, "create_beside", 1, create_beside),
)


def version_of(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def compatible_from(connection: apsw.Connection) -> int:
    """Oldest program schema that may use this store."""
    row = connection.execute("SELECT value FROM info WHERE key = 'compatible_from'").fetchone()
    return int(row[0]) if row else version_of(connection)


def refuse_foreign(connection: apsw.Connection, path: Path, known: int) -> None:
    """Raises `StoreError` for a database that is not ours, or that needs a program newer than version `known`."""
    if connection.pragma("application_id") != APPLICATION_ID and not connection.table_exists("main", "journal"):
        raise StoreError(
            f"Refusing to use {path}: it is a database of another program",
            hint="move it away, or set gateway.state_dir to a folder of its own",
        )
    version = version_of(connection)
    if version > known and compatible_from(connection) > known:
        raise StoreError(
            f"Refusing to use {path}: its schema is version {version}, this edged understands up to {known}",
            hint=f"install the edged that wrote it, or restore store-before-v{known + 1}.db beside it",
        )


def back_up(connection: apsw.Connection, to: Path) -> None:
    """A consistent copy, durable under its name before this returns."""
    part = to.with_suffix(".part")
    part.unlink(missing_ok=True)
    place.create_file(part)
    with closing(apsw.Connection(str(part))) as copy, copy.backup("main", connection, "main") as backup:
        while not backup.done:
            backup.step(BACKUP_PAGES)
    place.sync_file(part)
    part.replace(to)
    place.sync_directory(to.parent)


def migrate(connection: apsw.Connection, wall_ms: int, migrations: tuple[Migration, ...] = MIGRATIONS) -> list[str]:
    """Bring the store to the newest version, each step with its record in one transaction; returns their names."""
    applied = []
    for step in migrations:
        if step.version <= version_of(connection):
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            step.apply(connection)
            connection.execute("INSERT INTO migration VALUES (?, ?, ?)", (step.version, step.name, wall_ms))
            connection.execute("INSERT OR REPLACE INTO info VALUES ('compatible_from', ?)", (step.compatible_from,))
            connection.pragma("user_version", step.version)
            connection.pragma("application_id", APPLICATION_ID)
            connection.execute("COMMIT")
        except BaseException:  # whatever it was, half a migration must not stay
            connection.execute("ROLLBACK")
            raise
        applied.append(step.name)
    return applied
