"""Nodes become columns again. Pure.

What comes from outside is never trusted: every node counts what it expands to, so that a few bytes cannot become a few
gigabytes, and whatever does not fit is `ValueError`.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Iterator
from itertools import accumulate, islice, repeat
from typing import Any

from edged.sync.digits import from_digits
from edged.sync.frame import Frame, gather, spread
from edged.sync.nodes import (
    LEAST,
    MOST,
    Base64,
    Beside,
    ByCall,
    ByGroup,
    Chain,
    Const,
    Decimal,
    Deltas,
    Dicts,
    Digits,
    Float32,
    Float64,
    GroupDeltas,
    Lists,
    Node,
    OfGroup,
    Plain,
    Recent,
    Runs,
    Some,
    Times,
    Tuples,
    Utf8,
    Words,
    ZigZag,
)


def read(node: Node, n: int, frame: Frame) -> list[Any]:
    """The `n` entries that a node stands for. Raises `ValueError`."""
    frame.spend(n)
    return _READ[type(node)](node, n, frame)


def integers(node: Node, n: int, frame: Frame) -> list[int]:
    """The same, all of them integers."""
    values = read(node, n, frame)
    if values and set(map(type, values)) != {int}:
        raise ValueError("expected integers")
    return values


def indices(node: Node, n: int, frame: Frame, below: int) -> list[int]:
    """The same, all of them at least 0 and less than `below`."""
    values = integers(node, n, frame)
    if values and not 0 <= min(values) <= max(values) < below:
        raise ValueError(f"expected integers from 0 to {below - 1}, got {min(values)} to {max(values)}")
    return values


def texts(node: Node, n: int, frame: Frame) -> list[str]:
    """The same, all of them texts."""
    values = read(node, n, frame)
    if values and set(map(type, values)) != {str}:
        raise ValueError("expected texts")
    return values


def floats(node: Node, n: int, frame: Frame) -> list[float]:
    """The same, all of them floats."""
    values = read(node, n, frame)
    if values and set(map(type, values)) != {float}:
        raise ValueError("expected floats")
    return values


def parts(node: Node, n: int, frame: Frame, total: int) -> list[int]:
    """Lengths that add up to `total`."""
    values = indices(node, n, frame, total + 1)
    if sum(values) != total:
        raise ValueError(f"lengths add up to {sum(values)}, expected {total}")
    return values


def _const(node: Const, n: int, frame: Frame) -> list[Any]:
    return [node.value] * n


def _plain(node: Plain, n: int, frame: Frame) -> list[Any]:
    if len(node.values) != n:
        raise ValueError(f"expected {n} entries, got {len(node.values)}")
    return node.values


def _digits(node: Digits, n: int, frame: Frame) -> list[int]:
    values = from_digits(node.text, node.width, n)
    return [node.low + value for value in values] if node.low else values


def _runs(node: Runs, n: int, frame: Frame) -> list[Any]:
    if node.count > n:
        raise ValueError(f"{node.count} runs in {n} entries")
    return spread(read(node.values, node.count, frame), parts(node.lengths, node.count, frame, n))


def _deltas(node: Deltas, n: int, frame: Frame) -> list[int]:
    return list(accumulate(integers(node.rest, n - 1, frame), initial=node.first)) if n else []


def _times(node: Times, n: int, frame: Frame) -> list[int]:
    values = [node.factor * value for value in integers(node.values, n, frame)]
    if values and not LEAST <= min(values) <= max(values) <= MOST:  # times of times must not become endless integers
        raise ValueError("a multiple has more than 64 bits")
    return values


def _zigzag(node: ZigZag, n: int, frame: Frame) -> list[int]:
    return [(value >> 1) ^ -(value & 1) for value in integers(node.values, n, frame)]


def _words(node: Words, n: int, frame: Frame) -> list[Any]:
    return list(map(node.table.__getitem__, indices(node.codes, n, frame, len(node.table))))


def _tuples(node: Tuples, n: int, frame: Frame) -> list[tuple[str, ...]]:
    if sum(node.lengths) != len(node.words):
        raise ValueError(f"{len(node.words)} texts for tuples of altogether {sum(node.lengths)}")
    words = iter(node.words)
    table = [tuple(islice(words, length)) for length in node.lengths]
    return list(map(table.__getitem__, indices(node.codes, n, frame, len(table))))


def _recent(node: Recent, n: int, frame: Frame) -> list[Any]:
    codes = indices(node.codes, n, frame, n)
    if codes.count(0) != node.count:
        raise ValueError(f"{node.count} fresh values for {codes.count(0)} places")
    fresh = iter(read(node.fresh, node.count, frame))
    out: list[Any] = []
    for place, code in enumerate(codes):
        if code > place:
            raise ValueError(f"entry {place} refers to {code} entries before")
        out.append(out[place - code] if code else next(fresh))
    return out


def _some(node: Some, n: int, frame: Frame) -> list[Any]:
    mask = indices(node.mask, n, frame, 2)
    if sum(mask) != node.count:
        raise ValueError(f"{node.count} values for {sum(mask)} places")
    values = iter(read(node.values, node.count, frame))
    return [next(values) if there else None for there in mask]


def _float32(node: Float32, n: int, frame: Frame) -> list[float]:
    bits = indices(node.bits, n, frame, 1 << 32)
    return list(struct.unpack(f"<{n}f", struct.pack(f"<{n}I", *bits)))


def _float64(node: Float64, n: int, frame: Frame) -> list[float]:
    halves = [0] * (2 * n)
    halves[0::2] = indices(node.low, n, frame, 1 << 32)
    halves[1::2] = indices(node.high, n, frame, 1 << 32)
    return list(struct.unpack(f"<{n}d", struct.pack(f"<{2 * n}I", *halves)))


def _decimal(node: Decimal, n: int, frame: Frame) -> list[float]:
    values = integers(node.values, n, frame)
    if values and not -(1 << 62) <= min(values) <= max(values) <= 1 << 62:
        raise ValueError("a decimal has too many digits")
    scale = 10**node.places
    return [value / scale for value in values]


def _by_call(node: ByCall, n: int, frame: Frame) -> list[Any]:
    _require_rows(n, frame)
    return spread(read(node.values, len(frame.call_rows), frame), frame.call_rows)


def _by_group(node: ByGroup, n: int, frame: Frame) -> list[Any]:
    _require_rows(n, frame)
    return gather(read(node.values, n, frame), frame.places)


def _of_group(node: OfGroup, n: int, frame: Frame) -> list[Any]:
    _require_rows(n, frame)
    return list(map(read(node.values, frame.groups, frame).__getitem__, frame.codes))


def _group_deltas(node: GroupDeltas, n: int, frame: Frame) -> list[int]:
    _require_rows(n, frame)
    used = [size for size in frame.sizes if size]
    firsts = integers(node.firsts, len(used), frame)
    rest = iter(integers(node.rest, n - len(used), frame))
    out: list[int] = []
    for first, size in zip(firsts, used, strict=True):
        out += accumulate(islice(rest, size - 1), initial=first)
    return gather(out, frame.places)


def _beside(node: Beside, n: int, frame: Frame) -> list[int]:
    sums = [0] * n
    for name in node.columns:
        sums = list(map(int.__add__, sums, _column(name, n, frame)))
    frame.spend(n * len(node.columns))
    factor, offset, divisor = node.factor, node.offset, node.divisor
    rest = integers(node.rest, n, frame)
    return [(value * factor + offset) // divisor + more for value, more in zip(sums, rest, strict=True)]


def _chain(node: Chain, n: int, frame: Frame) -> list[int]:
    steps = map(int.__add__, _column(node.column, n, frame), integers(node.rest, n - 1, frame))
    return list(accumulate(steps, initial=node.first)) if n else []


def _utf8(node: Utf8, n: int, frame: Frame) -> list[bytes]:
    return [text.encode() for text in texts(node.texts, n, frame)]


def _base64(node: Base64, n: int, frame: Frame) -> list[bytes]:
    return [binascii.a2b_base64(text, strict_mode=True) for text in texts(node.texts, n, frame)]


def _dicts(node: Dicts, n: int, frame: Frame) -> list[Any]:
    codes = indices(node.codes, n, frame, len(node.keys))
    if sum(keys for keys in node.keys if keys > 0) != len(node.names) or len(node.names) != len(node.cells):
        raise ValueError(f"{len(node.cells)} columns for {len(node.names)} names of objects")
    names, cells = iter(node.names), iter(node.cells)
    rows: list[Iterator[Any]] = []
    for shape, keys in enumerate(node.keys):
        count = codes.count(shape)
        frame.take_values(count * max(keys, 0))
        columns = [_cell(cell, count, frame) for cell in islice(cells, max(keys, 0))]
        rows.append(repeat(None) if keys < 0 else _objects(tuple(islice(names, keys)), columns, count))
    return [next(rows[code]) for code in codes]


def _objects(names: tuple[str, ...], columns: list[list[Any]], count: int) -> Iterator[dict[str, Any]]:
    if not names:
        return ({} for _ in range(count))
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _cell(node: Node | Lists, n: int, frame: Frame) -> list[Any]:
    if isinstance(node, Lists):
        return _lists(node, n, frame)
    return floats(node, n, frame)


def _lists(node: Lists, n: int, frame: Frame) -> list[list[float]]:
    frame.take_values(node.count)
    lengths = parts(node.lengths, n, frame, node.count)
    values = iter(floats(node.values, node.count, frame))
    return [list(islice(values, length)) for length in lengths]


def _column(name: str, n: int, frame: Frame) -> list[int]:
    column = frame.columns.get(name)
    if column is None or len(column) != n:
        raise ValueError(f"a column of {n} entries is written beside {name!r}, which is not there")
    return column


def _require_rows(n: int, frame: Frame) -> None:
    if n != frame.n:
        raise ValueError(f"{n} entries are written by groups or calls of {frame.n} rows")


_READ: dict[type, Callable[[Any, int, Frame], list[Any]]] = {
    Const: _const,
    Plain: _plain,
    Digits: _digits,
    Runs: _runs,
    Deltas: _deltas,
    Times: _times,
    ZigZag: _zigzag,
    Words: _words,
    Tuples: _tuples,
    Recent: _recent,
    Some: _some,
    Float32: _float32,
    Float64: _float64,
    Decimal: _decimal,
    ByCall: _by_call,
    ByGroup: _by_group,
    OfGroup: _of_group,
    GroupDeltas: _group_deltas,
    Beside: _beside,
    Chain: _chain,
    Utf8: _utf8,
    Base64: _base64,
    Dicts: _dicts,
}
