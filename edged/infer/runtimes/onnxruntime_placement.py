"""Where the nodes of a graph really went. Left alone, a provider silently gives some to the processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from edged.errors import ModelError

MOST_NAMED = 5

# What computes shapes, not answers: a few integers. A GPU provider leaves these to the processor on purpose.
SHAPE_OPERATORS = frozenset({
    "Cast", "Concat", "Constant", "ConstantOfShape", "Gather", "Identity", "Range", "Reshape", "Shape", "Size", "Slice",
    "Squeeze", "Unsqueeze",
})  # fmt: skip


class Assigned(NamedTuple):
    """One node, and the provider that computes it."""

    provider: str
    operator: str
    name: str


def count_by_provider(nodes: Sequence[Assigned]) -> tuple[tuple[str, int], ...]:
    """(provider, nodes), most first."""
    return tuple(Counter(node.provider for node in nodes).most_common())


def refuse_elsewhere(model: str, wanted: Sequence[str], nodes: Sequence[Assigned]) -> None:
    """Check that the graph is computed by the first provider of `wanted`, with help of the others of the same device.

    Raises:
        ModelError: `placement_rejected`, naming the nodes; also when nothing is known about them.
    """
    counts = dict(count_by_provider(nodes))
    shares = ", ".join(f"{count} of {len(nodes)} on {provider}" for provider, count in counts.items())
    strays = [node for node in nodes if node.provider not in wanted and node.operator not in SHAPE_OPERATORS]
    if not nodes:
        why = "the library does not say which nodes it computes"
    elif wanted[0] not in counts:
        why = f"it computes no node ({shares})"
    elif strays:
        named = ", ".join(f"{node.operator} {node.name!r}" for node in strays[:MOST_NAMED])
        more = f" and {len(strays) - MOST_NAMED} more" if len(strays) > MOST_NAMED else ""
        why = f"nodes would compute elsewhere ({shares}): {named}{more}"
    else:
        return
    raise ModelError(
        "placement_rejected",
        f"{model} was to compute on {wanted[0]}: {why}",
        hint="export the model with operators that the device knows; the next rung says openly where it computes",
    )
