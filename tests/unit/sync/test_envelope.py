"""Batches and messages as bytes: what is sealed opens again, and everything else is refused with its code."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import BugError
from edged.messages import TelemetryColumns
from edged.sync.columns import ENTRIES_MAX, encode_rows
from edged.sync.envelope import (
    MESSAGE_MAX_BYTES,
    NUMBER_MAX,
    Refusal,
    decode_ack,
    decode_hello,
    decode_hello_ack,
    encode_message,
    open_body,
    read_header,
    seal,
)
from edged.sync.piece import Piece
from edged.sync.protocol import (
    BATCH_ROWS_MAX,
    BODY_MAX_BYTES,
    DECODED_MAX_BYTES,
    HEADER_MAX_BYTES,
    STREAMS,
    VERSION,
    Ack,
    BadRow,
    BatchHeader,
    Cursor,
    Encoding,
    Fork,
    Hello,
    HelloAck,
    Lost,
    Probe,
    Stream,
    StreamExtent,
    SummaryRow,
)
from tests.unit.sync.rows import any_records, any_results, exactly, records, results, rows_of, telemetry

ENCODINGS: tuple[Encoding, ...] = ("zstd", "gzip", "identity")
SUMMARY = SummaryRow("pump", "hall-1", 1_790_000_000_000, 60, 32, (60, 0.5, 1.5, 1.0), {"wear": (3, 1.0, 2.0, 1.5)}, {})
LOST = Lost(reason="budget", since_ms=1_790_000_000_000, interval_s=60, summary=(SUMMARY,))


def piece_of(stream: Stream = "result", n: int = 40, first: int = 11) -> Piece:
    return Piece(stream, "epoch-1", 1, first, first + n - 1, "boot-1", "synced", rows_of(stream, n), None)


def lost_piece(lost: Lost = LOST, first: int = 1, last: int = NUMBER_MAX) -> Piece:
    return Piece("result", "epoch-1", 1, first, last, "boot-1", "synced", None, lost)


def sealed(piece: Piece, encoding: Encoding = "zstd") -> tuple[BatchHeader, bytes]:
    return seal(piece, site="lyon", gateway="gw-01", encoding=encoding)


def opened(payload: bytes) -> tuple[object, Lost | None]:
    return open_body(*read_header(payload))


def with_header(**changes: object) -> bytes:
    """A good batch whose header says something else."""
    header, payload = sealed(piece_of())
    body = payload.split(b"\n", 1)[1]
    return msgspec.json.encode({**msgspec.to_builtins(header), **changes}) + b"\n" + body


def with_body(body: bytes, encoding: Encoding = "identity", **changes: object) -> tuple[BatchHeader, bytes]:
    """A good header, with its checksum, for this body."""
    header, _ = sealed(piece_of())
    checksum = hashlib.sha256(body).hexdigest()
    return msgspec.structs.replace(header, encoding=encoding, sha256=checksum, **changes), body


def refusal_of(call: Any, *args: Any) -> str:
    with pytest.raises(Refusal) as error:
        call(*args)
    assert str(error.value).startswith(f"{error.value.code}: ")
    return error.value.code


# --- there and back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("stream", STREAMS)
def test_what_is_sealed_opens_again(stream: Stream, encoding: Encoding) -> None:
    piece = piece_of(stream)
    header, payload = sealed(piece, encoding)
    found, body = read_header(payload)
    assert found == header
    assert (header.stream, header.kind, header.first, header.last, header.n) == (stream, "rows", 11, 50, 40)
    rows, lost = open_body(header, body)
    assert exactly(rows) == exactly(piece.rows)
    assert lost is None


@given(any_results())
def test_any_results_are_sealed_and_opened(rows: Any) -> None:
    piece = piece_of()._replace(rows=rows, last=10 + len(rows.ts))
    assert exactly(opened(sealed(piece)[1])[0]) == exactly(rows)


@given(any_records())
def test_any_records_are_sealed_and_opened(rows: Any) -> None:
    piece = piece_of("alarm")._replace(rows=rows, last=10 + len(rows.kind))
    assert exactly(opened(sealed(piece)[1])[0]) == exactly(rows)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("lost", [LOST, Lost(reason="damage", since_ms=0)])
def test_the_word_that_numbers_are_lost_travels_for_any_count_of_them(lost: Lost, encoding: Encoding) -> None:
    header, payload = sealed(lost_piece(lost), encoding)
    assert (header.kind, header.n) == ("lost", NUMBER_MAX)
    assert opened(payload) == (None, lost)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("piece", [piece_of(n=500), lost_piece()], ids=["rows", "lost"])
def test_sealed_twice_gives_the_same_bytes(piece: Piece, encoding: Encoding) -> None:
    assert sealed(piece, encoding) == sealed(piece, encoding)


def test_the_header_is_one_line_of_json_and_the_body_may_contain_any_byte() -> None:
    _, payload = sealed(piece_of(n=2_000))
    line, body = payload.split(b"\n", 1)
    assert msgspec.json.decode(line)["v"] == VERSION
    assert b"\n" in body
    assert exactly(opened(payload)[0]) == exactly(results(2_000))


# --- our side ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, results(39), records(39)])
def test_a_piece_that_contradicts_itself_is_a_bug(rows: Any) -> None:
    with pytest.raises(BugError):
        sealed(piece_of()._replace(rows=rows))


def test_more_rows_than_a_batch_may_have_are_too_large() -> None:
    assert refusal_of(sealed, piece_of(n=1)._replace(first=1, last=BATCH_ROWS_MAX + 1)) == "too_large"


def test_rows_that_do_not_compress_enough_are_too_large() -> None:
    rows = telemetry(20)
    rows.payload = [b'"%s"' % hashlib.shake_256(b"%d" % row).hexdigest(60_000).encode() for row in range(20)]
    piece = piece_of("telemetry", 20)._replace(rows=rows)
    assert refusal_of(sealed, piece) == "too_large"
    assert exactly(opened(sealed(piece._replace(rows=first_of(rows), last=11))[1])[0]) == exactly(first_of(rows))


def first_of(rows: TelemetryColumns) -> TelemetryColumns:
    return TelemetryColumns(*(getattr(rows, name)[:1] for name in rows.__struct_fields__))


def test_rows_that_nobody_could_take_in_are_too_large_however_well_they_compress() -> None:
    rows = telemetry(20)
    rows.payload = [b'"%s"' % (b"a" * 1_000_000)] + [b"%d" % row + b"a" * 900_000 for row in range(19)]
    assert refusal_of(sealed, piece_of("telemetry", 20)._replace(rows=rows)) == "too_large"
    rows.payload[0] = b"1," * (ENTRIES_MAX + 1)
    assert refusal_of(sealed, piece_of("telemetry", 20)._replace(rows=rows)) == "too_large"


@pytest.mark.parametrize(
    "summary",
    [
        (SUMMARY,) * 20_001,
        (msgspec.structs.replace(SUMMARY, score=(1, 0.0, float("inf"), 0.0)),),
        (msgspec.structs.replace(SUMMARY, n=2**63),),
        (msgspec.structs.replace(SUMMARY, labels={f"label {i}": i for i in range(ENTRIES_MAX + 1)}),),
        (msgspec.structs.replace(SUMMARY, name=hashlib.shake_256(b"").hexdigest(BODY_MAX_BYTES + 1_000)),),
    ],
    ids=["rows", "infinite", "65 bits", "labels", "bytes"],
)
def test_a_tombstone_travels_without_a_summary_that_no_hub_could_read(summary: tuple[SummaryRow, ...]) -> None:
    _, payload = sealed(lost_piece(msgspec.structs.replace(LOST, summary=summary)), "identity")
    assert opened(payload) == (None, Lost(reason="budget", since_ms=LOST.since_ms))


# --- headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"{}", b"\n", b"{}\n", b"null\nx", b"\xff\n", b"[" * 4_000 + b"\n"])
def test_what_does_not_begin_with_a_header_is_refused(payload: bytes) -> None:
    assert refusal_of(read_header, payload) == "bad_header"


def test_a_header_line_of_ten_megabytes_is_refused_unread() -> None:
    assert refusal_of(read_header, b'{"v":"' + b"a" * 10_000_000 + b'"}\n') == "bad_header"


def test_a_header_line_may_have_its_full_length_and_not_one_byte_more() -> None:
    _, payload = sealed(piece_of())
    line, body = payload.split(b"\n", 1)
    padding = b" " * (HEADER_MAX_BYTES - len(line))
    assert read_header(line + padding + b"\n" + body)[0].n == 40
    assert refusal_of(read_header, line + padding + b" \n" + body) == "bad_header"


def test_a_body_may_have_its_full_length_and_not_one_byte_more() -> None:
    line = sealed(piece_of())[1].split(b"\n", 1)[0] + b"\n"
    assert len(read_header(line + b"a" * BODY_MAX_BYTES)[1]) == BODY_MAX_BYTES
    assert refusal_of(read_header, line + b"a" * (BODY_MAX_BYTES + 1)) == "too_large"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": "edged-sync/2"}, "bad_header"),
        ({"stream": "notice"}, "bad_header"),
        ({"kind": "maybe"}, "bad_header"),
        ({"encoding": "lzma"}, "bad_header"),
        ({"n": 39}, "bad_header"),
        ({"n": 0}, "bad_header"),
        ({"n": "40"}, "bad_header"),
        ({"first": 51, "n": 0}, "bad_header"),
        ({"first": 0, "n": 51}, "bad_header"),
        ({"first": -5, "n": 56}, "bad_header"),
        ({"base": 0}, "bad_header"),
        ({"base": -1}, "bad_header"),
        ({"last": NUMBER_MAX + 1, "n": NUMBER_MAX - 9}, "bad_header"),
        ({"last": 10**400, "n": 10**400 - 10}, "bad_header"),
        ({"base": 12}, "before_base"),
        ({"base": 51}, "before_base"),
        ({"last": 11 + BATCH_ROWS_MAX, "n": BATCH_ROWS_MAX + 1}, "too_large"),
        ({"site": ""}, "bad_header"),
        ({"site": "a/b"}, "bad_header"),
        ({"site": "+"}, "bad_header"),
        ({"gateway": "#"}, "bad_header"),
        ({"gateway": "gw\x00"}, "bad_header"),
        ({"gateway": None}, "bad_header"),
        ({"epoch": "e" * 129}, "bad_header"),
        ({"epoch": "a\nb"}, "bad_header"),
        ({"boot": "b" * 129}, "bad_header"),
        ({"clock": "\x7f"}, "bad_header"),
        ({"sha256": 1}, "bad_header"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes: dict[str, object], code: str) -> None:
    assert refusal_of(read_header, with_header(**changes)) == code


def test_a_field_that_a_newer_gateway_adds_is_left_aside() -> None:
    assert read_header(with_header(weather="fair"))[0] == sealed(piece_of())[0]


@pytest.mark.parametrize("field", BatchHeader.__struct_fields__)
def test_a_missing_field_is_refused(field: str) -> None:
    header = msgspec.to_builtins(sealed(piece_of())[0])
    del header[field]
    assert refusal_of(read_header, msgspec.json.encode(header) + b"\nbody") == "bad_header"


# --- bodies -----------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_found_before_anything_else() -> None:
    header, payload = sealed(piece_of())
    body = payload.split(b"\n", 1)[1]
    assert refusal_of(open_body, header, body[:-1] + bytes((body[-1] ^ 1,))) == "bad_checksum"
    assert refusal_of(open_body, header, b"") == "bad_checksum"
    assert refusal_of(open_body, msgspec.structs.replace(header, sha256=header.sha256.upper()), body) == "bad_checksum"
    assert refusal_of(open_body, msgspec.structs.replace(header, sha256="\u00e4"), body) == "bad_checksum"


def test_a_body_that_is_too_large_is_refused_before_its_checksum() -> None:
    assert refusal_of(open_body, sealed(piece_of())[0], b"a" * (BODY_MAX_BYTES + 1)) == "too_large"


PLAIN = encode_rows("result", results(40))
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN)
GZIP = gzip.compress(PLAIN)


def lying_frame(says: int) -> bytes:
    """A zstd frame whose header announces another size than it has (4-byte field behind magic and descriptor)."""
    frame = bytearray(zstandard.ZstdCompressor(level=1).compress(b"a" * 70_000))
    assert frame[4] >> 6 == 2
    frame[5:9] = says.to_bytes(4, "little")
    return bytes(frame)


def unannounced(plain: bytes) -> bytes:
    """A zstd frame that does not say how large it becomes."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    frame = packer.compress(plain) + packer.flush()
    assert zstandard.frame_content_size(frame) == -1
    return frame


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("zstd", b"", "bad_body"),
        ("zstd", b"\x28\xb5\x2f\xfd", "bad_body"),
        ("zstd", b"\x00" * 50, "bad_body"),
        ("zstd", PLAIN, "bad_body"),
        ("zstd", GZIP, "bad_body"),
        ("zstd", ZSTD[:-1], "bad_body"),
        ("zstd", ZSTD[:-30], "bad_body"),
        ("zstd", ZSTD + b"\x00", "bad_body"),
        ("zstd", ZSTD + ZSTD, "bad_body"),
        ("zstd", b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", "bad_body"),
        ("zstd", b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + ZSTD, "bad_body"),
        ("zstd", lying_frame(100), "bad_body"),
        ("zstd", lying_frame(80_000), "bad_body"),
        ("zstd", lying_frame(2**32 - 1), "too_large"),
        ("zstd", lying_frame(DECODED_MAX_BYTES + 1), "too_large"),
        ("zstd", zstandard.compress(b"a" * (DECODED_MAX_BYTES + 1)), "too_large"),
        ("zstd", unannounced(b"a" * (DECODED_MAX_BYTES + 1)), "bad_body"),
        ("zstd", unannounced(PLAIN), "bad_body"),
        ("zstd", zstandard.compress(b"[" * DECODED_MAX_BYTES), "bad_body"),
        ("gzip", b"", "bad_body"),
        ("gzip", PLAIN, "bad_body"),
        ("gzip", ZSTD, "bad_body"),
        ("gzip", zlib.compress(PLAIN), "bad_body"),
        ("gzip", GZIP[:-1], "bad_body"),
        ("gzip", GZIP[:-30], "bad_body"),
        ("gzip", GZIP + b"\x00", "bad_body"),
        ("gzip", GZIP + GZIP, "bad_body"),
        ("gzip", gzip.compress(b"a" * (DECODED_MAX_BYTES + 1)), "too_large"),
        ("identity", b"", "bad_body"),
        ("identity", ZSTD, "bad_body"),
        ("identity", PLAIN + b"x", "bad_body"),
        ("identity", encode_rows("result", results(39)), "bad_body"),
        ("identity", encode_rows("alarm", records(40)), "bad_body"),
    ],
)
def test_a_body_that_does_not_open_is_refused(encoding: Encoding, body: bytes, code: str) -> None:
    assert refusal_of(open_body, *with_body(body, encoding)) == code


