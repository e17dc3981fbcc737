"""Batches and messages of `edged-sync/1` as bytes, and back. Pure; whatever comes from the other side is checked here.

A batch is one line of JSON (`BatchHeader`), a newline, and the body: columns of rows, or `Lost`, compressed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec
import zstandard

from edged.errors import BugError, EdgedError
from edged.messages import RecordColumns
from edged.sync.columns import decode_rows, encode_rows, require_few_entries
from edged.sync.nodes import LEAST, MOST
from edged.sync.plans import Columns
from edged.sync.protocol import (
    BATCH_ROWS_MAX,
    BODY_MAX_BYTES,
    DECODED_MAX_BYTES,
    HEADER_MAX_BYTES,
    REASON_MAX_CHARS,
    VERSION,
    Ack,
    BatchHeader,
    Encoding,
    Hello,
    HelloAck,
    Lost,
    Range,
)

if TYPE_CHECKING:
    from edged.sync.piece import Piece

MESSAGE_MAX_BYTES = 262_144  # of `Hello`, `HelloAck` and `Ack`
NUMBER_MAX = 2**53  # what every JSON reader and every database keeps exactly
NAME_MAX_CHARS = 128  # of a site, a gateway, an epoch, a boot, a receiver
SUMMARY_ROWS_MAX = 20_000
ZSTD_LEVEL = 3
_GZIP = 31  # zlib's number for a gzip wrapper

_NOT_IN_A_NAME = frozenset("/+#") | frozenset(map(chr, range(32))) | {"\x7f"}

Message = Hello | HelloAck | Ack
M = TypeVar("M", Hello, HelloAck, Ack)


class Refusal(EdgedError):
    """Raised for bytes that are not what the protocol promises; `code` is one of docs/reference/sync.md."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


# --- batches ----------------------------------------------------------------------------------------------------


def seal(piece: Piece, *, site: str, gateway: str, encoding: Encoding = "zstd") -> tuple[BatchHeader, bytes]:
    """The batch as it travels; the same piece gives the same bytes.

    A tombstone always travels: a summary that is too long for a batch, or not finite, stays behind.
    Raises `Refusal` (`too_large`) when a bound of the protocol is exceeded: send fewer rows at once.
    """
    body = _body_of_rows(piece, encoding) if piece.rows is not None else _body_of_lost(piece, encoding)
    header = BatchHeader(
        v=VERSION,
        site=site,
        gateway=gateway,
        epoch=piece.epoch,
        stream=piece.stream,
        kind="lost" if piece.rows is None else "rows",
        first=piece.first,
        last=piece.last,
        n=piece.last - piece.first + 1,
        base=piece.base,
        encoding=encoding,
        sha256=hashlib.sha256(body).hexdigest(),
        boot=piece.boot,
        clock=piece.clock,
    )
    return header, msgspec.json.encode(header) + b"\n" + body


def _body_of_rows(piece: Piece, encoding: Encoding) -> bytes:
    assert piece.rows is not None
    n = piece.last - piece.first + 1
    if n > BATCH_ROWS_MAX:
        raise Refusal("too_large", f"{n} rows, at most {BATCH_ROWS_MAX} are allowed")
    if len(piece.rows.boot if isinstance(piece.rows, RecordColumns) else piece.rows.ts) != n:
        raise BugError(f"sealing {piece.stream} {piece.first}-{piece.last}: not so many rows")
    try:
        plain = encode_rows(piece.stream, piece.rows)
    except ValueError as error:
        raise Refusal("too_large", str(error)) from None
    return _compress(plain, encoding)


def _body_of_lost(piece: Piece, encoding: Encoding) -> bytes:
    if piece.lost is None:
        raise BugError(f"sealing {piece.stream} {piece.first}-{piece.last}: neither rows nor the reason why not")
    plain = msgspec.json.encode(piece.lost)
    try:
        _lost(plain)
        return _compress(plain, encoding)
    except Refusal:
        return _compress(msgspec.json.encode(Lost(reason=piece.lost.reason, since_ms=piece.lost.since_ms)), encoding)


def read_header(payload: bytes) -> tuple[BatchHeader, memoryview]:
    """The header of a batch, checked, and its body, which is not looked at.

    Raises `Refusal`: `too_large`, `bad_header`, `before_base`.
    """
    end = payload.find(b"\n", 0, HEADER_MAX_BYTES + 1)
    if end < 0:
        raise Refusal("bad_header", f"no line of at most {HEADER_MAX_BYTES} bytes at the beginning")
    if len(payload) - end - 1 > BODY_MAX_BYTES:
        raise Refusal("too_large", f"a body of {len(payload) - end - 1} bytes, at most {BODY_MAX_BYTES} are allowed")
    header = _decoded(BatchHeader, payload[:end], "bad_header")
    _check_header(header)
    return header, memoryview(payload)[end + 1 :]


