"""Blobs check themselves: what was not written is never read as an answer."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import StoreCorrupt
from edged.store.segment import PLAIN, ZSTD, Packer, Unpacker, trim_events, trim_results
from tests.unit.store.samples import events, notices, results, unit


@given(st.binary(max_size=5000))
def test_bytes_come_back(raw: bytes) -> None:
    assert Unpacker().unpack_bytes(Packer().pack_bytes(raw)) == raw


def test_small_blobs_are_plain_and_large_ones_compressed_when_that_helps() -> None:
    packer = Packer()
    assert packer.pack_bytes(b"a" * 100)[0] == PLAIN
    assert packer.pack_bytes(b"a" * 1000)[0] == ZSTD
    assert packer.pack_bytes(zstandard.compress(bytes(range(256)) * 4)[:300])[0] == PLAIN


@pytest.mark.parametrize("n", [1, 200])
def test_every_flipped_bit_is_noticed(n: int) -> None:
    packed = Packer().segment(unit(1, n)).events
    assert packed is not None
    unpacker = Unpacker()
    for at in range(0, len(packed), max(1, len(packed) // 60)):
        broken = bytearray(packed)
        broken[at] ^= 1 << at % 8
        with pytest.raises(StoreCorrupt):
            unpacker.events(bytes(broken), n)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_damage_and_nothing_else(raw: bytes) -> None:
    for blob in (raw, b"\1" + raw, b"\2" + raw, b"\2" + zstandard.compress(raw)):
        for decode in (Unpacker().events, Unpacker().results, Unpacker().notices):
            with pytest.raises(StoreCorrupt):
                decode(blob, 3)


def test_a_frame_that_announces_too_much_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(300 * 1024 * 1024))
    with pytest.raises(StoreCorrupt, match="314572800 bytes announced, limit"):
        Unpacker().unpack_bytes(bytes((ZSTD,)) + bomb)


def test_another_number_of_entries_than_the_row_says_is_damage() -> None:
    segment = Packer().segment(unit(1, 4, 1, 4, n_notices=2))
    assert segment.events is not None
    assert segment.results is not None
    assert segment.notices is not None
    unpacker = Unpacker()
    assert unpacker.events(segment.events, 4) == events(1, 4)
    assert unpacker.results(segment.results, 4) == results(1, 4)
    assert unpacker.notices(segment.notices, 2) == notices(2)
    for decode, blob in (
        (unpacker.events, segment.events),
        (unpacker.results, segment.results),
        (unpacker.notices, segment.notices),
    ):
        with pytest.raises(StoreCorrupt, match="expected 3 entries"):
            decode(blob, 3)


def test_trimming_leaves_the_later_entries() -> None:
    assert trim_events(events(1, 10), 4) == events(5, 6)
    assert trim_results(results(1, 10), 4) == results(5, 6)


def test_what_a_unit_does_not_have_takes_no_blob() -> None:
    segment = Packer().segment(unit())
    assert segment[1:] == (None, None, None)
