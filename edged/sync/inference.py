"""`edged-infer/1`: a gateway asks the hub to compute, the hub answers. Bytes and back; pure, and nothing is trusted.

A message is one line of JSON (`Question` or `Answer`), a newline, and the bytes of its tensors one after the other.
What a response topic and correlation data say as MQTT 5 properties stands in the line, too.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from edged.sync.envelope import NAME_MAX_CHARS, Refusal

VERSION = "edged-infer/1"
MESSAGE_MAX_BYTES = 1_900_000  # below the packet limits that brokers have by default
HEADER_MAX_BYTES = 16_384
TENSOR_MAX_BYTES = 16_777_216  # of one message, unpacked
TENSORS_MAX = 16
AXES_MAX = 8
DETAIL_MAX_CHARS = 300
TOPIC_MAX_CHARS = 512
WITHIN_MAX_MS = 60_000
DEFLATE_LEVEL = 1  # zeros behind a ReLU pack well at once; more effort costs more time than it saves on the line

ITEM_BYTES = {
    "float32": 4, "float64": 8, "float16": 2, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
}  # fmt: skip
FLOATS = frozenset({"float16", "float32", "float64"})
REFUSALS = {
    "bad_message": "the message is not what the protocol promises",
    "too_large": "the message, its tensors or the answer are larger than allowed",
    "foreign_gateway": "topic and header name different gateways, or one that this hub does not serve",
    "unknown_model": "no model file here has this digest",
    "model_unusable": "the model file is here and cannot be loaded",
    "wrong_tensors": "names, types or shapes are not those of the model's inputs",
    "busy": "as many questions wait as may",
    "expired": "the time of the question was over before its turn came",
    "infer_failed": "the model failed on these tensors",
}
"""Why a hub does not answer a question with tensors: code → meaning."""

Coding = Literal["plain", "u8"]
Packing = Literal["none", "zlib"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")


class TensorHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor as it travels; `dtype` is what it was and becomes again.

    coding: `plain` little-endian numbers of dtype; `u8` one byte each, real = (byte − zero_point) × scale.
    packing: of these bytes. bytes: as they stand in the message.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    coding: Coding = "plain"
    scale: float = 1.0
    zero_point: int = 0
    packing: Packing = "none"


class Question(msgspec.Struct, frozen=True):
    """What the model with this digest says to these tensors.

    id: 32 hex digits, the correlation data. model: SHA-256 of the model file. answer_to: the topic of the answer, below
    the gateway's own. within_ms: what is left of the deadline. sha256: of the bytes behind the line.
    """

    v: str
    site: str
    gateway: str
    id: str
    model: str
    answer_to: str
    within_ms: int
    sha256: str
    tensors: tuple[TensorHeader, ...]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outputs, or a refusal. queue_ms, infer_ms: where the time went at the hub."""

    v: str
    id: str
    model: str
    status: Literal["ok", "refused"]
    sha256: str
    tensors: tuple[TensorHeader, ...] = ()
    reason: str = ""
    detail: str = ""
    queue_ms: float = 0.0
    infer_ms: float = 0.0


class Packed(NamedTuple):
    """A tensor ready to travel, or as it came: `data` as its header says."""

    header: TensorHeader
    data: bytes


H = TypeVar("H", Question, Answer)


# --- writing ----------------------------------------------------------------------------------------------------


def pack(name: str, dtype: str, shape: tuple[int, ...], data: bytes, affine: tuple[float, int] | None = None) -> Packed:
    """A tensor from its bytes: those of dtype, or with (scale, zero point) one byte each. Deflated where that helps."""
    squeezed = zlib.compress(data, DEFLATE_LEVEL)
    smaller = len(squeezed) < 0.95 * len(data)  # else unpacking is work for nothing
    sent = squeezed if smaller else data
    scale, zero_point = affine or (1.0, 0)
    header = TensorHeader(
        name=name,
        dtype=dtype,
        shape=shape,
        bytes=len(sent),
        coding="plain" if affine is None else "u8",
        scale=scale,
        zero_point=zero_point,
        packing="zlib" if smaller else "none",
    )
    return Packed(header, sent)


def body_of(tensors: Sequence[Packed]) -> bytes:
    return b"".join(tensor.data for tensor in tensors)


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def encode(header: Question | Answer, body: bytes) -> bytes:
    """The message. Raises `Refusal` (`too_large`)."""
    message = msgspec.json.encode(header) + b"\n" + body
    if len(message) > MESSAGE_MAX_BYTES:
        raise Refusal("too_large", f"{len(message)} bytes, at most {MESSAGE_MAX_BYTES} travel")
    return message


def refusal(question_id: str, model: str, reason: str, detail: str) -> Answer:
    """The answer that says why there is none."""
    return Answer(VERSION, question_id, model, "refused", digest_of(b""), (), reason, detail[:DETAIL_MAX_CHARS])


# --- reading ----------------------------------------------------------------------------------------------------


