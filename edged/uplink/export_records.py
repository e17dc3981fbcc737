"""Which exports this gateway made, and what was in them: {state_dir}/exports, one file each.

A receipt counts only for an export that is remembered here: after the store was put back from an old copy, receipts for
what was made in between must not free other rows that have the same numbers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edged.errors import EdgedError, ExitCode
from edged.ops.durable_files import FileTrouble, make_folder, read_at_most, replace
from edged.sync import ranges, stick
from edged.sync.keys import StickRefused
from edged.sync.stick import Contents, Home, Manifest

RECORDS_MAX = (
    256  # exports without a complete receipt; beyond, the oldest is forgotten and its numbers are exported again
)
RECORD_MAX_BYTES = 8_388_608


class ExportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One export: the digest of its manifest, and the numbers in it. arrived: what receipts call home; None before."""

    export_id: str
    manifest_sha256: str
    receiver: str
    made_ms: int
    held: tuple[Home, ...]
    arrived: tuple[Home, ...] | None = None

    @property
    def contents(self) -> Contents:
        return stick.contents_of(self.held)

    @property
    def on_the_way(self) -> Contents:
        """What need not be exported again: all of it, and once there is a receipt, what that names."""
        return stick.contents_of(self.held if self.arrived is None else self.arrived)


class ExportsBusy(EdgedError):
    """Raised when another `edged store export` is at work."""

    exit_code = ExitCode.TEMPORARY


class ExportRecords:
    """The folder, held by one process at a time. Raises `OSError` where the disk does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[ExportRecord]:
        """Oldest first. A record that cannot be read is left out: its numbers are exported again."""
        found = [self.find(name) for name in self._names()]
        return [record for record in found if record is not None]

    def find(self, export_id: str) -> ExportRecord | None:
        """The export of this name, if this gateway remembers it."""
        if not stick.is_export_id(export_id):
            return None
        try:
            return msgspec.json.decode(read_at_most(self._path(export_id), RECORD_MAX_BYTES), type=ExportRecord)
        except (FileNotFoundError, FileTrouble, ValueError):
            return None

    def next_number(self) -> int:
        return 1 + max(map(stick.number_of, self._names()), default=0)

    def add(self, manifest: Manifest, signed: bytes) -> None:
        """Remember an export that is whole on its stick; the oldest beyond `RECORDS_MAX` is forgotten."""
        record = ExportRecord(
            export_id=manifest.export_id,
            manifest_sha256=stick.digest(signed),
            receiver=manifest.receiver,
            made_ms=manifest.made_ms,
            held=stick.as_home(stick.contents(manifest.files)),
        )
        self._write(record)
        for oldest in self._names()[:-RECORDS_MAX]:
            self._path(oldest).unlink()

    def settle(self, record: ExportRecord, home: tuple[Home, ...]) -> None:
        """A receipt came: what it does not name goes with the next export."""
        arrived = stick.as_home(stick.contents_of((*(record.arrived or ()), *home)))
        self._write(msgspec.structs.replace(record, arrived=arrived))

    def _names(self) -> list[str]:
        names = [path.stem for path in self._folder.glob("*.json")]
        return sorted(name for name in names if stick.is_export_id(name))

    def _write(self, record: ExportRecord) -> None:
        replace(self._path(record.export_id), msgspec.json.encode(record))

    def _path(self, export_id: str) -> Path:
        return self._folder / f"{export_id}.json"


def exported(records: list[ExportRecord]) -> Contents:
    """Everything that is on some stick, as far as no receipt says otherwise."""
    together: Contents = {}
    for record in records:
        for epoch, streams in record.on_the_way.items():
            known = together.setdefault(epoch, {})
            for stream, numbers in streams.items():
                known[stream] = ranges.normalise((*known.get(stream, ()), *numbers))
    return together


@contextmanager
def held(state_dir: Path) -> Iterator[ExportRecords]:
    """The records, for one process at a time. Raises `ExportsBusy`, `OSError`."""
    folder = state_dir / "exports"
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportsBusy(
                f"Using {folder}: another edged store export or import-receipt is at work",
                hint="wait until it is done",
                retryable=True,
            ) from None
        yield ExportRecords(folder)
    finally:
        os.close(descriptor)


def known_export(records: ExportRecords, export_id: str) -> ExportRecord:
    """Raises `StickRefused` (`unknown_export`)."""
    record = records.find(export_id)
    if record is None:
        raise StickRefused(
            "unknown_export",
            f"this gateway does not remember an export {export_id}",
            hint="nothing is lost: its rows are still here and go with the next export",
        )
    return record
