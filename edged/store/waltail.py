"""Does a WAL hold commits that SQLite will not read? Pure; works on the headers alone.

SQLite takes the frames up to the first bad checksum and silently forgets the rest. A torn last transaction is normal
after a power cut: nobody was told that it is durable. A *later* transaction behind the break is not: it began only
after the broken one was on the disk. Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC_LITTLE, MAGIC_BIG = 0x377F0682, 0x377F0683


def header_is_valid(header: bytes) -> bool:
    """Whether the 32 bytes at the start are a WAL header with the right checksum."""
    if len(header) < HEADER_BYTES:
        return False
    magic = int.from_bytes(header[:4], "big")
    if magic not in (MAGIC_LITTLE, MAGIC_BIG):
        return False
    words = struct.unpack((">" if magic == MAGIC_BIG else "<") + "6I", header[:24])
    first = second = 0
    for x, y in zip(words[0::2], words[1::2], strict=True):
        first = (first + x + second) & 0xFFFFFFFF
        second = (second + y + first) & 0xFFFFFFFF
    return struct.unpack(">2I", header[24:32]) == (first, second)


def page_bytes(header: bytes) -> int:
    return int.from_bytes(header[8:12], "big")


def lost_commits(header: bytes, unread_frames: Iterable[bytes]) -> bool:
    """Whether a transaction lies behind a broken one.

    unread_frames: the 24-byte headers of the frames that SQLite did not take, in file order. Frames of an earlier round
    of the WAL have other salts and do not count.
    """
    salts = header[16:24]
    committed = False
    for frame in unread_frames:
        if len(frame) < FRAME_HEADER_BYTES or frame[8:16] != salts:
            continue
        if committed:
            return True
        committed = frame[4:8] != b"\0\0\0\0"  # size of the database after a commit; 0 in the other frames
    return False