def decode_question(message: bytes) -> tuple[Question, tuple[Packed, ...]]:
    """The question and its tensors, still packed. Raises `Refusal`: `bad_message`, `too_large`."""
    question = question_line(message)
    return question, _tensors(question, _body(message, question))


def question_line(message: bytes) -> Question:
    """What a question is about, without a look at its tensors. Raises `Refusal`: `bad_message`, `too_large`."""
    question = _line(message, Question)
    for name in (question.site, question.gateway):
        _require(0 < len(name) <= NAME_MAX_CHARS, "site and gateway are names")
    _require(len(question.answer_to) <= TOPIC_MAX_CHARS, "answer_to is a topic")
    _require(0 < question.within_ms <= WITHIN_MAX_MS, f"within_ms is 1 to {WITHIN_MAX_MS}")
    return question


def decode_answer(message: bytes) -> tuple[Answer, tuple[Packed, ...]]:
    """The answer and its tensors, still packed. Raises `Refusal`: `bad_message`, `too_large`."""
    answer = _line(message, Answer)
    return answer, _tensors(answer, _body(message, answer))


def unpack(tensor: Packed) -> bytes:
    """The bytes as `coding` says, exactly as many as the shape wants. Raises `Refusal` (`bad_message`)."""
    wanted = _plain_bytes(tensor.header)
    if tensor.header.packing == "none":
        _require(len(tensor.data) == wanted, f"tensor {tensor.header.name}: {len(tensor.data)} bytes, not {wanted}")
        return tensor.data
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(tensor.data, wanted + 1)
    except zlib.error as error:
        raise Refusal("bad_message", f"tensor {tensor.header.name}: {error}") from None
    whole = len(data) == wanted and inflater.eof and not inflater.unused_data
    _require(whole, f"tensor {tensor.header.name} does not unpack to {wanted} bytes")
    return data


def _line(message: bytes, kind: type[H]) -> H:
    if len(message) > MESSAGE_MAX_BYTES:
        raise Refusal("too_large", f"{len(message)} bytes, at most {MESSAGE_MAX_BYTES} are read")
    line, newline, _ = message[: HEADER_MAX_BYTES + 1].partition(b"\n")
    _require(bool(newline), f"the first line is longer than {HEADER_MAX_BYTES} bytes, or there is only one")
    try:
        header = msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal("bad_message", str(error)) from None
    _require(header.v == VERSION, f"v is {VERSION}")
    _require(_ID.fullmatch(header.id) is not None, "id has 32 hex digits")
    _require(_DIGEST.fullmatch(header.model) is not None, "model is a SHA-256")
    return header


def _body(message: bytes, header: Question | Answer) -> bytes:
    body = message.partition(b"\n")[2]
    _require(digest_of(body) == header.sha256, "the bytes are not those that the header is about")
    return body


def _tensors(header: Question | Answer, body: bytes) -> tuple[Packed, ...]:
    _require(len(header.tensors) <= TENSORS_MAX, f"at most {TENSORS_MAX} tensors")
    _require(len({tensor.name for tensor in header.tensors}) == len(header.tensors), "a tensor stands there twice")
    found, at, unpacked = [], 0, 0
    for tensor in header.tensors:
        _check(tensor)
        unpacked += max(_plain_bytes(tensor), math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype])
        if unpacked > TENSOR_MAX_BYTES:
            raise Refusal("too_large", f"the tensors unpack to more than {TENSOR_MAX_BYTES} bytes")
        found.append(Packed(tensor, body[at : at + tensor.bytes]))
        at += tensor.bytes
    _require(at == len(body), f"{len(body)} bytes of tensors, the header is about {at}")
    return tuple(found)


def _check(tensor: TensorHeader) -> None:
    name = tensor.name
    _require(0 < len(name) <= NAME_MAX_CHARS, "a tensor has a name")
    _require(
        tensor.dtype in ITEM_BYTES, f"tensor {name}: dtype {tensor.dtype[:40]!r} is none of {', '.join(ITEM_BYTES)}"
    )
    _require(len(tensor.shape) <= AXES_MAX, f"tensor {name}: at most {AXES_MAX} axes")
    _require(all(0 < axis <= TENSOR_MAX_BYTES for axis in tensor.shape), f"tensor {name}: an impossible axis")
    _require(0 <= tensor.bytes <= MESSAGE_MAX_BYTES, f"tensor {name}: an impossible number of bytes")
    if tensor.coding == "u8":
        _require(tensor.dtype in FLOATS, f"tensor {name}: only floats are coded as u8")
        _require(math.isfinite(tensor.scale) and tensor.scale > 0, f"tensor {name}: scale is a number above 0")
        _require(0 <= tensor.zero_point <= 255, f"tensor {name}: zero_point is 0 to 255")


def _plain_bytes(tensor: TensorHeader) -> int:
    return math.prod(tensor.shape) * (1 if tensor.coding == "u8" else ITEM_BYTES[tensor.dtype])


def _require(right: bool, words: str) -> None:
    if not right:
        raise Refusal("bad_message", words)
