"""Manifests, receipts and sealed files: what is ours comes back as it was, everything else is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.sync import keys, stick
from edged.sync.envelope import read_header, seal
from edged.sync.keys import StickRefused
from edged.sync.protocol import BATCH_ROWS_MAX, VERSION, Fork, Hello, StreamExtent
from edged.sync.stick import Home, Manifest, Receipt, RefusedFile, StickFile
from tests.doubles.outward import ListedOutward, Span

GATEWAY, OTHER_GATEWAY = keys.new_gateway_secret(), keys.new_gateway_secret()
HUB, OTHER_HUB = keys.new_hub_secret(), keys.new_hub_secret()
EXPORT = "000001-00c0ffee"


def batch(first: int = 1, last: int = 5) -> tuple[Any, bytes]:
    piece = ListedOutward(Span("result", "e1", first, last)).piece("result", first, last - first + 1)
    assert piece is not None
    return seal(piece, site="lyon", gateway="gw-03")


HEADER, BATCH = batch()
FILE, SEALED = stick.seal_file(BATCH, HEADER, 1, HUB.public)
HELLO = Hello(
    v=VERSION, site="lyon", gateway="gw-03", instance="stick", version="1", epoch="e1",
    extents=(StreamExtent("e1", "result", 1, 6),),
)  # fmt: skip
MANIFEST = Manifest(
    v=stick.VERSION, export_id=EXPORT, site="lyon", gateway="gw-03", receiver=HUB.public.fingerprint, made_ms=1,
    clock="synced", boot="boot-1", rows=5, lost=0, left=0, hello=HELLO, files=(FILE,),
)  # fmt: skip
SIGNED = stick.sign_manifest(MANIFEST, GATEWAY)
RECEIPT = Receipt(
    v=stick.VERSION, receiver="db", hub=HUB.public.fingerprint, site="lyon", gateway="gw-03", export_id=EXPORT,
    manifest_sha256=stick.digest(SIGNED), made_ms=2, clock="synced", home=(Home("e1", "result", ((1, 5),)),),
)  # fmt: skip


def changed(**fields: object) -> Manifest:
    return msgspec.structs.replace(MANIFEST, **fields)


def read(data: bytes, **where: str) -> Manifest:
    place = {"site": "lyon", "gateway": "gw-03", "export": EXPORT, **where}
    return stick.read_manifest(data, GATEWAY.public, **place)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(StickRefused) as caught:
        act()
    return caught.value.reason


# --- what is ours -----------------------------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was_signed() -> None:
    assert read(SIGNED) == MANIFEST


def test_a_signed_file_is_plain_json_for_people_and_tools() -> None:
    signed = json.loads(SIGNED)
    assert signed["v"] == "edged-stick/1"
    assert signed["signer"] == GATEWAY.public.fingerprint
    assert signed["document"]["files"][0]["name"] == "000001.box"


def test_a_sealed_file_opens_to_the_very_bytes_that_would_have_travelled() -> None:
    assert stick.open_file(SEALED, FILE, HUB) == BATCH
    stick.check_header(read_header(BATCH)[0], FILE, MANIFEST)


def test_the_same_batch_is_sealed_differently_each_time_and_never_shows_its_content() -> None:
    again = stick.seal_file(BATCH, HEADER, 1, HUB.public)[1]
    assert again != SEALED
    assert b"gw-03" not in SEALED
    assert len(SEALED) == len(BATCH) + keys.SEAL_OVERHEAD_BYTES


def test_a_receipt_says_which_numbers_are_home() -> None:
    data = stick.sign_receipt(RECEIPT, HUB)
    trusted = (OTHER_HUB.public, HUB.public)
    assert stick.read_receipt(data, trusted, "lyon", "gw-03") == RECEIPT
    assert stick.receipt_ranges(data, trusted, "lyon", "gw-03") == {"e1": {"result": ((1, 5),)}}


def test_ranges_of_a_receipt_are_put_in_order() -> None:
    home = (Home("e1", "result", ((4, 9), (1, 3))), Home("e1", "result", ((12, 12),)), Home("e2", "alarm", ()))
    data = stick.sign_receipt(msgspec.structs.replace(RECEIPT, home=home), HUB)
    found = stick.receipt_ranges(data, (HUB.public,), "lyon", "gw-03")
    assert found == {"e1": {"result": ((1, 9), (12, 12))}, "e2": {"alarm": ()}}


def test_contents_are_gathered_by_epoch_and_stream() -> None:
    files = [
        msgspec.structs.replace(FILE, epoch=epoch, stream=stream, first=first, last=last)
        for epoch, stream, first, last in
        [("e1", "result", 1, 5), ("e1", "result", 6, 9), ("e1", "alarm", 2, 2), ("e2", "result", 10, 11)]
    ]  # fmt: skip
    found = stick.contents(files)
    assert found == {"e1": {"result": ((1, 9),), "alarm": ((2, 2),)}, "e2": {"result": ((10, 11),)}}
    assert stick.contents_of(stick.as_home(found)) == found


def test_names_are_those_of_the_oldest_file_systems() -> None:
    assert stick.file_name(1) == "000001.box"
    assert stick.is_file_name("000001.box")
    assert stick.is_file_name("manifest.json")
    assert not stick.is_file_name("../000001.box")
    export = stick.export_id(12, b"\x01\x02\x03\x04")
    assert (export, stick.is_export_id(export), stick.number_of(export)) == ("000012-01020304", True, 12)
    assert not stick.is_export_id(export + "\n")
    assert not stick.is_export_id("../etc")


# --- what is not ------------------------------------------------------------------------------------------------


def test_any_changed_byte_of_the_document_is_noticed() -> None:
    tampered = SIGNED.replace(b'"rows":5', b'"rows":6')
    assert tampered != SIGNED
    assert refused(lambda: read(tampered)) == "bad_signature"


@given(st.integers(0, len(SIGNED) - 2), st.integers(1, 255))
def test_no_flipped_byte_gives_another_manifest(at: int, flip: int) -> None:
    data = bytearray(SIGNED)
    data[at] ^= flip
    assert refused(lambda: read(bytes(data))) in {"bad_document", "bad_signature", "unknown_signer"}


@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_refuse(data: bytes) -> None:
    assert refused(lambda: read(data)) == "bad_document"
    assert refused(lambda: stick.read_receipt(data, (HUB.public,), "lyon", "gw-03")) == "bad_document"


def test_json_that_is_nested_without_end_is_refused() -> None:
    bomb = b'{"v":"edged-stick/1","kind":"manifest","document":' + b"[" * 500_000
    assert refused(lambda: read(bomb)) == "bad_document"


def test_a_manifest_by_another_gateway_is_refused() -> None:
    assert refused(lambda: read(stick.sign_manifest(MANIFEST, OTHER_GATEWAY))) == "unknown_signer"


def test_a_signer_that_only_claims_to_be_ours_is_refused() -> None:
    forged = stick.sign_manifest(MANIFEST, OTHER_GATEWAY).replace(
        OTHER_GATEWAY.public.fingerprint.encode(), GATEWAY.public.fingerprint.encode()
    )
    assert refused(lambda: read(forged)) == "bad_signature"


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64!", base64.b64encode(bytes(64)).decode()])
def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    signed = json.loads(SIGNED)
    data = SIGNED.replace(signed["signature"].encode(), signature.encode())
    assert refused(lambda: read(data)) == "bad_signature"


def test_a_manifest_never_passes_for_a_receipt() -> None:
    raw = msgspec.json.encode(RECEIPT)
    by_hub = base64.b64encode(keys.sign(b"edged-stick/1 manifest\n" + raw, HUB)).decode()
    head = {"v": stick.VERSION, "kind": "receipt", "signer": HUB.public.fingerprint, "signature": by_hub}
    data = msgspec.json.encode({**head, "document": msgspec.Raw(raw)})
    assert refused(lambda: stick.read_receipt(data, (HUB.public,), "lyon", "gw-03")) == "bad_signature"
    as_it_is = stick.sign_manifest(MANIFEST, GATEWAY)
    assert refused(lambda: stick.read_receipt(as_it_is, (HUB.public,), "lyon", "gw-03")) == "bad_document"


def test_another_version_is_refused_even_when_it_is_signed() -> None:
    assert refused(lambda: read(stick.sign_manifest(changed(v="edged-stick/2"), GATEWAY))) == "bad_document"
    receipt = stick.sign_receipt(msgspec.structs.replace(RECEIPT, v="edged-stick/2"), HUB)
    assert refused(lambda: stick.read_receipt(receipt, (HUB.public,), "lyon", "gw-03")) == "bad_document"


@pytest.mark.parametrize("where", [{"site": "paris"}, {"gateway": "gw-04"}, {"export": "000002-00c0ffee"}])
def test_a_manifest_in_the_folder_of_another_is_refused(where: dict[str, str]) -> None:
    assert refused(lambda: read(SIGNED, **where)) == "foreign_gateway"


def test_a_hello_of_another_gateway_inside_is_refused() -> None:
    hello = msgspec.structs.replace(HELLO, gateway="gw-04")
    assert refused(lambda: read(stick.sign_manifest(changed(hello=hello), GATEWAY))) == "foreign_gateway"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "../../etc/passwd"}, "bad_name"),
        ({"name": "/etc/passwd"}, "bad_name"),
        ({"name": "manifest.json"}, "bad_name"),
        ({"name": "000001.box\n"}, "bad_name"),
        ({"size_bytes": stick.FILE_MAX_BYTES + 1}, "too_large"),
        ({"size_bytes": -1}, "too_large"),
        ({"first": 1, "last": BATCH_ROWS_MAX + 1}, "too_large"),
        ({"first": 2, "last": 1}, "bad_document"),
        ({"first": 0, "last": 1}, "bad_document"),
        ({"first": 1, "last": 2**70}, "bad_document"),
    ],
)
def test_a_manifest_with_a_file_that_cannot_be_is_refused(fields: dict[str, Any], reason: str) -> None:
    files = (msgspec.structs.replace(FILE, **fields),)
    assert refused(lambda: read(stick.sign_manifest(changed(files=files), GATEWAY))) == reason


def test_a_tombstone_may_stand_for_more_numbers_than_a_batch_has_rows() -> None:
    files = (msgspec.structs.replace(FILE, kind="lost", last=10_000_000),)
    assert read(stick.sign_manifest(changed(files=files), GATEWAY)).files == files


def test_a_file_that_is_listed_twice_is_refused() -> None:
    assert refused(lambda: read(stick.sign_manifest(changed(files=(FILE, FILE)), GATEWAY))) == "bad_document"


def test_more_files_than_an_export_has_are_refused() -> None:
    files = tuple(msgspec.structs.replace(FILE, name=stick.file_name(i)) for i in range(stick.FILES_MAX + 1))
    assert refused(lambda: read(stick.sign_manifest(changed(files=files), GATEWAY))) == "too_large"


def test_a_full_export_fits_into_the_largest_manifest() -> None:
    long = msgspec.structs.replace(FILE, epoch="x" * 36, stream="telemetry", first=2**52, last=2**52 + 19_999)
    files = tuple(msgspec.structs.replace(long, name=stick.file_name(i)) for i in range(stick.FILES_MAX))
    signed = stick.sign_manifest(changed(files=files), GATEWAY)
    assert len(signed) < stick.MANIFEST_MAX_BYTES
    assert len(read(signed).files) == stick.FILES_MAX


def test_what_is_too_long_is_not_even_parsed() -> None:
    assert refused(lambda: read(b" " * (stick.MANIFEST_MAX_BYTES + 1))) == "too_large"
    data = b" " * (stick.RECEIPT_MAX_BYTES + 1)
    assert refused(lambda: stick.read_receipt(data, (HUB.public,), "lyon", "gw-03")) == "too_large"


def test_a_truncated_or_exchanged_file_is_refused() -> None:
    assert refused(lambda: stick.open_file(SEALED[:-1], FILE, HUB)) == "bad_checksum"
    other = stick.seal_file(BATCH, HEADER, 1, HUB.public)[1]
    assert refused(lambda: stick.open_file(other, FILE, HUB)) == "bad_checksum"


def test_what_is_sealed_to_another_hub_does_not_open() -> None:
    assert refused(lambda: stick.open_file(SEALED, FILE, OTHER_HUB)) == "bad_seal"


@pytest.mark.parametrize("junk", [b"", b"short", bytes(200)])
def test_what_was_never_sealed_does_not_open(junk: bytes) -> None:
    header = stick.seal_file(b"", HEADER, 1, HUB.public)[0]
    import hashlib

    line = msgspec.structs.replace(header, size_bytes=len(junk), sha256=hashlib.sha256(junk).hexdigest())
    assert refused(lambda: stick.open_file(junk, line, HUB)) == "bad_seal"


def test_a_batch_that_the_manifest_does_not_describe_is_refused() -> None:
    header = batch(6, 9)[0]
    assert refused(lambda: stick.check_header(header, FILE, MANIFEST)) == "bad_header"
    foreign = msgspec.structs.replace(HEADER, gateway="gw-04")
    assert refused(lambda: stick.check_header(foreign, FILE, MANIFEST)) == "foreign_gateway"


# --- receipts ---------------------------------------------------------------------------------------------------


def receipt(secret: keys.HubSecret = HUB, **fields: object) -> bytes:
    return stick.sign_receipt(msgspec.structs.replace(RECEIPT, **fields), secret)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (receipt(OTHER_HUB), "unknown_signer"),
        (receipt(hub=OTHER_HUB.public.fingerprint), "bad_document"),
        (receipt(export_id="../etc/cron.d/x"), "bad_document"),
        (receipt(site="paris"), "foreign_gateway"),
        (receipt(gateway="gw-04"), "foreign_gateway"),
        (receipt(home=(Home("e1", "result", ((5, 1),)),)), "bad_document"),
        (receipt().replace(b"[1,5]", b"[1,9]"), "bad_signature"),
    ],
)
def test_a_receipt_that_cannot_count_is_refused(data: bytes, reason: str) -> None:
    assert refused(lambda: stick.receipt_ranges(data, (HUB.public,), "lyon", "gw-03")) == reason


def test_a_receipt_counts_only_for_the_export_that_it_names() -> None:
    held = stick.contents(MANIFEST.files)
    stick.check_exported(RECEIPT, stick.digest(SIGNED), held)
    assert refused(lambda: stick.check_exported(RECEIPT, "0" * 64, held)) == "unknown_export"


@pytest.mark.parametrize(
    "home",
    [
        Home("e1", "result", ((1, 6),)),
        Home("e1", "result", ((7, 7),)),
        Home("e1", "alarm", ((1, 1),)),
        Home("e2", "result", ((1, 1),)),
    ],
)
def test_a_receipt_for_more_than_was_exported_is_refused(home: Home) -> None:
    claimed = msgspec.structs.replace(RECEIPT, home=(home,))
    held = stick.contents(MANIFEST.files)
    assert refused(lambda: stick.check_exported(claimed, stick.digest(SIGNED), held)) == "claims_too_much"


def test_a_receipt_for_more_than_was_ever_made_is_refused() -> None:
    extents = (StreamExtent("e1", "result", 3, 11),)
    stick.check_made({"e1": {"result": ((3, 10),)}}, extents)
    stick.check_made({"e7": {"result": ()}}, extents)
    for claimed in ({"e1": {"result": ((3, 11),)}}, {"e1": {"result": ((2, 4),)}}, {"e2": {"result": ((3, 4),)}}):
        assert refused(lambda claimed=claimed: stick.check_made(claimed, extents)) == "claims_too_much"  # type: ignore[misc]


def test_a_receipt_tells_what_was_not_taken() -> None:
    data = receipt(home=(), forks=(Fork("e1", 3),), refused=(RefusedFile("000001.box", "bad_checksum"),), refused_n=1)
    told = stick.read_receipt(data, (HUB.public,), "lyon", "gw-03")
    assert told.forks == (Fork("e1", 3),)
    assert told.refused[0].reason == "bad_checksum"
    assert stick.home_of(told) == {}


def test_a_fork_is_followed_once() -> None:
    forked = msgspec.structs.replace(RECEIPT, forks=(Fork("e1", 50), Fork("e0", 3)))
    before = (StreamExtent("e1", "alarm", 1, 900), StreamExtent("e1", "result", 1, 81))
    after = (StreamExtent("e1", "result", 1, 50), StreamExtent("e2", "result", 50, 99))
    assert stick.live_forks(forked, before) == (Fork("e1", 50),)
    assert stick.live_forks(forked, after) == ()


def test_a_file_of_a_manifest_has_room_in_its_reserve() -> None:
    from edged.uplink.export import LINE_BYTES

    long = StickFile(
        name=stick.file_name(999_999), size_bytes=stick.FILE_MAX_BYTES, sha256="f" * 64, epoch="x" * 128,
        stream="telemetry", kind="rows", first=2**53, last=2**53,
    )  # fmt: skip
    assert len(msgspec.json.encode(long)) + 1 < LINE_BYTES
