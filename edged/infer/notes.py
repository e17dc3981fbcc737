"""What a model that is made of others has to tell about single rows of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from edged.messages import ModelInfo


BAD_IMAGE = "bad_image"


class Note(NamedTuple):
    """Of one row. info: what computed it, None: the model itself. reasons: go into its `quality_reasons`.

    failed: why the row has no answer; then its outputs mean nothing.
    """

    info: ModelInfo | None = None
    reasons: tuple[str, ...] = ()
    failed: str = ""


PLAIN = Note()


class NotedOutputs(dict[str, "np.ndarray"]):
    """Outputs by name, as of any model, with a note for each row."""

    def __init__(self, outputs: Mapping[str, np.ndarray], notes: Sequence[Note]) -> None:
        super().__init__(outputs)
        self.notes = tuple(notes)