def test_a_frame_of_another_make_is_taken() -> None:
    assert exactly(open_body(*with_body(ZSTD, "zstd"))[0]) == exactly(results(40))
    assert exactly(open_body(*with_body(GZIP, "gzip"))[0]) == exactly(results(40))


def summaries(row: bytes, count: int) -> bytes:
    return b'{"reason":"budget","since_ms":1,"summary":[%s]}' % b",".join([row] * count)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "bad_body"),
        (b'{"reason":"budget"}', "bad_body"),
        (b'{"reason":"","since_ms":1}', "bad_body"),
        (b'{"reason":"%s","since_ms":1}' % (b"a" * 201), "bad_body"),
        (b'{"reason":"budget","since_ms":1.5}', "bad_body"),
        (b'{"reason":"budget","since_ms":%d}' % 2**63, "bad_body"),
        (b'{"reason":"budget","since_ms":%d}' % -(2**63 + 1), "bad_body"),
        (b'{"reason":"budget","since_ms":1,"summary":[[1]]}', "bad_body"),
        (b'{"reason":"budget","since_ms":1,"summary":[["a","b",0,1,0,[1,null,0,0],{},{}]]}', "bad_body"),
        (b'{"reason":"budget","since_ms":1,"summary":[["a","b",0,1,0,null,{"k":[%d,0,0,0]},{}]]}' % 2**64, "bad_body"),
        (b'{"reason":"budget","since_ms":1,"summary":[["a","b",0,1,0,null,{},{"l":%d}]]}' % 2**64, "bad_body"),
        (b'{"reason":"budget","since_ms":1,"summary":[["a","b",0,1,0,[%d,0,0,0],{},{}]]}' % 2**64, "bad_body"),
        (
            b'{"reason":"b","since_ms":1,"summary":[%s]}' % b",".join([b'["","",0,0,0,null,{},{}]'] * 20_001),
            "too_large",
        ),
        (b'{"reason":"b","since_ms":1,"summary":[%s]}' % b",".join([b"[]"] * (ENTRIES_MAX + 2)), "too_large"),
        (b"[" * 100_000, "bad_body"),
        (PLAIN, "bad_body"),
    ],
)
def test_a_tombstone_that_does_not_fit_is_refused(body: bytes, code: str) -> None:
    assert refusal_of(open_body, *with_body(zstandard.compress(body), "zstd", kind="lost")) == code


