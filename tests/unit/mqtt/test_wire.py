"""Field encodings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ProtocolViolation
from edged.mqtt.wire import MAX_REMAINING_BYTES, blob, decode_length, decode_text, encode_length, text


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (MAX_REMAINING_BYTES, "ffffff7f")],
)
def test_lengths_are_encoded_as_the_specification_shows(value: int, encoded: str) -> None:
    assert encode_length(value).hex() == encoded


@given(st.integers(0, MAX_REMAINING_BYTES), st.binary(max_size=3))
def test_a_length_is_read_back_and_every_part_of_it_is_incomplete(value: int, rest: bytes) -> None:
    encoded = encode_length(value)
    assert decode_length(encoded + rest, 0, len(encoded + rest)) == (value, len(encoded))
    for cut in range(len(encoded)):
        assert decode_length(encoded, 0, cut) == (-1, cut)


@pytest.mark.parametrize("encoded", ["8000", "ff8000", "ffffffff7f", "80808080"])
def test_lengths_too_long_or_longer_than_needed_are_violations(encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    with pytest.raises(ProtocolViolation, match="length"):
        decode_length(raw, 0, len(raw))


def test_text_and_blobs_carry_their_length_in_two_bytes() -> None:
    assert text("aä") == b"\x00\x03a\xc3\xa4"
    assert blob(b"\0\1") == b"\x00\x02\0\1"


def test_text_that_is_not_utf_8_is_a_violation() -> None:
    assert decode_text("ä".encode(), "topic") == "ä"
    with pytest.raises(ProtocolViolation, match="not UTF-8"):
        decode_text(b"\xed\xa0\x80", "topic")
