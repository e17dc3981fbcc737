"""The blocking steps between a state directory and a usable connection. Damage is never a reason to stop."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import apsw

from edged.errors import StoreCorrupt
from edged.store import examination, lookup, marks, mending, place, salvage, schema, sidings, starts, tombstones
from edged.store.budget import Limits
from edged.store.database import close_clean, connect_writer, is_damage, own_errors
from edged.store.segment import Unpacker
from edged.store.starts import new_epoch
from edged.store.tombstones import REASON_DAMAGE, bury
from edged.store.values import PastEpoch, Recovered, SalvageReport, StoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edged.ports import Clock

NS_PER_S = 1_000_000_000
SALVAGE_RESERVE_BYTES = 1_000_000  # left free while rows are copied: for the epoch and the report


@dataclass(frozen=True)
class Started:
    """What the running store takes over."""

    path: Path
    lock: place.StoreLock
    connection: apsw.Connection
    limits: Limits
    recovered: Recovered


def start(
    settings: StoreSettings,
    clock: Clock,
    free_bytes: Callable[[Path], int],
    migrations: tuple[schema.Migration, ...] = schema.MIGRATIONS,
) -> Started:
    """Check, lock, examine, salvage, migrate, recover. Raises `StoreError`, `StoreLocked`."""
    warnings = place.prepare(settings.state_dir)
    lock = place.StoreLock(settings.state_dir)
    path = settings.state_dir / place.STORE_NAME
    try:
        with own_errors(f"opening {path}"):
            connection, recovered = _Opening(settings, clock, free_bytes, path, list(warnings), migrations).run()
            page_bytes = connection.pragma("page_size")
            limits = Limits(settings.budget_bytes, settings.free_floor_bytes, page_bytes, settings.keep_bytes)
            connection.pragma("journal_size_limit", limits.wal_bytes)
    except BaseException:  # whatever it was, the next attempt must find the lock free
        lock.release()
        raise
    return Started(path, lock, connection, limits, recovered)


class _Opening:
    """One attempt to open; the lock is held around it."""

    def __init__(
        self,
        settings: StoreSettings,
        clock: Clock,
        free_bytes: Callable[[Path], int],
        path: Path,
        warnings: list[str],
        migrations: tuple[schema.Migration, ...],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._free_bytes = free_bytes
        self._path = path
        self._warnings = warnings
        self._migrations = migrations
        self._marker = path.with_name(place.MARKER_NAME)

    def run(self) -> tuple[apsw.Connection, Recovered]:
        salvage.finish_swap(self._path)
        place.create_file(self._path)
        connection, finding = self._examine()
        report = None
        if connection is None:
            connection, report = self._salvage(finding.damage)
        migrated = self._migrate(connection)
        new_store = current_epoch(connection) is None
        if new_store:
            begin_epoch(connection, "new", self._clock.wall_ms())
        elif finding.lost_tail:
            begin_epoch(connection, "lost_tail", self._clock.wall_ms())
            report = self._report(connection, finding.lost_tail, complete=True)
        self._mark_open(connection)
        following = self._note_start(connection, salvaged=report is not None)
        recovered = recover(
            connection,
            new_store=new_store,
            salvage=report,
            migrated=migrated,
            check_complete=finding.complete,
            warnings=tuple(self._warnings),
        )
        return connection, replace(recovered, next_alarm=following["alarm"], next_health=following["health"])

    def _note_start(self, connection: apsw.Connection, *, salvaged: bool) -> dict[str, int]:
        """Remember this opening in the table `start`; returns the next numbers of the records.

        The tables beside the journal are made anew where they are missing: they are no reason not to start.
        """
        settings, clock = self._settings, self._clock
        instance = settings.instance or secrets.token_hex(8)
        try:
            with connection:
                sidings.repair(connection, anew=salvaged)
                mending.part_tombstones(connection)
                marks.put(connection, marks.BUDGET_BYTES, settings.budget_bytes)
                found = sidings.next_records(connection)
                numbers = next_numbers(connection)
                starts.note(connection, numbers, found, clock.boot_id, instance, clock.wall_ms())
        except (apsw.FullError, apsw.IOError) as error:
            if is_damage(error):
                raise
            self._warnings.append(f"could not note the start ({error}): a copy put back later may not be recognised")
            found = sidings.next_records(connection)
        return found

    def _examine(self) -> tuple[apsw.Connection | None, examination.Finding]:
        """The connection and what was found; no connection when the file is damaged."""
        if self._marker.exists():
            return None, examination.Finding(damage=self._marker.read_text(errors="replace") or "marked as damaged")
        wal = self._path.with_name(self._path.name + "-wal")
        wal_bytes = wal.stat().st_size if wal.exists() else 0
        connection = None
        try:
            connection = connect_writer(self._path)
            if connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
                return connection, examination.Finding()
            schema.refuse_foreign(connection, self._path, self._migrations[-1].version)
            finding = examination.examine(
                connection, wal, wal_bytes_before=wal_bytes, is_late=self._deadline(self._settings.check_limit_s)
            )
        except apsw.Error as error:
            if not is_damage(error):
                raise
            finding = examination.Finding(damage=str(error))
        if connection is not None and finding.damage:
            connection.close()
        return (None if finding.damage else connection), finding

    def _salvage(self, cause: str) -> tuple[apsw.Connection, SalvageReport]:
        """Build a new store beside the damaged one, then swap them."""
        salvaging = self._path.with_name(salvage.SALVAGING_NAME)
        salvage.remove(salvaging)
        place.create_file(salvaging)
        connection = connect_writer(salvaging)
        schema.migrate(connection, self._clock.wall_ms(), self._migrations)
        limit_s = self._settings.salvage_limit_s
        complete = salvage.copy_rows(
            self._path,
            connection,
            search_is_late=self._deadline(limit_s / 2),
            is_late=self._deadline(limit_s),
            is_full=lambda: self._free_bytes(self._path.parent) < SALVAGE_RESERVE_BYTES,
        )
        settings = self._settings
        protected_bytes = Limits(settings.budget_bytes, 0, connection.pragma("page_size")).protected_bytes
        mending.mend(connection, settings.alarm_surroundings_s, protected_bytes)
        begin_epoch(connection, "damage", self._clock.wall_ms())
        report = self._report(connection, cause, complete=complete)
        close_clean(connection)
        stamp = datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = salvage.swap(self._path, stamp)
        room = self._free_bytes(self._path.parent) - self._settings.free_floor_bytes - self._settings.budget_bytes
        if room >= 0:  # evidence for people; the room that the budget promises to the store comes first
            report = replace(report, set_aside=aside)
        else:
            salvage.remove(aside)
        self._marker.unlink(missing_ok=True)
        place.sync_directory(self._path.parent)
        return connect_writer(self._path), report

    def _report(self, connection: apsw.Connection, cause: str, *, complete: bool) -> SalvageReport:
        """Count what is left, and leave a tombstone for each hole that is not known yet."""
        schema.create_beside(connection)
        found = mending.missing(connection)
        for stream, first, last in found:
            bury(connection, stream, first, last, last - first + 1, REASON_DAMAGE, self._clock.wall_ms())
        counted = connection.execute("SELECT count(*), total(event_n), total(result_n) FROM journal").fetchone()
        rows, events, results = counted or (0, 0, 0)
        return SalvageReport(cause, None, rows, int(events), int(results), tuple(found), complete)

    def _migrate(self, connection: apsw.Connection) -> tuple[str, ...]:
        version = schema.version_of(connection)
        if 0 < version < self._migrations[-1].version:
            self._back_up(connection, self._path.with_name(f"store-before-v{version + 1}.db"))
        return tuple(schema.migrate(connection, self._clock.wall_ms(), self._migrations))

    def _back_up(self, connection: apsw.Connection, to: Path) -> None:
        """A durable copy under a new name. Without room for it, migrating goes on: each step is one transaction."""
        size = connection.pragma("page_count") * connection.pragma("page_size")
        if self._free_bytes(self._path.parent) < size + self._settings.free_floor_bytes:
            self._warnings.append(f"no room for a backup of {size} bytes before the migration; migrated without one")
            return
        schema.back_up(connection, to)

    def _mark_open(self, connection: apsw.Connection) -> None:
        try:
            examination.mark_open(connection, is_open=True)
        except (apsw.FullError, apsw.IOError) as error:
            self._warnings.append(
                f"could not mark the store as open ({error}): a WAL that gets lost will not be noticed"
            )

    def _deadline(self, limit_s: float) -> Callable[[], bool]:
        until_ns = self._clock.mono_ns() + int(limit_s * NS_PER_S)
        return lambda: self._clock.mono_ns() > until_ns


def current_epoch(connection: apsw.Connection) -> PastEpoch | None:
    """The newest epoch, with the numbers before its first as `last_*`; None in a store that was just made."""
    row = connection.execute(
        "SELECT epoch, first_event - 1, first_result - 1, first_batch - 1 FROM epoch ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return PastEpoch(*row) if row else None


def begin_epoch(connection: apsw.Connection, reason: str, wall_ms: int) -> None:
    """From the next numbers on, a new epoch: what comes now can never be mistaken for what a lost row said.

    Events that the snapshot has already folded, but whose rows are gone, become a tombstone.
    """
    last = lookup.newest(connection)
    snapshot = connection.execute("SELECT event_seq FROM snapshot").fetchone()
    event, result, batch = (last.end("event"), last.end("result"), last.batch + 1) if last else (1, 1, 1)
    # Numbers of an earlier epoch whose rows are lost must not come back: by its number a result finds its epoch.
    begun = connection.execute("SELECT max(first_event), max(first_result), max(first_batch) FROM epoch").fetchone()
    if begun and begun[0] is not None:
        event, result, batch = max(event, begun[0]), max(result, begun[1]), max(batch, begun[2])
    # A row without events may have been stripped of them: their numbers have been used, and stand in a tombstone.
    event, result = (max(n, tombstones.upto(connection, s) + 1) for s, n in (("event", event), ("result", result)))
    if snapshot and snapshot[0] >= event:
        bury(connection, "event", event, snapshot[0], snapshot[0] - event + 1, REASON_DAMAGE, wall_ms)
        event = snapshot[0] + 1
    connection.execute(
        "INSERT INTO epoch(epoch, reason, first_event, first_result, first_batch, since_wall_ms) VALUES (?,?,?,?,?,?)",
        (new_epoch(), reason, event, result, batch, wall_ms),
    )


def next_numbers(connection: apsw.Connection) -> tuple[int, int, int]:
    """The event, the result and the batch that come next."""
    epoch = current_epoch(connection)
    if epoch is None:
        raise StoreCorrupt("opening the store: it has no epoch")
    last = lookup.newest(connection)
    return (
        max(epoch.last_event + 1, last.end("event") if last else 1),
        max(epoch.last_result + 1, last.end("result") if last else 1),
        max(epoch.last_batch, last.batch if last else 0) + 1,
    )


def recover(
    connection: apsw.Connection,
    *,
    new_store: bool,
    salvage: SalvageReport | None,
    migrated: tuple[str, ...],
    check_complete: bool,
    warnings: tuple[str, ...],
) -> Recovered:
    """Read what a restart needs: the numbers, the newest meta and the snapshot."""
    unpacker = Unpacker()
    epoch = current_epoch(connection)
    if epoch is None:
        raise StoreCorrupt("opening the store: it has no epoch")
    next_event, next_result, next_batch = next_numbers(connection)
    meta = connection.execute("SELECT meta FROM journal ORDER BY batch DESC LIMIT 1").fetchone()
    snapshot = connection.execute("SELECT event_seq, state FROM snapshot").fetchone()
    return Recovered(
        epoch=epoch.epoch,
        next_event=next_event,
        next_result=next_result,
        next_batch=next_batch,
        meta=unpacker.unpack_bytes(meta[0]) if meta else None,
        snapshot=(snapshot[0], unpacker.unpack_bytes(snapshot[1])) if snapshot else None,
        new_store=new_store,
        past_epochs=past_epochs(connection),
        salvage=salvage,
        migrated=migrated,
        check_complete=check_complete,
        warnings=warnings,
    )


def past_epochs(connection: apsw.Connection) -> tuple[PastEpoch, ...]:
    """The epochs before the current one, oldest first."""
    rows = list(connection.execute("SELECT epoch, first_event, first_result, first_batch FROM epoch ORDER BY id"))
    return tuple(PastEpoch(earlier[0], later[1] - 1, later[2] - 1, later[3] - 1) for earlier, later in pairwise(rows))
