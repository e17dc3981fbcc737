"""What the daemon and the process of a device say to each other: one packet each, msgpack, bounded, never pickled.

A packet is a number (4 bytes, little endian; the answer repeats that of its request) and a message. Arrays travel in
shared memory (`slots`), their places in the message. One request is answered before the next is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from edged.errors import InferenceError, ModelError
from edged.infer.loading import ModelFile
from edged.infer.runtime import LoadOptions, Probe
from edged.messages import ModelInfo

MAX_PACKET_BYTES = 65_536
NUMBER_BYTES = 4
PROTOCOL = 1
_MAX_TEXT_CHARS = 1000
_CODE = re.compile(r"[a-z][a-z0-9_]{0,40}")

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
_Shape = Annotated[tuple[_Size, ...], msgspec.Meta(max_length=16)]


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where one array lies in a slot."""

    name: str
    dtype: str
    shape: _Shape
    offset: _Size


# --- requests ---


class Infer(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """One call. deadline_s: what is left of its time. The answer is `Answer`, or `Failed`."""

    model: int
    deadline_s: float
    inputs: tuple[Place, ...]


class Load(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """Load `file` as number `model`. The answer is `Loaded`, or `Failed`."""

    model: int
    runtime: str
    device: str
    file: ModelFile
    options: LoadOptions


class Unload(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """Close a model; one that is not there is closed. The answer is `Done`."""

    model: int


class Ping(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """Are you there? The answer is `Done`."""


class Look(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """Probe a device. The answer is `Seen`."""

    runtime: str
    device: str


class Prepare(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """Make ready what loading needs. The answer is `Done`, or `Failed`."""

    runtime: str
    device: str
    file: ModelFile
    options: LoadOptions


Request = Infer | Load | Unload | Ping | Look | Prepare


# --- answers ---


class Answer(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """What a call gave."""

    outputs: tuple[Place, ...]


class Loaded(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """exclusive: as the runtime declares for the device."""

    info: ModelInfo
    exclusive: bool


class Done(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """It was done."""


class Seen(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """What a probe found."""

    probe: Probe


class Failed(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """An error, by value: what stands in `ModelError` and `InferenceError`."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class Hello(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """The first packet of a process, number 0."""

    protocol: int


Reply = Answer | Loaded | Done | Seen | Failed | Hello


def _plain(value: object) -> object:
    """Paths are bytes, because a name need not be UTF-8."""
    if isinstance(value, Path):
        return os.fsencode(value)
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} does not travel")


def _rich(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(os.fsdecode(value))
    raise NotImplementedError(f"{kind.__name__} does not travel")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request, dec_hook=_rich)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply, dec_hook=_rich)


class BadPacket(ValueError):
    """Raised when a packet is not what may be sent or received."""


def pack(number: int, message: Request | Reply) -> bytes:
    """One packet. Raises BadPacket when it is too long."""
    packet = number.to_bytes(NUMBER_BYTES, "little") + _encoder.encode(message)
    if len(packet) >= MAX_PACKET_BYTES:
        raise BadPacket(f"a message of {len(packet)} bytes, expected less than {MAX_PACKET_BYTES}")
    return packet


def number_of(packet: memoryview) -> int:
    return int.from_bytes(packet[:NUMBER_BYTES], "little")


def request_of(packet: memoryview) -> Request:
    return _requests.decode(packet[NUMBER_BYTES:])


def reply_of(packet: memoryview, number: int) -> Reply:
    """The answer to request `number`. Raises BadPacket for anything else."""
    if len(packet) >= MAX_PACKET_BYTES:
        raise BadPacket(f"a packet of {len(packet)} bytes or more")
    if number_of(packet) != number:
        raise BadPacket(f"expected the answer to request {number}, got one to {number_of(packet)}")
    try:
        return _replies.decode(packet[NUMBER_BYTES:])
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise BadPacket(f"not a message: {error}") from error


def failed(error: ModelError | InferenceError) -> Failed:
    """An error as it travels, cut to a length that fits."""
    return Failed(error.code, error.message[:_MAX_TEXT_CHARS], error.hint[:_MAX_TEXT_CHARS], error.retryable)


def code_of(failure: Failed, otherwise: str) -> str:
    """Its code, or `otherwise` when it has none that could be a code: codes become labels of metrics."""
    return failure.code if _CODE.fullmatch(failure.code) else otherwise


def summary(probe: Probe) -> Probe:
    """A probe that fits into a packet: vendors have been seen to answer pages."""
    versions: Mapping[str, str] = {str(key)[:100]: str(value)[:100] for key, value in list(probe.versions.items())[:50]}
    return probe._replace(devices=probe.devices[:32], versions=versions, reason=probe.reason[:_MAX_TEXT_CHARS])
