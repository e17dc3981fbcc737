"""Frames for a model that takes them as bytes: nothing is assembled here but the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edged.messages import TensorSpec
from edged.pipeline.assemble import Batch
from edged.pipeline.windows import Block


class FrameAssembler:
    """Stands where an `Assembler` stands, for the only input of a model of frames."""

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        (self._input,) = inputs

    def assemble(self, blocks: Sequence[Block]) -> Batch:
        """An array of objects, one frame each."""
        frames = np.empty(len(blocks), object)
        for row, frame in enumerate(blocks):  # one by one: numpy would cut zeros off the end of a list of bytes
            frames[row] = frame
        return Batch({self._input.name: frames}, [])
