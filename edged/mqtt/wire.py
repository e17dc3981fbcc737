"""The field encodings of MQTT: lengths, strings, binary data (MQTT 5, 1.5). Pure."""

from __future__ import annotations

from edged.errors import ProtocolViolation

MAX_REMAINING_BYTES = 268_435_455  # four bytes of seven bits (MQTT 5, 1.5.5)


def encode_length(value: int) -> bytes:
    """Variable byte integer."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_length(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Variable byte integer at `position`: (value, position after it), or (-1, `end`) while it is incomplete."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= end:
            return -1, end
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if not byte and shift:
                raise ProtocolViolation("reading a length: more bytes than its value needs")
            return value, position
    raise ProtocolViolation("reading a length: more than four bytes")


def blob(raw: bytes) -> bytes:
    """Binary data or encoded text with its two-byte length."""
    return len(raw).to_bytes(2, "big") + raw


def text(value: str) -> bytes:
    return blob(value.encode())


def decode_text(raw: bytes, what: str) -> str:
    """Raises ProtocolViolation when `raw` is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolViolation(f"reading {what}: {raw[:80]!r} is not UTF-8: {error.reason}") from None
