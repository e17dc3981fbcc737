"""`edged-stick/1`: batches on a stick, and the receipt that comes back; docs/reference/stick.md tells it to people.

Each file is one batch of `edged-sync/1`, sealed to the hub. The manifest names every file with its digest and is signed
by the gateway; the receipt says which numbers of this export are home and is signed by the hub. Both are one JSON
object whose `document` is signed byte for byte as it stands. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from edged.sync import keys, ranges
from edged.sync.envelope import NUMBER_MAX
from edged.sync.keys import GatewayKey, GatewaySecret, HubKey, HubSecret, StickRefused
from edged.sync.protocol import BATCH_ROWS_MAX, BODY_MAX_BYTES, HEADER_MAX_BYTES, Fork, Hello, Kind, Range, Stream

if TYPE_CHECKING:
    from edged.sync.protocol import BatchHeader, StreamExtent
    from edged.sync.ranges import Ranges

VERSION = "edged-stick/1"
FOLDER = "edged-export"
MANIFEST_NAME = "manifest.json"
RECEIPT_SUFFIX = ".receipt.json"
PART_SUFFIX = ".part"  # of a folder that is still being written, or that was pulled out

FILES_MAX = 20_000  # of one export: a FAT folder holds some ten thousand names; more go into the next export
FILE_MAX_BYTES = HEADER_MAX_BYTES + 1 + BODY_MAX_BYTES + keys.SEAL_OVERHEAD_BYTES
MANIFEST_MAX_BYTES = 8_388_608
RECEIPT_MAX_BYTES = 2_097_152
REFUSED_MAX = 100  # files named in a receipt; the ledger of the hub has the rest

MANIFEST, RECEIPT = "manifest", "receipt"

_EXPORT_ID = re.compile(r"[0-9]{6}-[0-9a-f]{8}")
_FILE_NAME = re.compile(r"[0-9]{6}\.box")

D = TypeVar("D", bound=msgspec.Struct)
Contents = dict[str, dict[Stream, "Ranges"]]
"""epoch → stream → numbers."""


class StickFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an export: a sealed batch. sha256: hex, of the file as it lies there; the rest as in its header."""

    name: str
    size_bytes: int
    sha256: str
    epoch: str
    stream: Stream
    kind: Kind
    first: int
    last: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export holds. receiver: fingerprint of the hub's key that it is sealed to.

    made_ms, clock, boot: Unix ms by a clock of this quality. rows, lost: numbers with rows, and with tombstones. left:
    numbers that had no room. hello: as at a connect, so that the hub can tell whether the store is an old copy.
    """

    v: str
    export_id: str
    site: str
    gateway: str
    receiver: str
    made_ms: int
    clock: str
    boot: str
    rows: int
    lost: int
    left: int
    hello: Hello
    files: tuple[StickFile, ...]


class Home(msgspec.Struct, frozen=True):
    """Numbers of an export that the receiver has committed."""

    epoch: str
    stream: Stream
    ranges: tuple[Range, ...]


class RefusedFile(msgspec.Struct, frozen=True):
    name: str
    reason: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one export. receiver: the database, as in `Ack`. hub: fingerprint of the key that signs.

    manifest_sha256: of the signed document, so that a receipt belongs to one export and to no other. home: only numbers
    of this export. forks: as in `HelloAck`; then nothing of it was taken. refused: the first files that were not taken.
    """

    v: str
    receiver: str
    hub: str
    site: str
    gateway: str
    export_id: str
    manifest_sha256: str
    made_ms: int
    clock: str
    home: tuple[Home, ...]
    forks: tuple[Fork, ...] = ()
    refused: tuple[RefusedFile, ...] = ()
    refused_n: int = 0


