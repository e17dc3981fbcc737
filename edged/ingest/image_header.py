"""What the first bytes of an image say: its format and size. Nothing is decoded here, and nothing is believed later on.

A header is read so that an image that would not fit into memory, is cut off, or is no image at all is refused before
any library sees it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from edged.errors import Refused

Format = Literal["jpeg", "png", "raw"]

_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_GRAY_OF_16_BITS = b"\x10\x00"  # depth and kind; of colours with 16 bits the upper 8 are taken
_PNG_HEADER_BYTES = 33  # signature and the chunk IHDR
_MAX_SEGMENTS = 512  # of a JPEG before its frame header; a real one has about ten
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; three of the numbers mean something else
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_END_OF_HEADERS = (0xD9, 0xDA)  # EOI, SOS


class Header(NamedTuple):
    """Width and height in pixels."""

    format: Format
    width: int
    height: int


def read_header(payload: bytes) -> Header:
    """The header of a JPEG or PNG image.

    Raises:
        Refused: `bad_image`.
    """
    if payload.startswith(_JPEG):
        return _jpeg(payload)
    if payload.startswith(_PNG):
        return _png(payload)
    raise _bad(f"expected a JPEG or PNG image, got bytes that begin with {payload[:8].hex()}")


def _png(payload: bytes) -> Header:
    if len(payload) < _PNG_HEADER_BYTES or payload[12:16] != b"IHDR":
        raise _bad("a PNG image without its header")
    if payload[24:26] == _GRAY_OF_16_BITS:
        raise _bad("a PNG image with gray of 16 bits, which 8 cannot hold")
    if _PNG_END not in payload:
        raise _bad("a PNG image that is cut off")
    return _sized("png", int.from_bytes(payload[16:20], "big"), int.from_bytes(payload[20:24], "big"))


def _jpeg(payload: bytes) -> Header:
    place = 2
    for _ in range(_MAX_SEGMENTS):
        if payload[place : place + 1] != b"\xff":
            break
        marker = payload[place + 1] if place + 1 < len(payload) else 0xD9
        if marker == 0xFF or marker in _ALONE:  # fill bytes may stand before a marker
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _END_OF_HEADERS:
            break
        if marker in _SIZES and place + 9 <= len(payload):
            if payload.rfind(_JPEG_END) < place:
                raise _bad("a JPEG image that is cut off")
            height = int.from_bytes(payload[place + 5 : place + 7], "big")
            return _sized("jpeg", int.from_bytes(payload[place + 7 : place + 9], "big"), height)
        place += 2 + max(2, int.from_bytes(payload[place + 2 : place + 4], "big"))
    raise _bad("a JPEG image without its size")


def _sized(format_: Format, width: int, height: int) -> Header:
    if not width or not height:
        raise _bad(f"an image of {width} × {height} pixels")
    return Header(format_, width, height)


def _bad(detail: str) -> Refused:
    return Refused("bad_image", detail)
