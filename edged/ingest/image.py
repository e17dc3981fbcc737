"""Image payloads → events. A frame is looked at from outside only; decoding is for the thread of its model.

What the store keeps of a frame is a line of JSON: format, size and digest; the pixels, too, where every frame counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import msgspec

from edged.errors import Refused
from edged.ingest.device import DeviceTemplate
from edged.ingest.event_time import ts_reader
from edged.ingest.image_header import Format, Header, read_header
from edged.ingest.spec import TsUnit

LONGEST_BOOT = 64
LARGEST_SEQ = 2**63 - 1

# (device, ts in Unix ms, seq, boot, the frame as it came, JSON of the event)
ParsedFrame = tuple[str, "int | None", "int | None", "str | None", bytes, bytes]


@dataclass(frozen=True, slots=True)
class RawSize:
    """Raw pixels have no header: what each frame is declared to be."""

    width: int
    height: int
    channels: int


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How to read the frames of one source, and what is refused.

    raw: payloads are pixels without a header; None: JPEG or PNG.
    device: template of `{topic[N]}`. ts_level, seq_level, boot_level: levels of the topic, None: the camera sends none.
    keep: the pixels go into the store, so that a frame can be answered after a restart.
    max_pixels: larger images are refused unread, however small their payload is.
    """

    device: str = "{topic[1]}"
    raw: RawSize | None = None
    ts_level: int | None = None
    seq_level: int | None = None
    boot_level: int | None = None
    ts_unit: TsUnit | None = None
    keep: bool = False
    max_pixels: int = 16_000_000
    max_payload_bytes: int = 1_048_576


class _Frame(msgspec.Struct, omit_defaults=True):
    format: Format
    width: int
    height: int
    size_bytes: int
    sha256: str
    data: bytes = b""  # base64 in JSON


class _Event(msgspec.Struct):
    frame: _Frame


class ImageSource:
    """Decoder of one source of frames.

    Raises:
        ConfigError: the spec contradicts itself.
    """

    def __init__(self, spec: ImageSpec) -> None:
        self._spec = spec
        self._template = DeviceTemplate(spec.device)
        self._ts_ms = ts_reader(spec.ts_unit)

    def parse(self, topic: str, payload: bytes) -> list[ParsedFrame | Refused]:
        """The one event of a message.

        Reasons: `empty`, `too_large`, `bad_image`, `wrong_length`, `bad_ts`, `out_of_range`, `bad_device`.
        """
        try:
            return [self._event(topic, payload)]
        except Refused as refused:
            return [refused]

    def reread(self, topic: str, payload: bytes) -> bytes | None:
        """The frame of a stored event; None when its pixels were not kept, or it is no event of this source."""
        try:
            return _decode(payload).frame.data or None
        except msgspec.DecodeError:
            return None

    def _event(self, topic: str, payload: bytes) -> ParsedFrame:
        header = self._checked(payload)
        device = self._template.name(topic)
        levels = topic.split("/")
        ts, seq, boot = self._ts(levels), self._seq(levels), self._boot(levels)
        frame = _Frame(*header, len(payload), hashlib.sha256(payload).hexdigest())
        if self._spec.keep:
            frame.data = payload
        return device, ts, seq, boot, payload, msgspec.json.encode(_Event(frame))

    def _checked(self, payload: bytes) -> Header:
        spec = self._spec
        if not payload:
            raise Refused("empty", "the payload is empty")
        if len(payload) > spec.max_payload_bytes:
            raise Refused("too_large", f"{len(payload)} bytes, at most {spec.max_payload_bytes} are allowed")
        if spec.raw is not None:
            wanted = spec.raw.width * spec.raw.height * spec.raw.channels
            if len(payload) != wanted:
                raise Refused("wrong_length", f"expected {wanted} bytes of pixels, got {len(payload)}")
            return Header("raw", spec.raw.width, spec.raw.height)
        header = read_header(payload)
        if header.width * header.height > spec.max_pixels:
            size = f"{header.width} × {header.height}"
            raise Refused("too_large", f"an image of {size} pixels, at most {spec.max_pixels} are allowed")
        return header

    def _ts(self, levels: list[str]) -> int | None:
        if self._spec.ts_level is None:
            return None
        text = _level(levels, self._spec.ts_level, "bad_ts")
        raw: int | datetime
        try:
            raw = int(text) if text.isdecimal() and self._spec.ts_unit != "iso" else datetime.fromisoformat(text)
        except ValueError:
            raise Refused("bad_ts", f"level {self._spec.ts_level} of the topic is no time: {text[:64]!r}") from None
        ts = self._ts_ms(raw)
        if ts is None:
            raise Refused("bad_ts", "the event time is before 1970 or after 2200; is ts_unit right?")
        return ts

    def _seq(self, levels: list[str]) -> int | None:
        if self._spec.seq_level is None:
            return None
        text = _level(levels, self._spec.seq_level, "out_of_range")
        if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= LARGEST_SEQ):
            raise Refused("out_of_range", f"level {self._spec.seq_level} of the topic is no sequence: {text[:64]!r}")
        return int(text)

    def _boot(self, levels: list[str]) -> str | None:
        if self._spec.boot_level is None:
            return None
        text = _level(levels, self._spec.boot_level, "out_of_range")
        if not 0 < len(text) <= LONGEST_BOOT:
            raise Refused("out_of_range", f"level {self._spec.boot_level} of the topic is no boot id: {text[:64]!r}")
        return text


def _level(levels: list[str], number: int, reason: str) -> str:
    if not -len(levels) <= number < len(levels):
        raise Refused(reason, f"level {number} of the topic is needed, it has levels 0 to {len(levels) - 1}")
    return levels[number]


_decode = msgspec.json.Decoder(_Event).decode
