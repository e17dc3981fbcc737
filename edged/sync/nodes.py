"""How one column of a batch is written: a tree of nodes, each an array that begins with its name. Values only.

A node stands for a list whose length its parent knows.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

LEAST, MOST = -(2**63), 2**63 - 1

Int = Annotated[int, Meta(ge=LEAST, le=MOST)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
Scalar = Int | str | None  # floats are written as the integers that they are made of: exact, and smaller

DIGITS_WIDTH_MAX = 8
VALUES_MAX = 1_000_000  # numbers in the field `values` of all rows of a batch


class Const(msgspec.Struct, array_like=True, frozen=True, tag="const"):
    """Every entry is `value`."""

    value: Scalar


class Plain(msgspec.Struct, array_like=True, frozen=True, tag="plain"):
    """The entries themselves."""

    values: list[Scalar]


class Digits(msgspec.Struct, array_like=True, frozen=True, tag="digits"):
    """Integers low + x. text: the digits of all x to base 64, first all highest ones, and the lowest ones last.

    Digits of one place stand together, because they resemble each other and zstd then finds what they have in common.
    """

    low: Int
    width: Annotated[int, Meta(ge=1, le=DIGITS_WIDTH_MAX)]
    text: str


class Runs(msgspec.Struct, array_like=True, frozen=True, tag="runs"):
    """`count` values, each repeated as often as `lengths` says."""

    count: Count
    values: Node
    lengths: Node


class Deltas(msgspec.Struct, array_like=True, frozen=True, tag="deltas"):
    """Integers: the first, and how much each is more than the one before."""

    first: Int
    rest: Node


class Times(msgspec.Struct, array_like=True, frozen=True, tag="times"):
    """Integers that have a common factor."""

    factor: Int
    values: Node


class ZigZag(msgspec.Struct, array_like=True, frozen=True, tag="zigzag"):
    """Integers 0, -1, 1, -2, ... numbered from 0."""

    values: Node


class Words(msgspec.Struct, array_like=True, frozen=True, tag="words"):
    """Few distinct values, and which of them each entry is."""

    table: list[Scalar]
    codes: Node


class Tuples(msgspec.Struct, array_like=True, frozen=True, tag="tuples"):
    """Few distinct tuples of texts. lengths, words: of the distinct ones, one after the other."""

    lengths: list[Count]
    words: list[str]
    codes: Node


class Recent(msgspec.Struct, array_like=True, frozen=True, tag="recent"):
    """codes: 0 is the next of the `count` fresh values, c the value of c entries before."""

    count: Count
    codes: Node
    fresh: Node


class Some(msgspec.Struct, array_like=True, frozen=True, tag="some"):
    """mask: 1 is the next of the `count` values, 0 is null."""

    count: Count
    mask: Node
    values: Node


class Float32(msgspec.Struct, array_like=True, frozen=True, tag="float32"):
    """Floats that are exactly IEEE 754 single precision, as the integers of their bits."""

    bits: Node


class Float64(msgspec.Struct, array_like=True, frozen=True, tag="float64"):
    """Any floats: the upper and the lower 32 bits of double precision."""

    high: Node
    low: Node


class Decimal(msgspec.Struct, array_like=True, frozen=True, tag="decimal"):
    """Floats: integers divided by 10 ** places."""

    places: Annotated[int, Meta(ge=0, le=9)]
    values: Node


class ByCall(msgspec.Struct, array_like=True, frozen=True, tag="by_call"):
    """The same for all rows of one call: one entry per call."""

    values: Node


class ByGroup(msgspec.Struct, array_like=True, frozen=True, tag="by_group"):
    """Rows in the order of their groups."""

    values: Node


class OfGroup(msgspec.Struct, array_like=True, frozen=True, tag="of_group"):
    """The same for all rows of one group: one entry per group."""

    values: Node


class GroupDeltas(msgspec.Struct, array_like=True, frozen=True, tag="group_deltas"):
    """Integers: the first of each group, and how much the next of the group is more than the one before it."""

    firsts: Node
    rest: Node


class Beside(msgspec.Struct, array_like=True, frozen=True, tag="beside"):
    """Integers (sum of `columns` × factor + offset) // divisor + rest."""

    columns: list[str]
    factor: Int
    offset: Int
    divisor: Annotated[int, Meta(ge=1, le=2**62)]
    rest: Node


class Chain(msgspec.Struct, array_like=True, frozen=True, tag="chain"):
    """Integers: each is the one before + that of `column` before + rest."""

    column: str
    first: Int
    rest: Node


class Utf8(msgspec.Struct, array_like=True, frozen=True, tag="utf8"):
    """Bytes that are text."""

    texts: Node


class Base64(msgspec.Struct, array_like=True, frozen=True, tag="base64"):
    """Any bytes."""

    texts: Node


class Dicts(msgspec.Struct, array_like=True, frozen=True, tag="dicts"):
    """Objects of numbers, of few shapes. codes: the shape of each row.

    keys: how many keys each shape has, -1 for null; names: of all of them. cells: one node per name; a list of numbers
    is a node `Lists`.
    """

    keys: list[Annotated[int, Meta(ge=-1, le=2**31)]]
    names: list[str]
    codes: Node
    cells: list[Node | Lists]


class Lists(msgspec.Struct, array_like=True, frozen=True, tag="lists"):
    """Lists of `count` floats altogether."""

    count: Count
    lengths: Node
    values: Node


Node = (
    Const | Plain | Digits | Runs | Deltas | Times | ZigZag | Words | Tuples | Recent | Some | Float32 | Float64
    | Decimal | ByCall | ByGroup | OfGroup | GroupDeltas | Beside | Chain | Utf8 | Base64 | Dicts
)  # fmt: skip
