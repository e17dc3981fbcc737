"""Filling a stick: what is not home yet, alarms first, oldest first, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import EdgedError, ExitCode
from edged.ops.stick_folder import ExportWriter, gateway_folder, remove_parts
from edged.sync import ranges, stick
from edged.sync.envelope import Refusal, seal
from edged.sync.protocol import BATCH_ROWS_MAX, BODY_MAX_BYTES, VERSION, Hello, Stream
from edged.sync.stick import Contents, Manifest, StickFile

if TYPE_CHECKING:
    from edged.ports import Clock, Outward
    from edged.sync.keys import GatewaySecret, HubKey
    from edged.sync.piece import Piece
    from edged.sync.protocol import BatchHeader, StreamExtent
    from edged.sync.ranges import Ranges
    from edged.uplink.export_records import ExportRecords

ORDER: tuple[Stream, ...] = ("alarm", "health", "result", "telemetry")
PROBES_MAX = 256  # starts of the daemon that the hub compares, to see whether the store is an old copy
FIRST_ROWS = 500  # of the first batch: rows may be images
FULL_BYTES = BODY_MAX_BYTES * 3 // 4  # the next rows may be larger than these
GROWTH_MAX = 8
LINE_BYTES = 400  # of a file in the manifest, more than any needs
RESERVE_BYTES = 131_072  # for the manifest's head with its probes, and for the file system's own books


class NoRoom(EdgedError):
    """Raised when not even one batch fits."""

    exit_code = ExitCode.IO


class Wanted(NamedTuple):
    """Numbers that should go on the stick."""

    stream: Stream
    first: int
    last: int


class Plan(NamedTuple):
    """What should go on the stick, in order. elsewhere: numbers on earlier sticks without a receipt.

    after_result: every result up to here is home. extents: of the streams that go home.
    """

    todo: list[Wanted]
    elsewhere: int
    after_result: int
    extents: tuple[StreamExtent, ...]


class Room(NamedTuple):
    """How much one export may take, beside what is free on the stick."""

    max_bytes: int | None = None
    files_max: int = stick.FILES_MAX


@dataclass(frozen=True)
class Gateway:
    """Who exports, to whom, by which clock."""

    site: str
    gateway: str
    version: str
    secret: GatewaySecret
    hub: HubKey
    clock: Clock


class Exported(NamedTuple):
    """What an export did. manifest: None when there was nothing to do. left: numbers for which there was no room.

    elsewhere: numbers on earlier sticks without a receipt. too_large: numbers whose row fits in no batch; they stay.
    """

    manifest: Manifest | None
    path: Path | None
    size_bytes: int
    left: int
    elsewhere: int
    too_large: int
    removed_parts: int


def wanted(
    extents: Iterable[StreamExtent],
    home: Mapping[Stream, Ranges],
    elsewhere: Contents,
    streams: Sequence[Stream],
) -> list[Wanted]:
    """What is not home and on no other stick: stream by stream, oldest first."""
    found: dict[Stream, list[Wanted]] = {stream: [] for stream in ORDER if stream in streams}
    for extent in extents:
        if extent.stream in found:
            known = ranges.normalise(
                (*home.get(extent.stream, ()), *elsewhere.get(extent.epoch, {}).get(extent.stream, ()))
            )
            holes = ranges.missing(known, extent.base, extent.next - 1)
            found[extent.stream] += [Wanted(extent.stream, first, last) for first, last in holes]
    return [part for parts in found.values() for part in parts]


def plan(
    extents: Sequence[StreamExtent],
    home: Mapping[Stream, Ranges],
    elsewhere: Contents,
    streams: Sequence[Stream],
) -> Plan:
    """elsewhere: what earlier exports hold; empty to write that once more."""
    todo = wanted(extents, home, elsewhere, streams)
    on_the_way = numbers(wanted(extents, home, {}, streams)) - numbers(todo)
    sent = tuple(extent for extent in extents if extent.stream in streams)
    return Plan(todo, on_the_way, ranges.contiguous(tuple(home.get("result", ())), 1)[0], sent)


def numbers(parts: Iterable[Wanted]) -> int:
    return sum(part.last - part.first + 1 for part in parts)


class Batches:
    """The wanted numbers as batches: as many rows at once as fill a batch, judged by the one before it."""

    def __init__(self, outward: Outward, site: str, gateway: str) -> None:
        self._outward = outward
        self._site = site
        self._gateway = gateway
        self._limit = FIRST_ROWS
        self.too_large = 0

    def of(self, part: Wanted) -> Iterator[tuple[BatchHeader, bytes]]:
        seq = part.first
        while seq <= part.last:
            limit = min(self._limit, part.last - seq + 1)
            piece = self._outward.piece(part.stream, seq, limit)
            if piece is None:
                return
            sealed = self._seal(piece, limit)
            if sealed is not None:
                yield sealed
                seq = piece.last + 1
            elif limit == 1:
                self.too_large += 1
                seq += 1

    def _seal(self, piece: Piece, limit: int) -> tuple[BatchHeader, bytes] | None:
        """None when it is too large; then the next try is with fewer rows."""
        try:
            sealed = seal(piece, site=self._site, gateway=self._gateway)
        except Refusal as refusal:
            if refusal.code != "too_large":
                raise
            self._limit = max(1, limit // 2)
            return None
        if piece.rows is not None:
            n = piece.last - piece.first + 1
            fitting = n * FULL_BYTES // len(sealed[1])
            self._limit = max(1, min(fitting, n * GROWTH_MAX, BATCH_ROWS_MAX))
        return sealed


def export(
    outward: Outward,
    records: ExportRecords,
    medium: Path,
    gateway: Gateway,
    plan: Plan,
    *,
    salt: bytes,
    room: Room = Room(),  # noqa: B008 - a frozen value
    on_file: Callable[[int], None] = lambda _size_bytes: None,
) -> Exported:
    """Write one export and remember it. Raises `NoRoom`, `OSError`.

    salt: random bytes for the name of the export. on_file: told the bytes written so far.
    """
    total, elsewhere = numbers(plan.todo), plan.elsewhere
    with gateway_folder(medium, gateway.site, gateway.gateway) as folder:
        removed = remove_parts(folder)
        if not plan.todo:
            return Exported(None, None, 0, 0, elsewhere, 0, removed)
        export_id = stick.export_id(records.next_number(), salt)
        batches = Batches(outward, gateway.site, gateway.gateway)
        with closing(ExportWriter(folder, export_id)) as writer:
            files, size_bytes = _write(writer, batches, plan.todo, gateway.hub, room, on_file)
            covered = sum(file.last - file.first + 1 for file in files)
            if not files:
                if batches.too_large:
                    return Exported(None, None, 0, total, elsewhere, batches.too_large, removed)
                raise _no_room(medium, room.max_bytes, writer.free_bytes())
            manifest = _manifest(outward, gateway, export_id, files, total - covered, plan)
            signed = stick.sign_manifest(manifest, gateway.secret)
            writer.finish(signed)
        records.add(manifest, signed)
    path = medium / stick.FOLDER / gateway.site / gateway.gateway / export_id
    return Exported(manifest, path, size_bytes + len(signed), total - covered, elsewhere, batches.too_large, removed)


def _write(
    writer: ExportWriter,
    batches: Batches,
    todo: Sequence[Wanted],
    hub: HubKey,
    room: Room,
    on_file: Callable[[int], None],
) -> tuple[list[StickFile], int]:
    files: list[StickFile] = []
    size_bytes = 0
    for part in todo:
        for header, batch in batches.of(part):
            line, sealed = stick.seal_file(batch, header, len(files) + 1, hub)
            needed = len(sealed) + RESERVE_BYTES + LINE_BYTES * (len(files) + 1)
            allowed = room.max_bytes is None or size_bytes + needed <= room.max_bytes
            if not allowed or needed > writer.free_bytes() or len(files) == room.files_max:
                return files, size_bytes
            writer.write(line.name, sealed)
            files.append(line)
            size_bytes += len(sealed)
            on_file(size_bytes)
    return files, size_bytes


def _manifest(
    outward: Outward, gateway: Gateway, export_id: str, files: list[StickFile], left: int, plan: Plan
) -> Manifest:
    counts = {kind: sum(file.last - file.first + 1 for file in files if file.kind == kind) for kind in ("rows", "lost")}
    return Manifest(
        v=stick.VERSION,
        export_id=export_id,
        site=gateway.site,
        gateway=gateway.gateway,
        receiver=gateway.hub.fingerprint,
        made_ms=gateway.clock.wall_ms(),
        clock=gateway.clock.quality(),
        boot=gateway.clock.boot_id,
        rows=counts["rows"],
        lost=counts["lost"],
        left=left,
        hello=Hello(
            v=VERSION,
            site=gateway.site,
            gateway=gateway.gateway,
            instance=f"stick-{export_id}",
            version=gateway.version,
            epoch=plan.extents[-1].epoch,
            extents=plan.extents,
            probes=outward.probes(plan.after_result, PROBES_MAX),
        ),
        files=tuple(files),
    )


def _no_room(medium: Path, max_bytes: int | None, free_bytes: int) -> NoRoom:
    allowed = (
        f"--max-bytes {max_bytes}" if max_bytes is not None and max_bytes < free_bytes else f"{free_bytes} bytes free"
    )
    return NoRoom(
        f"Exporting to {medium}: not even one batch fits ({allowed})",
        hint="free room on the stick (exports that have been imported may go), or allow more",
    )
