"""Which remains in a WAL prove that durable commits are missing."""

from __future__ import annotations

import struct

import pytest

from edged.store.waltail import header_is_valid, lost_commits

SALTS = b"saltsalt"
HEADER = bytes(16) + SALTS + bytes(8)


def frame(commit: bool, salts: bytes = SALTS) -> bytes:
    return struct.pack(">II", 7, 40 if commit else 0) + salts + bytes(8)


def signed(magic: int) -> bytes:
    head = struct.pack(">6I", magic, 3007000, 1024, 0, 11, 12)
    first = second = 0
    words = struct.unpack(("<" if magic == 0x377F0682 else ">") + "6I", head)
    for x, y in zip(words[::2], words[1::2], strict=True):
        first = (first + x + second) % 2**32
        second = (second + y + first) % 2**32
    return head + struct.pack(">II", first, second)


@pytest.mark.parametrize("magic", [0x377F0682, 0x377F0683])
def test_a_header_is_known_by_its_checksum(magic: int) -> None:
    header = signed(magic)
    assert header_is_valid(header)
    assert not header_is_valid(header[:17] + b"\xff" + header[18:])
    assert not header_is_valid(header[:31])
    assert not header_is_valid(b"\0" * 32)


@pytest.mark.parametrize(
    ("frames", "lost"),
    [
        ([], False),
        ([frame(False)], False),
        ([frame(False), frame(True)], False),
        ([frame(False), frame(True), frame(False)], True),
        ([frame(True), frame(True)], True),
        ([frame(True), frame(True, b"oldsalts")], False),
        ([frame(True, b"oldsalts"), frame(True)], False),
        ([frame(True), frame(False)[:10]], False),
    ],
)
def test_only_a_transaction_behind_a_broken_one_proves_a_loss(frames: list[bytes], lost: bool) -> None:
    assert lost_commits(HEADER, frames) is lost