# --- messages ---------------------------------------------------------------------------------------------------

HELLO = Hello(
    v=VERSION,
    site="lyon",
    gateway="gw-01",
    instance="i-1",
    version="0.2.0",
    epoch="epoch-2",
    extents=(StreamExtent("epoch-1", "result", 1, 500), StreamExtent("epoch-2", "result", 500, NUMBER_MAX + 1)),
    probes=(Probe("epoch-2", 500, "boot-1", 42),),
)
HELLO_ACK = HelloAck(
    v=VERSION,
    receiver="hub-1",
    site="lyon",
    gateway="gw-01",
    instance="i-1",
    status="ok",
    cursors=(Cursor("epoch-1", "result", 0, ((3, 5), (7, 7))), Cursor("epoch-2", "alarm", NUMBER_MAX)),
    forks=(Fork("epoch-2", 7),),
    spread_s=30,
)
ACK = Ack(
    v=VERSION,
    receiver="hub-1",
    site="lyon",
    gateway="gw-01",
    epoch="epoch-1",
    stream="result",
    first=11,
    last=50,
    status="ok",
    upto=50,
    ranges=((60, 70), (72, 80)),
    bad=(BadRow(12, "not a row"),),
)
DECODERS: dict[str, tuple[Any, Any]] = {
    "Hello": (HELLO, decode_hello),
    "HelloAck": (HELLO_ACK, decode_hello_ack),
    "Ack": (ACK, decode_ack),
}


