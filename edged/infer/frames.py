"""A model that takes pictures → one that takes frames as cameras send them: bytes. A composition, not a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.notes import BAD_IMAGE, PLAIN, Note, NotedOutputs
from edged.infer.pixels import BadFrame, FrameSpec, canvas_of, draw, require_decoder
from edged.messages import TensorSpec

if TYPE_CHECKING:
    from edged.messages import ModelInfo
    from edged.ports import Model

FRAMES = "frame"
"""The only input: an array of objects, the bytes of one frame each."""

Finish = Callable[[Mapping[str, np.ndarray], np.ndarray], Mapping[str, np.ndarray]]
"""(outputs of the model, how each frame lies in its input as `Placed`) → outputs in terms of the frame."""


class FrameModel:
    """Decodes, prepares and asks `inner`. A frame that is no picture fails alone, with the reason `bad_image`.

    info: that of `inner`, which says who computed; what this one takes and gives stands in `inputs` and `outputs`.
    like: what `inner` takes and gives, also while it is a chain whose every rung is away.
    finish: what is done to the answers, and `finished`, the outputs it gives; None: they stay as they are.

    Raises:
        ModelError: `incompatible`, `inner` takes no pictures; `runtime_unavailable`, nothing here can decode them.
    """

    def __init__(
        self,
        inner: Model,
        spec: FrameSpec,
        like: ModelInfo,
        finish: Finish | None = None,
        finished: tuple[TensorSpec, ...] = (),
    ) -> None:
        require_decoder()
        self._inner = inner
        self._spec = spec
        self._finish = finish
        self._input = only_input(like)
        self._canvas = canvas_of(spec, self._input)
        self.inputs = (TensorSpec(FRAMES, "object", (-1,)),)
        self.outputs = finished or like.outputs

    @property
    def info(self) -> ModelInfo:
        return self._inner.info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call for all frames that can be decoded.

        Raises:
            InferenceError: `bad_image` when none can; those of the model.
        """
        frames = batch[FRAMES]
        notes, rows, placed, good = [PLAIN] * len(frames), [], [], []
        for number, frame in enumerate(frames):
            try:
                row, where = draw(self._spec, frame, self._canvas)
            except BadFrame:
                notes[number] = Note(failed=BAD_IMAGE)
                continue
            rows.append(row)
            placed.append(where)
            good.append(number)
        if not good:
            raise InferenceError(BAD_IMAGE, "no frame of the batch can be decoded")
        outputs = self._inner.infer({self._input.name: np.stack(rows)}, deadline_s=deadline_s)
        if self._finish is not None:
            outputs = self._finish(outputs, np.array(placed, np.float64))
        return NotedOutputs({name: _spread(array, good, len(frames)) for name, array in outputs.items()}, notes)

    def close(self) -> None:
        self._inner.close()


def only_input(info: ModelInfo) -> TensorSpec:
    """The input that takes the pictures. Raises ModelError (`incompatible`)."""
    if len(info.inputs) != 1:
        found = [tensor.name for tensor in info.inputs]
        raise ModelError("incompatible", f"{info.model}: expected one input for frames, got {found}")
    return info.inputs[0]


def _spread(array: np.ndarray, rows: list[int], count: int) -> np.ndarray:
    """The rows at their places among `count`; what is no number in between, where the type knows that."""
    if len(rows) == count:
        return array
    wide = np.full((count, *array.shape[1:]), np.nan if array.dtype.kind == "f" else 0, array.dtype)
    wide[rows] = array
    return wide