class _Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The file: `document` is signed as the bytes that stand there. signer: fingerprint. signature: Ed25519, base64."""

    v: str
    kind: str
    signer: str
    signature: str
    document: msgspec.Raw


# --- names ------------------------------------------------------------------------------------------------------


def export_id(number: int, salt: bytes) -> str:
    """Name of the `number`-th export; the salt tells it from an export of a store that was put back from a copy."""
    return f"{number % 1_000_000:06d}-{salt[:4].hex()}"


def is_export_id(text: str) -> bool:
    return _EXPORT_ID.fullmatch(text) is not None


def number_of(export: str) -> int:
    return int(export[:6])


def is_file_name(text: str) -> bool:
    """Whether an export may hold such a file."""
    return text == MANIFEST_NAME or _FILE_NAME.fullmatch(text) is not None


def file_name(index: int) -> str:
    """Eight characters and three: the oldest file system has room for it."""
    return f"{index:06d}.box"


# --- writing ----------------------------------------------------------------------------------------------------


def seal_file(batch: bytes, header: BatchHeader, index: int, receiver: HubKey) -> tuple[StickFile, bytes]:
    """A batch as a file: (its line in the manifest, its bytes)."""
    sealed = keys.seal(batch, receiver)
    line = StickFile(
        name=file_name(index),
        size_bytes=len(sealed),
        sha256=hashlib.sha256(sealed).hexdigest(),
        epoch=header.epoch,
        stream=header.stream,
        kind=header.kind,
        first=header.first,
        last=header.last,
    )
    return line, sealed


def sign_manifest(manifest: Manifest, secret: GatewaySecret) -> bytes:
    return _sign(MANIFEST, manifest, secret, secret.public.fingerprint)


def sign_receipt(receipt: Receipt, secret: HubSecret) -> bytes:
    return _sign(RECEIPT, receipt, secret, secret.public.fingerprint)


def _sign(kind: str, document: msgspec.Struct, secret: GatewaySecret | HubSecret, signer: str) -> bytes:
    raw = msgspec.json.encode(document)
    signature = base64.b64encode(keys.sign(_message(kind, raw), secret)).decode("ascii")
    signed = _Signed(v=VERSION, kind=kind, signer=signer, signature=signature, document=msgspec.Raw(raw))
    return msgspec.json.encode(signed) + b"\n"


def _message(kind: str, document: bytes) -> bytes:
    """What is signed: a manifest can never pass for a receipt."""
    return f"{VERSION} {kind}\n".encode() + document


# --- reading ----------------------------------------------------------------------------------------------------


def verify(data: bytes, kind: str, trusted: Sequence[GatewayKey | HubKey]) -> tuple[bytes, str]:
    """The signed document and the fingerprint of its signer. Nothing in it is looked at before its signature.

    Raises `StickRefused` (`too_large`, `bad_document`, `unknown_signer`, `bad_signature`).
    """
    limit = MANIFEST_MAX_BYTES if kind == MANIFEST else RECEIPT_MAX_BYTES
    if len(data) > limit:
        raise StickRefused("too_large", f"a {kind} has at most {limit} bytes, got {len(data)}")
    signed = _decode(data, _Signed, kind)
    if signed.v != VERSION or signed.kind != kind:
        raise StickRefused(
            "bad_document", f"expected a {kind} of {VERSION}, got {signed.kind[:40]!r}, {signed.v[:40]!r}"
        )
    key = next((key for key in trusted if key.fingerprint == signed.signer), None)
    if key is None:
        raise StickRefused(
            "unknown_signer", f"the {kind} is signed with the key {signed.signer[:40]!r}, which is not trusted"
        )
    raw = bytes(signed.document)
    try:
        signature = base64.b64decode(signed.signature, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if not keys.is_signed(_message(kind, raw), signature, key):
        raise StickRefused(
            "bad_signature", f"the {kind} was changed after it was signed, or is not by {key.fingerprint}"
        )
    return raw, key.fingerprint


def read_manifest(data: bytes, key: GatewayKey, site: str, gateway: str, export: str) -> Manifest:
    """The manifest of the export that lies in the folder site/gateway/export. Raises `StickRefused`."""
    raw, _ = verify(data, MANIFEST, (key,))
    manifest = _decode(raw, Manifest, MANIFEST)
    if manifest.v != VERSION:
        raise StickRefused("bad_document", f"unknown version {manifest.v[:40]!r}")
    hello = manifest.hello
    named = {(manifest.site, manifest.gateway), (hello.site, hello.gateway)}
    if named != {(site, gateway)} or manifest.export_id != export:
        raise StickRefused("foreign_gateway", f"the folder is {site}/{gateway}/{export}, its manifest is of another")
    _check_files(manifest.files)
    return manifest


def _check_files(files: Sequence[StickFile]) -> None:
    if len(files) > FILES_MAX:
        raise StickRefused("too_large", f"an export has at most {FILES_MAX} files, got {len(files)}")
    if len({file.name for file in files}) != len(files):
        raise StickRefused("bad_document", "a file is listed twice")
    for file in files:
        if not _FILE_NAME.fullmatch(file.name):
            raise StickRefused("bad_name", f"expected names like {file_name(1)}, got {file.name[:80]!r}")
        if not 0 <= file.size_bytes <= FILE_MAX_BYTES:
            raise StickRefused("too_large", f"{file.name}: a file has at most {FILE_MAX_BYTES} bytes")
        _check_range(file.first, file.last)
        if file.last - file.first >= BATCH_ROWS_MAX and file.kind == "rows":
            raise StickRefused("too_large", f"{file.name}: a batch has at most {BATCH_ROWS_MAX} rows")


def open_file(sealed: bytes, file: StickFile, secret: HubSecret) -> bytes:
    """The batch in a file, exactly as it would travel. Raises `StickRefused` (`bad_checksum`, `bad_seal`)."""
    if len(sealed) != file.size_bytes:
        raise StickRefused("bad_checksum", f"{file.name} has {len(sealed)} bytes, the manifest says {file.size_bytes}")
    if hashlib.sha256(sealed).hexdigest() != file.sha256:
        raise StickRefused("bad_checksum", f"{file.name} is not the file that the manifest lists")
    return keys.unseal(sealed, secret)


def check_header(header: BatchHeader, file: StickFile, manifest: Manifest) -> None:
    """The sealed batch is what the manifest says. Raises `StickRefused` (`foreign_gateway`, `bad_header`)."""
    if (header.site, header.gateway) != (manifest.site, manifest.gateway):
        raise StickRefused("foreign_gateway", f"{file.name} is a batch of {header.site}/{header.gateway}")
    inside = (header.epoch, header.stream, header.kind, header.first, header.last)
    if inside != (file.epoch, file.stream, file.kind, file.first, file.last):
        raise StickRefused("bad_header", f"{file.name} holds another batch than the manifest says")


def contents(files: Iterable[StickFile]) -> Contents:
    """Which numbers the files hold."""
    gathered: dict[str, dict[Stream, list[Range]]] = {}
    for file in files:
        gathered.setdefault(file.epoch, {}).setdefault(file.stream, []).append((file.first, file.last))
    return {
        epoch: {stream: ranges.normalise(found) for stream, found in streams.items()}
        for epoch, streams in gathered.items()
    }


def as_home(found: Contents) -> tuple[Home, ...]:
    """Sets of numbers as they are written down."""
    return tuple(
        Home(epoch, stream, numbers) for epoch, streams in found.items() for stream, numbers in streams.items()
    )


def contents_of(written: Iterable[Home]) -> Contents:
    """The sets of numbers that were written down so."""
    found: Contents = {}
    for home in written:
        streams = found.setdefault(home.epoch, {})
        streams[home.stream] = ranges.normalise((*streams.get(home.stream, ()), *home.ranges))
    return found


def digest(signed: bytes) -> str:
    """Identity of a manifest: hex, SHA-256 of its signed document."""
    return hashlib.sha256(_decode(signed, _Signed, MANIFEST).document).hexdigest()


# --- receipts ---------------------------------------------------------------------------------------------------


def read_receipt(data: bytes, trusted: Sequence[HubKey], site: str, gateway: str) -> Receipt:
    """A receipt for this gateway by a hub that it trusts. Raises `StickRefused`."""
    raw, signer = verify(data, RECEIPT, trusted)
    receipt = _decode(raw, Receipt, RECEIPT)
    if receipt.v != VERSION or receipt.hub != signer or not is_export_id(receipt.export_id):
        raise StickRefused("bad_document", "the receipt names another version, signer or export than it can have")
    if (receipt.site, receipt.gateway) != (site, gateway):
        raise StickRefused("foreign_gateway", f"the receipt is for {receipt.site[:80]}/{receipt.gateway[:80]}")
    for home in receipt.home:
        for first, last in home.ranges:
            _check_range(first, last)
    return receipt


def receipt_ranges(data: bytes, trusted: Sequence[HubKey], site: str, gateway: str) -> Contents:
    """What a receipt calls home: epoch → stream → numbers. Verifies it first; raises `StickRefused`."""
    return home_of(read_receipt(data, trusted, site, gateway))


def home_of(receipt: Receipt) -> Contents:
    """The numbers of a verified receipt as sets."""
    return contents_of(receipt.home)


def check_exported(receipt: Receipt, manifest_sha256: str, exported: Mapping[str, Mapping[Stream, Ranges]]) -> None:
    """The receipt is for that export and claims nothing beyond it. Raises `StickRefused`."""
    if receipt.manifest_sha256 != manifest_sha256:
        raise StickRefused(
            "unknown_export", f"export {receipt.export_id} was another one here, before a copy was put back"
        )
    for epoch, streams in home_of(receipt).items():
        for stream, claimed in streams.items():
            made = exported.get(epoch, {}).get(stream, ())
            if not all(ranges.covers(made, first, last) for first, last in claimed):
                raise StickRefused("claims_too_much", f"numbers of stream {stream} that were not in this export")


def check_made(home: Mapping[str, Mapping[Stream, Ranges]], extents: Sequence[StreamExtent]) -> None:
    """Nothing is called home that was never made. Raises `StickRefused` (`claims_too_much`)."""
    ends = {(extent.epoch, extent.stream): (extent.base, extent.next) for extent in extents}
    for epoch, streams in home.items():
        for stream, claimed in streams.items():
            base, end = ends.get((epoch, stream), (0, 0))
            if claimed and not (base <= claimed[0][0] and claimed[-1][1] < end):
                raise StickRefused(
                    "claims_too_much", f"numbers of stream {stream} that were never made in epoch {epoch}"
                )


def live_forks(receipt: Receipt, extents: Sequence[StreamExtent]) -> tuple[Fork, ...]:
    """The forks that still are to be followed: an old receipt must not move rows that have their new epoch already."""
    results = {extent.epoch: extent for extent in extents if extent.stream == "result"}
    return tuple(
        fork
        for fork in receipt.forks
        if fork.epoch in results and results[fork.epoch].base <= fork.seq < results[fork.epoch].next
    )


def _check_range(first: int, last: int) -> None:
    if not 1 <= first <= last <= NUMBER_MAX:
        raise StickRefused("bad_document", f"{first} to {last} is no range of numbers")


def _decode(data: bytes, kind: type[D], name: str) -> D:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec says ValueError, also where text is no UTF-8
        raise StickRefused("bad_document", f"the {name} is not what {VERSION} says: {str(error)[:160]}") from None
