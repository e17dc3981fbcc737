"""From a stick into the database: every export verified, opened, committed; then a receipt says what is home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edged.hub.ports import Batch, DatabaseAway
from edged.messages import ResultColumns
from edged.sync import ranges, stick
from edged.sync.envelope import Refusal, decode_hello, encode_message, open_body, read_header
from edged.sync.keys import StickRefused
from edged.sync.protocol import Fork, Probe
from edged.sync.stick import Manifest, Receipt, RefusedFile, StickFile

if TYPE_CHECKING:
    from edged.hub.ports import Database
    from edged.ops.stick_folder import ExportReader, Found
    from edged.ports import Clock
    from edged.sync.keys import GatewayKey, HubSecret
    from edged.sync.protocol import HelloAck
    from edged.sync.ranges import Ranges


SCATTERED = "busy"  # too many holes before this batch: it has to wait for an older stick, the others need not


class Importer(NamedTuple):
    """What an import needs. key_of: the key of a gateway that may bring sticks; raises `StickRefused` for others."""

    database: Database
    secret: HubSecret
    key_of: Callable[[str, str], GatewayKey]
    clock: Clock


@dataclass
class Outcome:
    """What became of one export. refused: the code when nothing of it was taken; the files that were not taken by name.

    home: numbers of it that are home now; before: how many of them were already.
    """

    site: str
    gateway: str
    export_id: str
    refused: str = ""
    detail: str = ""
    hint: str = ""
    home: int = 0
    before: int = 0
    bad_rows: int = 0
    left: int = 0
    files: list[tuple[str, str, str]] = field(default_factory=list)
    forks: tuple[Fork, ...] = ()
    receipt: bytes = b""

    @property
    def ok(self) -> bool:
        return not (self.refused or self.files or self.forks)


async def take(found: Found, reader: ExportReader, importer: Importer) -> Outcome:
    """Import one export; the same export again changes nothing. Raises `DatabaseAway`: then it has no receipt."""
    outcome = Outcome(found.site, found.gateway, found.export_id)
    try:
        key = await asyncio.to_thread(importer.key_of, found.site, found.gateway)
        signed = await asyncio.to_thread(reader.read, stick.MANIFEST_NAME, stick.MANIFEST_MAX_BYTES)
        manifest = stick.read_manifest(signed, key, found.site, found.gateway, found.export_id)
        _check_receiver(manifest, importer.secret)
        answer = await _hello(manifest, importer.database)
        export = _Export(manifest, reader, importer, answer, outcome)
        outcome.forks = answer.forks or await export.overlap()
        taken = [] if outcome.forks else await export.commit()
    except (StickRefused, Refusal) as refused:
        outcome.refused, outcome.detail, outcome.hint = _code(refused), refused.message, refused.hint
        return outcome
    outcome.left = manifest.left
    outcome.receipt = stick.sign_receipt(_receipt(manifest, signed, taken, outcome, importer), importer.secret)
    return outcome


class _Export:
    """An export whose manifest is proven, against what the database has already."""

    def __init__(
        self, manifest: Manifest, reader: ExportReader, importer: Importer, answer: HelloAck, outcome: Outcome
    ) -> None:
        self._manifest = manifest
        self._reader = reader
        self._importer = importer
        self._outcome = outcome
        self._before: dict[tuple[str, str], Ranges] = {
            (cursor.epoch, cursor.stream): ranges.normalise(((1, cursor.upto), *cursor.ranges))
            for cursor in answer.cursors
        }

    async def commit(self) -> list[StickFile]:
        """The files that are home now. A file that is refused stops none behind it."""
        taken: list[StickFile] = []
        for file in self._manifest.files:
            try:
                batch = await asyncio.to_thread(self._open, file)
                answer = await self._importer.database.commit(batch)
            except (StickRefused, Refusal) as refused:
                self._outcome.files.append((file.name, _code(refused), refused.message))
                continue
            if answer.status == "retry" and answer.reason != SCATTERED:
                raise DatabaseAway(f"Importing {file.name}: the database cannot take it now ({answer.reason})")
            if answer.status != "ok":
                self._outcome.files.append((file.name, answer.reason, "the database refused this batch"))
                continue
            n = file.last - file.first + 1
            self._outcome.home += n
            self._outcome.before += ranges.count(ranges.clip(self._known(file), file.first, file.last))
            self._outcome.bad_rows += len(answer.bad)
            taken.append(file)
        return taken

    async def overlap(self) -> tuple[Fork, ...]:
        """Where the newest result that we have already is another row here than in the export.

        `hello` sees it when the gateway's store was put back from a copy. This sees the other side of it: an export of
        the history that was given up then, which must not fill the numbers of the one that goes on.
        """
        forks: list[Fork] = []
        probed: set[str] = set()
        for file, seq in sorted(self._overlaps(), key=lambda found: -found[1]):
            if file.epoch in probed:
                continue
            try:
                rows = (await asyncio.to_thread(self._open, file)).rows
            except (StickRefused, Refusal):
                continue  # it is named when its turn comes; the one below says nearly as much
            assert isinstance(rows, ResultColumns)
            probed.add(file.epoch)
            index = seq - file.first
            probe = Probe(file.epoch, seq, rows.contexts[rows.context[index]].boot, rows.mono_ns[index])
            answer = await self._importer.database.hello(msgspec.structs.replace(self._manifest.hello, probes=(probe,)))
            forks += answer.forks
        return tuple(forks)

    def _overlaps(self) -> Iterator[tuple[StickFile, int]]:
        """Files with results that are home already, and the newest of these."""
        for file in self._manifest.files:
            if file.stream == "result" and file.kind == "rows":
                known = ranges.clip(self._known(file), file.first, file.last)
                if known:
                    yield file, known[-1][1]

    def _known(self, file: StickFile) -> Ranges:
        return self._before.get((file.epoch, file.stream), ())

    def _open(self, file: StickFile) -> Batch:
        """The batch in a file. Raises `StickRefused`, `Refusal`."""
        sealed = self._reader.read(file.name, stick.FILE_MAX_BYTES)
        header, body = read_header(stick.open_file(sealed, file, self._importer.secret))
        stick.check_header(header, file, self._manifest)
        return Batch(header, *open_body(header, body))


def _check_receiver(manifest: Manifest, secret: HubSecret) -> None:
    ours = secret.public.fingerprint
    if manifest.receiver != ours:
        raise StickRefused(
            "wrong_receiver",
            f"the export is sealed to the hub {manifest.receiver[:40]}, we are {ours}",
            hint="import it there, or give the gateway our key (`edged-hub keys`) and export again",
        )


async def _hello(manifest: Manifest, database: Database) -> HelloAck:
    answer = await database.hello(decode_hello(encode_message(manifest.hello)))
    if answer.status == "retry":
        raise DatabaseAway(f"Importing {manifest.export_id}: the database cannot take it now ({answer.reason})")
    if answer.status == "reject":
        raise StickRefused(answer.reason, "the hub does not take rows of this gateway")
    return answer


def _receipt(
    manifest: Manifest, signed: bytes, taken: list[StickFile], outcome: Outcome, importer: Importer
) -> Receipt:
    return Receipt(
        v=stick.VERSION,
        receiver=importer.database.receiver,
        hub=importer.secret.public.fingerprint,
        site=manifest.site,
        gateway=manifest.gateway,
        export_id=manifest.export_id,
        manifest_sha256=stick.digest(signed),
        made_ms=importer.clock.wall_ms(),
        clock=importer.clock.quality(),
        home=stick.as_home(stick.contents(taken)),
        forks=outcome.forks,
        refused=tuple(RefusedFile(name, code) for name, code, _ in outcome.files[: stick.REFUSED_MAX]),
        refused_n=len(outcome.files),
    )


def _code(refused: StickRefused | Refusal) -> str:
    return refused.reason if isinstance(refused, StickRefused) else refused.code