@pytest.mark.parametrize(("message", "decode"), DECODERS.values(), ids=DECODERS)
def test_a_message_comes_back_as_it_was(message: Any, decode: Any) -> None:
    assert decode(encode_message(message)) == message


@pytest.mark.parametrize(("message", "decode"), DECODERS.values(), ids=DECODERS)
def test_a_message_that_is_too_long_is_refused_unread(message: Any, decode: Any) -> None:
    text = encode_message(message)
    assert decode(text + b" " * (MESSAGE_MAX_BYTES - len(text))) == message
    assert refusal_of(decode, text + b" " * (MESSAGE_MAX_BYTES - len(text) + 1)) == "too_large"


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"\xff", b"[" * 200_000, b'{"v":"edged-sync/1"}', b'"\\ud800"'])
@pytest.mark.parametrize(("_", "decode"), DECODERS.values(), ids=DECODERS)
def test_what_is_no_message_is_refused(_: Any, decode: Any, text: bytes) -> None:
    assert refusal_of(decode, text) == "bad_header"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Hello", {"v": "edged-sync/2"}),
        ("Hello", {"site": "a/b"}),
        ("Hello", {"gateway": ""}),
        ("Hello", {"extents": [["epoch-1", "result", 1, 5]]}),
        ("Hello", {"extents": [{"epoch": "e", "stream": "notice", "base": 1, "next": 5}]}),
        ("Hello", {"extents": [{"epoch": "", "stream": "alarm", "base": 1, "next": 5}]}),
        ("Hello", {"extents": [{"epoch": "e", "stream": "alarm", "base": 0, "next": 5}]}),
        ("Hello", {"extents": [{"epoch": "e", "stream": "alarm", "base": 6, "next": 5}]}),
        ("Hello", {"extents": [{"epoch": "e", "stream": "alarm", "base": 1, "next": NUMBER_MAX + 2}]}),
        ("Hello", {"probes": [{"epoch": "e", "seq": 0, "boot": "b", "mono_ns": 1}]}),
        ("Hello", {"probes": [{"epoch": "e", "seq": NUMBER_MAX + 1, "boot": "b", "mono_ns": 1}]}),
        ("Hello", {"probes": [{"epoch": "e", "seq": 1, "boot": "b", "mono_ns": 2**63}]}),
        ("Hello", {"probes": [{"epoch": "e", "seq": 1, "boot": "b" * 200, "mono_ns": 1}]}),
        ("HelloAck", {"v": ""}),
        ("HelloAck", {"receiver": ""}),
        ("HelloAck", {"status": "fine"}),
        ("HelloAck", {"cursors": [{"epoch": "e", "stream": "alarm", "upto": -1}]}),
        ("HelloAck", {"cursors": [{"epoch": "e", "stream": "alarm", "upto": 9, "ranges": [[9, 12]]}]}),
        ("HelloAck", {"forks": [{"epoch": "e", "seq": 0}]}),
        ("HelloAck", {"retry_ms": -1}),
        ("HelloAck", {"retry_ms": 2**63}),
        ("HelloAck", {"spread_s": -1}),
        ("Ack", {"v": "edged-sync/0"}),
        ("Ack", {"epoch": "\x00"}),
        ("Ack", {"first": 0}),
        ("Ack", {"first": 51}),
        ("Ack", {"last": NUMBER_MAX + 1}),
        ("Ack", {"upto": -1}),
        ("Ack", {"upto": NUMBER_MAX + 1, "ranges": []}),
        ("Ack", {"ranges": [[60, 59]]}),
        ("Ack", {"ranges": [[60, 70], [70, 80]]}),
        ("Ack", {"ranges": [[72, 80], [60, 70]]}),
        ("Ack", {"ranges": [[60, NUMBER_MAX + 1]]}),
        ("Ack", {"ranges": [[60]]}),
        ("Ack", {"retry_ms": -1}),
        ("Ack", {"bad": [{"seq": 0, "reason": ""}]}),
        ("HelloAck", {"cursors": [{"epoch": "", "stream": "alarm", "upto": 9}]}),
        ("Ack", {"bad": [{"seq": "1", "reason": ""}]}),
    ],
)
def test_a_message_that_does_not_fit_is_refused(name: str, changes: dict[str, object]) -> None:
    message, decode = DECODERS[name]
    assert refusal_of(decode, msgspec.json.encode({**msgspec.to_builtins(message), **changes})) == "bad_header"


