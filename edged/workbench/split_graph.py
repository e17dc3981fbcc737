"""Where a graph can be cut in two: tensors that everything passes through on its way to the outputs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Node(NamedTuple):
    """One operator; names of tensors. What its inner graphs read counts as read by it."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class CutPoint(NamedTuple):
    """tensor: what would travel. after: the operator that makes it. operators: of the head; total: of both."""

    tensor: str
    after: str
    operators: int
    total: int


def nodes_of(graph: Any) -> tuple[Node, ...]:
    """The operators of an `onnx.GraphProto`, in its order, which is one in which they can be computed."""
    return tuple(
        Node(node.op_type, tuple(filter(None, (*node.input, *_captured(node)))), tuple(filter(None, node.output)))
        for node in graph.node
    )


def _captured(node: Any) -> Iterator[str]:
    """Tensors that loops and branches inside the node read; those of their own are no tensors of ours, and harmless."""
    pending = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    while pending:
        graph = pending.pop()
        for inner in graph.node:
            yield from inner.input
            pending.extend(found for attribute in inner.attribute for found in (attribute.g, *attribute.graphs))
        yield from (output.name for output in graph.output)


def cut_points(nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]) -> tuple[CutPoint, ...]:
    """Every tensor that cuts the graph, from the inputs to the outputs.

    Only what depends on the inputs and leads to an output counts: constants are in both halves where both need them.
    """
    alive = _alive(nodes, inputs, outputs)
    last_read: dict[str, int] = dict.fromkeys(outputs, len(alive))
    for at, node in enumerate(alive):
        for name in node.inputs:
            last_read[name] = max(last_read.get(name, -1), at)
    open_: set[str] = {name for name in inputs if name in last_read}
    found = []
    for at, node in enumerate(alive[:-1]):
        open_ |= {name for name in node.outputs if last_read.get(name, -1) > at}
        open_ = {name for name in open_ if last_read[name] > at}
        if len(open_) == 1 and not open_ <= {*inputs, *outputs}:
            found.append(CutPoint(next(iter(open_)), node.kind, at + 1, len(alive)))
    return tuple(found)


def _alive(nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]) -> list[Node]:
    reached = set(inputs)
    dependent = []
    for node in nodes:
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
            dependent.append(node)
    needed = set(outputs)
    kept = []
    for node in reversed(dependent):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    # What a node reads of constants is not on the way.
    return [node._replace(inputs=tuple(name for name in node.inputs if name in reached)) for node in reversed(kept)]
