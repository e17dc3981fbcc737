"""Are these shapes possible? Asked of OpenVINO's graph before a device sees them.

A device that runs a graph with free axes does not ask: two rows through a Reshape to (1, 4) are answered with whatever
lies in memory, without an error.
"""

from __future__ import annotations

from typing import Any

from edged.infer.runtimes.openvino_library import in_short

Shape = tuple[int, ...]

_MOST_REMEMBERED = 1000


class Shapes:
    """The shapes that one model takes. `graph`: an `openvino.Model`."""

    def __init__(self, graph: Any) -> None:
        partial = [port.get_partial_shape() for port in graph.inputs]
        free = [axis for shape in partial for axis, size in enumerate(shape) if size.is_dynamic]
        self._graph = graph
        self._fixed = not free
        self._only_rows = not any(free) and all(shape.rank.get_length() and shape[0].is_dynamic for shape in partial)
        self._possible: set[tuple[Shape, ...]] = set()

    def settle(self) -> Any:
        """The graph to compile: as it is, or with one row where that is all it can really take.

        Raises:
            RuntimeError: no number of rows is possible.
        """
        graph = self._graph
        if self._only_rows and any(self._refusal(self._with_rows(rows)) for rows in (2, 3)):
            graph.reshape(dict(enumerate(map(list, self._with_rows(1)))))
            self._fixed = True
        if self._fixed or self._only_rows:
            self._graph = None  # asked no more
        return graph

    def refusal(self, shapes: tuple[Shape, ...]) -> str:
        """Why these cannot be; empty: they can."""
        if self._fixed or shapes in self._possible:
            return ""
        if self._only_rows:  # two and three were tried, and more are no different
            return "" if len({shape[0] for shape in shapes}) == 1 else f"inputs of different lengths {shapes}"
        refusal = self._refusal(shapes)
        if not refusal and len(self._possible) < _MOST_REMEMBERED:
            self._possible.add(shapes)
        return refusal

    def _with_rows(self, rows: int) -> tuple[Shape, ...]:
        shapes = [list(port.get_partial_shape())[1:] for port in self._graph.inputs]
        return tuple((rows, *(size.get_length() for size in shape)) for shape in shapes)

    def _refusal(self, shapes: tuple[Shape, ...]) -> str:
        try:
            self._graph.clone().reshape(dict(enumerate(map(list, shapes))))
        except RuntimeError as error:
            return in_short(error)
        return ""
