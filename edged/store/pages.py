"""Journal rows straight from the pages of a database that SQLite refuses to read: no tree, no schema, no header needed.

A leaf page tells by itself which rows it holds; whether a row is what was written, its blobs' checksums tell.
Format: https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import heapq
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.store import waltail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_HEADER_BYTES = 100  # at the start of page 1
LEAF = 13  # type byte of a table's leaf page
INTEGER_BYTES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # serial type -> length; 0: NULL, 8: 0, 9: 1
BLOB, TEXT = 12, 13  # serial types from here on: even is a blob, odd is text
FOUND_MAX = 200_000  # rows of one table that are remembered: about 40 MB
CHAIN_MAX = 1_000_000  # overflow pages of one row


class Place(NamedTuple):
    """Where a row starts."""

    page: int
    offset: int


class Cell(NamedTuple):
    """The head of a row in its leaf page: where the payload starts, how long it is, which row it is."""

    payload_at: int
    payload_bytes: int
    rowid: int


class Malformed(ValueError):
    """The bytes are not what they would have to be; the row is left out."""


class PageFile:
    """A database file with its WAL on top, page by page."""

    def __init__(self, path: Path, fallback_page_bytes: int) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._wal = -1
        self._newer: dict[int, int] = {}
        size = int.from_bytes(os.pread(self._file, 2, 16), "big")
        self.page_bytes = size if size in (512, 1024, 2048, 4096, 8192, 16384, 32768) else fallback_page_bytes
        self.count = os.fstat(self._file).st_size // self.page_bytes
        wal = path.with_name(path.name + "-wal")
        if wal.exists():
            self._wal = os.open(wal, os.O_RDONLY)
            self._overlay()

    def close(self) -> None:
        os.close(self._file)
        if self._wal >= 0:
            os.close(self._wal)

    def page(self, number: int) -> bytes:
        """Content of page `number` (from 1). Raises `Malformed` when there is none."""
        at = self._newer.get(number)
        if at is not None:
            data = os.pread(self._wal, self.page_bytes, at)
        else:
            data = os.pread(self._file, self.page_bytes, max(0, number - 1) * self.page_bytes)
        if len(data) < self.page_bytes or number < 1:
            raise Malformed(f"page {number} is beyond the end")
        return data

    def free(self) -> set[int]:
        """Pages that hold nothing any more, as far as their list can be read; what was deleted still stands in them."""
        found: set[int] = set()
        try:
            trunk = int.from_bytes(self.page(1)[32:36], "big")
            while trunk and trunk not in found:
                found.add(trunk)
                content = self.page(trunk)
                count = min(int.from_bytes(content[4:8], "big"), self.page_bytes // 4 - 2)
                found.update(int.from_bytes(content[at : at + 4], "big") for at in range(8, 8 + 4 * count, 4))
                trunk = int.from_bytes(content[:4], "big")
        except Malformed:
            pass  # the rest counts as used
        return found

    def _overlay(self) -> None:
        header = os.pread(self._wal, waltail.HEADER_BYTES, 0)
        if len(header) < waltail.HEADER_BYTES or waltail.page_bytes(header) != self.page_bytes:
            return
        at = waltail.HEADER_BYTES
        while len(frame := os.pread(self._wal, waltail.FRAME_HEADER_BYTES, at)) == waltail.FRAME_HEADER_BYTES:
            if frame[8:16] == header[16:24]:
                self._newer[int.from_bytes(frame[:4], "big")] = at + waltail.FRAME_HEADER_BYTES
            at += waltail.FRAME_HEADER_BYTES + self.page_bytes
        self.count = max(self.count, *self._newer, 0)


def find_rows(
    pages: PageFile, shapes: dict[str, str], is_late: Callable[[], bool], limit: int = FOUND_MAX
) -> dict[str, dict[int, Place]]:
    """Table -> row number -> place, for every row whose columns have the table's shape.

    Last pages first; free ones after all others: what was deleted must not stand in the way of what was not.
    A shape has one letter per column: n NULL (the row number itself), i integer, t text, b blob, o blob or NULL.
    Of more than `limit` rows of a table only those with the highest numbers are kept: memory stays bounded.
    """
    found: dict[str, dict[int, Place]] = {table: {} for table in shapes}
    free = pages.free()
    used = (number for number in range(pages.count, 0, -1) if number not in free)
    for number in chain(used, sorted(free, reverse=True)):
        if is_late():
            break
        try:
            for offset, cell, types in _leaf_rows(pages.page(number), FILE_HEADER_BYTES if number == 1 else 0):
                for table, shape in shapes.items():
                    if _fits(types, shape):
                        found[table].setdefault(cell.rowid, Place(number, offset))
                        if len(found[table]) >= 2 * limit:
                            found[table] = _newest(found[table], limit)
        except (Malformed, IndexError):
            continue  # the rest of this page cannot be told apart
    return {table: _newest(places, limit) for table, places in found.items()}


def _newest(places: dict[int, Place], limit: int) -> dict[int, Place]:
    return {rowid: places[rowid] for rowid in heapq.nlargest(limit, places)} if len(places) > limit else places


def _leaf_rows(page: bytes, start: int) -> Iterator[tuple[int, Cell, list[int]]]:
    """(offset, head, column types) of each row in a leaf page; nothing for any other page."""
    if page[start] != LEAF:
        return
    for index in range(int.from_bytes(page[start + 3 : start + 5], "big")):
        at = start + 8 + 2 * index
        offset = int.from_bytes(page[at : at + 2], "big")
        cell = _cell(page, offset)
        yield offset, cell, _serial_types(page, cell.payload_at)[1]


def read_row(pages: PageFile, place: Place) -> tuple[int | bytes | str | None, ...]:
    """All values of one row, the row number in place of its NULL. Raises `Malformed`."""
    try:
        cell = _cell(pages.page(place.page), place.offset)
        payload = _payload(pages, place, cell)
        at, types = _serial_types(payload, 0)
        values: list[int | bytes | str | None] = []
        for kind in types:
            length = INTEGER_BYTES.get(kind, (kind - BLOB) // 2)
            values.append(_value(kind, payload[at : at + length]))
            at += length
    except (IndexError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error
    if at != len(payload):
        raise Malformed(f"row {cell.rowid}: {at} bytes described, {len(payload)} there")
    return (cell.rowid, *values[1:])


def _payload(pages: PageFile, place: Place, cell: Cell) -> bytes:
    """The row's bytes: what stands in the leaf page, then the chain of overflow pages."""
    page = pages.page(place.page)
    usable = pages.page_bytes
    local = _local_bytes(cell.payload_bytes, usable)
    data = page[cell.payload_at : cell.payload_at + local]
    if local == cell.payload_bytes:
        return data
    parts, missing = [data], cell.payload_bytes - local
    following = int.from_bytes(page[cell.payload_at + local : cell.payload_at + local + 4], "big")
    for _ in range(min(CHAIN_MAX, missing // (usable - 4) + 1)):
        if not missing:
            break
        content = pages.page(following)
        parts.append(content[4 : 4 + missing])
        missing -= len(parts[-1])
        following = int.from_bytes(content[:4], "big")
    if missing:
        raise Malformed(f"row {cell.rowid}: its chain of pages ends early")
    return b"".join(parts)


def _local_bytes(payload_bytes: int, usable: int) -> int:
    """How much of a payload stands in the leaf page itself."""
    largest = usable - 35
    if payload_bytes <= largest:
        return payload_bytes
    least = (usable - 12) * 32 // 255 - 23
    fitting = least + (payload_bytes - least) % (usable - 4)
    return fitting if fitting <= largest else least


def _cell(page: bytes, offset: int) -> Cell:
    payload_bytes, at = _varint(page, offset)
    rowid, at = _varint(page, at)
    return Cell(at, payload_bytes, rowid)


def _serial_types(data: bytes, at: int) -> tuple[int, list[int]]:
    """(where the values begin, type of each value) of a record that starts at `at`."""
    header_bytes, position = _varint(data, at)
    end = at + header_bytes
    if end > len(data):
        raise Malformed("the record's header is longer than its page")
    types = []
    while position < end:
        kind, position = _varint(data, position)
        types.append(kind)
    return end, types


def _fits(types: list[int], shape: str) -> bool:
    return len(types) == len(shape) and all(_KINDS[letter](kind) for kind, letter in zip(types, shape, strict=True))


_KINDS: dict[str, Callable[[int], bool]] = {
    "n": lambda kind: kind == 0,
    "i": lambda kind: kind in INTEGER_BYTES and kind != 0,
    "t": lambda kind: kind >= TEXT and kind % 2 == 1,
    "b": lambda kind: kind >= BLOB and kind % 2 == 0,
    "o": lambda kind: kind == 0 or (kind >= BLOB and kind % 2 == 0),
}


def _value(kind: int, data: bytes) -> int | bytes | str | None:
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    if kind in INTEGER_BYTES:
        return int.from_bytes(data, "big", signed=True)
    return data if kind % 2 == 0 else data.decode()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where the next thing starts). Big-endian groups of 7 bits, the ninth byte whole."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9