# --- hostile bytes ----------------------------------------------------------------------------------------------

BATCHES = [sealed(piece, encoding)[1] for piece in (piece_of(), lost_piece()) for encoding in ENCODINGS]


def opened_or_refused(payload: bytes) -> None:
    try:
        header, body = read_header(payload)
        rows, lost = open_body(header, body)
    except Refusal:
        return
    assert (rows is None) == (header.kind == "lost") == (lost is not None)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(payload: bytes) -> None:
    opened_or_refused(payload)


@given(st.sampled_from(BATCHES), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
@settings(max_examples=400)
def test_a_changed_batch_opens_or_is_refused(payload: bytes, place: int, change: bytes) -> None:
    at = place % len(payload)
    opened_or_refused(payload[:at] + change + payload[at + len(change) :])


@given(st.sampled_from(BATCHES[:2]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
@settings(max_examples=400)
def test_a_changed_body_with_the_right_checksum_opens_or_is_refused(payload: bytes, place: int, change: bytes) -> None:
    header, whole = read_header(payload)
    at = place % len(whole)
    body = bytes(whole[:at]) + change + bytes(whole[at + len(change) :])
    changed = msgspec.structs.replace(header, sha256=hashlib.sha256(body).hexdigest())
    opened_or_refused(msgspec.json.encode(changed) + b"\n" + body)


@given(st.sampled_from(BATCHES), st.integers(0, 10**6))
def test_a_batch_that_is_cut_off_is_refused(payload: bytes, place: int) -> None:
    with pytest.raises(Refusal):
        opened(payload[: place % len(payload)])


@given(st.sampled_from(sorted(DECODERS)), st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_a_changed_message_is_read_or_refused(name: str, place: int, change: bytes) -> None:
    message, decode = DECODERS[name]
    text = encode_message(message)
    at = place % len(text)
    try:
        decode(text[:at] + change + text[at + len(change) :])
    except Refusal:
        return