def _check_header(header: BatchHeader) -> None:
    _check_version(header.v)
    _check_names(header.site, header.gateway, header.epoch)
    _check_names(header.boot, header.clock, least=0)
    first, last, n, base = header.first, header.last, header.n, header.base
    if base < 1 or not 1 <= first <= last <= NUMBER_MAX or n != last - first + 1:
        raise Refusal("bad_header", f"numbers do not fit: base {base}, first {first}, last {last}, n {n}")
    if first < base:
        raise Refusal("before_base", f"number {first} is before the stream's first, {base}")
    if header.kind == "rows" and header.n > BATCH_ROWS_MAX:
        raise Refusal("too_large", f"{header.n} rows, at most {BATCH_ROWS_MAX} are allowed")


def open_body(header: BatchHeader, body: bytes | memoryview) -> tuple[Columns | None, Lost | None]:
    """The rows of a batch, or why there are none: exactly one of both.

    header: from `read_header`. Raises `Refusal`: `bad_checksum`, `too_large`, `bad_body`.
    """
    if len(body) > BODY_MAX_BYTES:
        raise Refusal("too_large", f"a body of {len(body)} bytes, at most {BODY_MAX_BYTES} are allowed")
    found = hashlib.sha256(body).hexdigest()
    if found != header.sha256:
        raise Refusal("bad_checksum", f"the header says {header.sha256[:64]!r}, the body has {found}")
    plain = _decompress(bytes(body), header.encoding)
    if header.kind == "lost":
        return None, _lost(plain)
    try:
        return decode_rows(header.stream, plain, header.n), None
    except ValueError as error:
        raise Refusal("bad_body", str(error)) from None


def _lost(plain: bytes) -> Lost:
    try:
        require_few_entries(plain)
    except ValueError as error:
        raise Refusal("too_large", str(error)) from None
    lost = _decoded(Lost, plain, "bad_body")
    if len(lost.summary) > SUMMARY_ROWS_MAX:
        raise Refusal("too_large", f"a summary of {len(lost.summary)} rows, at most {SUMMARY_ROWS_MAX} are allowed")
    if not 1 <= len(lost.reason) <= REASON_MAX_CHARS:
        raise Refusal("bad_body", f"a reason of {len(lost.reason)} characters, expected 1 to {REASON_MAX_CHARS}")
    numbers = [lost.since_ms, lost.interval_s]
    for row in lost.summary:
        numbers += (row.start_ms, row.n, row.worst, *row.labels.values(), *(each[0] for each in row.values.values()))
    numbers += [row.score[0] for row in lost.summary if row.score is not None]
    if min(numbers) < LEAST or max(numbers) > MOST:
        raise Refusal("bad_body", "an integer has more than 64 bits")
    return lost


# --- compression ------------------------------------------------------------------------------------------------


def _compress(plain: bytes, encoding: Encoding) -> bytes:
    if len(plain) > DECODED_MAX_BYTES:
        raise Refusal("too_large", f"{len(plain)} bytes before compression, at most {DECODED_MAX_BYTES} are allowed")
    body = _COMPRESS[encoding](plain)
    if len(body) > BODY_MAX_BYTES:
        raise Refusal("too_large", f"a body of {len(body)} bytes, at most {BODY_MAX_BYTES} may travel")
    return body


def _to_zstd(plain: bytes) -> bytes:
    # A context of its own takes 8 µs, which is nothing beside a batch; one that is kept would not be thread-safe.
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(plain)


def _to_gzip(plain: bytes) -> bytes:
    packer = zlib.compressobj(6, wbits=_GZIP)  # writes no time: the same rows give the same bytes
    return packer.compress(plain) + packer.flush()


def _decompress(body: bytes, encoding: Encoding) -> bytes:
    try:
        plain = _EXPAND[encoding](body)
    except (zstandard.ZstdError, zlib.error) as error:
        raise Refusal("bad_body", f"not {encoding}: {error}") from None
    if len(plain) > DECODED_MAX_BYTES:
        raise _bomb()
    return plain


def _from_zstd(body: bytes) -> bytes:
    size = zstandard.frame_content_size(body)  # -1 when the frame does not say
    if size > DECODED_MAX_BYTES:
        raise _bomb()
    if size < 0:
        raise Refusal("bad_body", "the frame does not announce its size")
    expander = zstandard.ZstdDecompressor(max_window_size=DECODED_MAX_BYTES)
    return expander.decompress(body, allow_extra_data=False)


