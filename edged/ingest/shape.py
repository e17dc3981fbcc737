"""Dotted paths and their types → one msgspec struct that reads exactly these paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from edged.errors import ConfigError

ABSENT = "absent"  # attribute of every struct that reads as None: stands in for a path the source does not have


class Leaf(NamedTuple):
    """What may stand at one path; `required` leaves have no default, the others are None when missing."""

    type: object
    required: bool


def compile_shape(leaves: Mapping[str, Leaf]) -> tuple[type[msgspec.Struct], dict[str, str]]:
    """Build the struct and the attribute path (for `operator.attrgetter`) of each leaf.

    Raises:
        ConfigError: an empty level, a path that is also the parent of another, a name that JSON must escape.
    """
    groups: dict[str, dict[str, Leaf]] = {}
    for path, leaf in leaves.items():
        head, dot, rest = path.partition(".")
        if not head or (dot and not rest):
            raise ConfigError(f"field path {path!r} has an empty level", hint="write it as name or outer.inner")
        groups.setdefault(head, {})[rest] = leaf
    fields: list[Any] = []
    attributes: dict[str, str] = {}
    names: dict[str, str] = {}
    for number, (head, below) in enumerate(groups.items()):
        name = f"f{number}"
        names[name] = head
        if "" in below:
            if len(below) > 1:
                raise ConfigError(f"field path {head!r} is a value and also the parent of {sorted(below)[1]!r}")
            leaf = below[""]
            fields.append((name, leaf.type) if leaf.required else (name, leaf.type, None))
            attributes[head] = name
        else:
            inner, inner_attributes = compile_shape(below)
            required = any(leaf.required for leaf in below.values())
            fields.append((name, inner) if required else (name, inner, msgspec.field(default_factory=inner)))
            attributes |= {f"{head}.{path}": f"{name}.{attribute}" for path, attribute in inner_attributes.items()}
    try:
        struct = msgspec.defstruct("Event", fields, namespace={ABSENT: None}, rename=names, gc=False, kw_only=True)
    except ValueError as error:
        raise ConfigError(
            f"field names {list(names.values())}: {error}", hint="rename the field at the sensor"
        ) from None
    return struct, attributes