def _from_gzip(body: bytes) -> bytes:
    expander = zlib.decompressobj(_GZIP)
    plain = expander.decompress(body, DECODED_MAX_BYTES + 1)
    if len(plain) <= DECODED_MAX_BYTES and (not expander.eof or expander.unused_data):
        raise zlib.error("cut short" if not expander.eof else "something follows its end")
    return plain


def _bomb() -> Refusal:
    return Refusal("too_large", f"decompressed it has more than {DECODED_MAX_BYTES} bytes")


_COMPRESS: dict[Encoding, Callable[[bytes], bytes]] = {"zstd": _to_zstd, "gzip": _to_gzip, "identity": bytes}
_EXPAND: dict[Encoding, Callable[[bytes], bytes]] = {"zstd": _from_zstd, "gzip": _from_gzip, "identity": bytes}


# --- messages ---------------------------------------------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    return msgspec.json.encode(message)


def decode_hello(payload: bytes) -> Hello:
    """Raises `Refusal`: `too_large`, `bad_header`."""
    hello = _message(Hello, payload)
    _check_version(hello.v)
    _check_names(hello.site, hello.gateway, hello.epoch, hello.instance, hello.version)
    for extent in hello.extents:
        _check_names(extent.epoch)
        if not 1 <= extent.base <= extent.next <= NUMBER_MAX + 1:
            raise Refusal("bad_header", f"{extent.stream}: base {extent.base} and next {extent.next} do not fit")
    for probe in hello.probes:
        _check_names(probe.epoch, probe.boot)
        _check_numbers(1, probe.seq)
        if not LEAST <= probe.mono_ns <= MOST:
            raise Refusal("bad_header", "a probe's clock has more than 64 bits")
    return hello


def decode_hello_ack(payload: bytes) -> HelloAck:
    """Raises `Refusal`: `too_large`, `bad_header`."""
    answer = _message(HelloAck, payload)
    _check_version(answer.v)
    _check_names(answer.receiver, answer.site, answer.gateway)
    for cursor in answer.cursors:
        _check_names(cursor.epoch)
        _check_ranges(cursor.upto, cursor.ranges)
    _check_numbers(1, *(fork.seq for fork in answer.forks))
    _check_numbers(0, answer.retry_ms, answer.spread_s)
    return answer


def decode_ack(payload: bytes) -> Ack:
    """Raises `Refusal`: `too_large`, `bad_header`."""
    ack = _message(Ack, payload)
    _check_version(ack.v)
    _check_names(ack.receiver, ack.site, ack.gateway, ack.epoch)
    _check_ranges(ack.upto, ack.ranges)
    _check_numbers(1, ack.first)
    _check_numbers(ack.first, ack.last)
    _check_numbers(1, *(row.seq for row in ack.bad))
    _check_numbers(0, ack.retry_ms)
    return ack


def _message(kind: type[M], payload: bytes) -> M:
    if len(payload) > MESSAGE_MAX_BYTES:
        raise Refusal("too_large", f"{kind.__name__} of {len(payload)} bytes, at most {MESSAGE_MAX_BYTES} are allowed")
    return _decoded(kind, payload, "bad_header")


T = TypeVar("T")


def _decoded(kind: type[T], text: bytes, code: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(code, f"not a {kind.__name__}: {error}") from None


def _check_version(version: str) -> None:
    if version != VERSION:
        raise Refusal("bad_header", f"version {version[:NAME_MAX_CHARS]!r}, expected {VERSION!r}")


def _check_names(*names: str, least: int = 1) -> None:
    for name in names:
        if not least <= len(name) <= NAME_MAX_CHARS or not _NOT_IN_A_NAME.isdisjoint(name):
            raise Refusal("bad_header", f"{name[:NAME_MAX_CHARS]!r} is not a name")


def _check_numbers(least: int, *numbers: int) -> None:
    for number in numbers:
        if not least <= number <= NUMBER_MAX:
            raise Refusal("bad_header", f"expected a number from {least} to {NUMBER_MAX}, got {number}")


def _check_ranges(upto: int, ranges: tuple[Range, ...]) -> None:
    previous = upto
    for first, last in ranges:
        if not previous < first <= last:
            raise Refusal("bad_header", f"ranges are not in order: {first}-{last} after {previous}")
        previous = last
    if not 0 <= upto <= previous <= NUMBER_MAX:
        raise Refusal("bad_header", f"home up to {upto}, then to {previous}")
