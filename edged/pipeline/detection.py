"""What a detector's outputs mean → boxes in the pixels of the frame, most confident first, none twice.

Detectors agree on nothing: which output is what, how a box is written, whether 1 is a pixel or the whole width. One
plan made when the model is loaded answers all of it; what remains per frame is arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.errors import InferenceError, ModelError
from edged.messages import TensorSpec
from edged.pipeline.nms import suppress

Array = NDArray[Any]
BoxForm = Literal["xyxy", "yxyx", "cxcywh"]

MAX_DETECTIONS = 100
_SSD_OUTPUTS = 4  # boxes, classes, scores, count: what TFLite_Detection_PostProcess gives, in this order


@dataclass(frozen=True, slots=True)
class DetectionSpec:
    """How the outputs of a detector are read.

    layout: `ssd`: boxes, classes, scores and count, as TFLite gives them after its own suppression; `yolo`: one output
    (batch, 4 + classes, k) or (batch, k, 4 + classes); `named`: outputs called boxes, scores and, unless the scores
    have an axis of classes, classes. `auto`: by the number and names of the outputs.
    box: how a box is written. normalised: 1 is the width or height of the model's input, not a pixel of it; None: as
    usual for the layout. objectness: `yolo` with a column between box and classes that their scores are multiplied by.
    class_count: how many classes there are, 0: unknown; tells the two forms of `yolo` apart.
    """

    layout: Literal["auto", "ssd", "yolo", "named"] = "auto"
    box: BoxForm | None = None
    normalised: bool | None = None
    objectness: bool = False
    class_count: int = 0
    min_score: float = 0.5
    max_iou: float = 0.45
    limit: int = MAX_DETECTIONS


class Candidates(NamedTuple):
    """Of one frame, before suppression: boxes (k, 4) as the model writes them, scores and classes (k,)."""

    boxes: Array
    scores: Array
    classes: Array


class _Plan(NamedTuple):
    """read: outputs and row → candidates."""

    read: Callable[[Mapping[str, Array], int], Candidates]
    box: BoxForm
    normalised: bool


class Detector:
    """Reads the outputs of one model whose input has `width` × `height` pixels.

    outputs: what `__call__` gives: boxes (batch, limit, 4), scores and classes (batch, limit), count (batch, 1).

    Raises:
        ModelError: `incompatible`, the outputs cannot be read like this.
    """

    def __init__(self, spec: DetectionSpec, outputs: Sequence[TensorSpec], width: int, height: int) -> None:
        self._spec = spec
        self._plan = _planned(spec, outputs)
        self._unit = (width, height) if self._plan.normalised else (1, 1)
        self.outputs = (
            TensorSpec("boxes", "float32", (-1, spec.limit, 4)),
            TensorSpec("scores", "float32", (-1, spec.limit)),
            TensorSpec("classes", "float32", (-1, spec.limit)),
            TensorSpec("count", "float32", (-1, 1)),
        )

    def __call__(self, outputs: Mapping[str, Array], placed: Array) -> dict[str, Array]:
        """The detections of a batch, in pixels of the frames.

        Args:
            placed: (batch, 6), how each frame lies in the model's input: its scale in x and y, the place of its left
                upper corner, its own width and height.

        Raises:
            InferenceError: `bad_output`.
        """
        count, limit = len(placed), self._spec.limit
        boxes, scores = np.zeros((count, limit, 4), np.float32), np.zeros((count, limit), np.float32)
        classes, filled = np.zeros((count, limit), np.float32), np.zeros((count, 1), np.float32)
        for row in range(count):
            try:
                found = self._plan.read(outputs, row)
            except (ValueError, IndexError) as error:
                raise InferenceError("bad_output", f"the detections of a frame cannot be read: {error}") from error
            if not all(np.isfinite(part).all() for part in found):
                scores[row, 0], filled[row] = np.nan, 1  # this frame has no answer, and the answer says so
                continue
            corners = _corners(found.boxes, self._plan.box, self._unit)
            kept = suppress(
                corners, found.scores, found.classes,
                min_score=self._spec.min_score, max_iou=self._spec.max_iou, limit=limit,
            )  # fmt: skip
            n = len(kept)
            filled[row] = n
            boxes[row, :n] = _in_frame(corners[kept], placed[row])
            scores[row, :n] = found.scores[kept]
            classes[row, :n] = found.classes[kept]
        return {"boxes": boxes, "scores": scores, "classes": classes, "count": filled}


def _planned(spec: DetectionSpec, outputs: Sequence[TensorSpec]) -> _Plan:
    names = tuple(output.name for output in outputs)
    layout = spec.layout
    if layout == "auto":
        named = {"boxes", "scores"}.issubset(names)
        layout = "named" if named else {1: "yolo", _SSD_OUTPUTS: "ssd"}.get(len(outputs), "auto")  # type: ignore[assignment]
    shapes = {output.name: output.shape for output in outputs}
    if layout == "named" and {"boxes", "scores"}.issubset(names):
        if "classes" not in names and len(shapes["scores"]) != 3:
            raise _misfit(spec, outputs, "scores without an axis of classes need an output called classes")
        return _plan(spec, _read_named, "xyxy", normalised=False)
    if layout == "ssd" and len(outputs) == _SSD_OUTPUTS:
        return _plan(spec, _ssd_reader(names), "yxyx", normalised=True)
    if layout == "yolo" and len(outputs) == 1 and len(outputs[0].shape) == 3:
        return _plan(spec, _yolo_reader(spec, outputs[0]), "cxcywh", normalised=False)
    raise _misfit(spec, outputs, "they have another number or other names and axes")


def _plan(
    spec: DetectionSpec,
    read: Callable[[Mapping[str, Array], int], Candidates],
    box: BoxForm,
    *,
    normalised: bool,
) -> _Plan:
    return _Plan(read, spec.box or box, normalised if spec.normalised is None else spec.normalised)


def _misfit(spec: DetectionSpec, outputs: Sequence[TensorSpec], why: str) -> ModelError:
    found = ", ".join(f"{output.name} {output.shape}" for output in outputs)
    return ModelError(
        "incompatible",
        f"the outputs {found} cannot be read as layout {spec.layout!r}: {why}",
        hint="set layout in [pipeline.output.detection] to ssd, yolo or named",
    )


def _read_named(outputs: Mapping[str, Array], row: int) -> Candidates:
    boxes, scores = outputs["boxes"][row].reshape(-1, 4), outputs["scores"][row]
    if scores.ndim == 2:
        return _best_class(boxes, scores)
    return _equally_long(Candidates(boxes, scores.ravel(), outputs["classes"][row].ravel()))


def _ssd_reader(names: Sequence[str]) -> Callable[[Mapping[str, Array], int], Candidates]:
    boxes, classes, scores, count = names

    def read(outputs: Mapping[str, Array], row: int) -> Candidates:
        counted = float(outputs[count][row].ravel()[0])
        used = max(0, int(counted)) if np.isfinite(counted) else 0
        parts = outputs[boxes][row].reshape(-1, 4), outputs[scores][row].ravel(), outputs[classes][row].ravel()
        return _equally_long(Candidates(*(part[:used] for part in parts)))

    return read


def _yolo_reader(spec: DetectionSpec, output: TensorSpec) -> Callable[[Mapping[str, Array], int], Candidates]:
    columns = 4 + int(spec.objectness) + spec.class_count
    middle, last = output.shape[1:]
    if spec.class_count and columns in {middle, last}:
        transposed = last != columns  # (batch, columns, k)
    elif spec.class_count and middle > 0 and last > 0:
        raise _misfit(spec, (output,), f"neither axis has 4 numbers of a box and {spec.class_count} classes")
    else:
        transposed = _columns_first(middle, last, 5 + int(spec.objectness))

    def read(outputs: Mapping[str, Array], row: int) -> Candidates:
        table = outputs[output.name][row]
        table = table.T if transposed else table
        if table.shape[1] < 5 + int(spec.objectness):
            raise ValueError(f"a place has {table.shape[1]} numbers, at least a box and a class are expected")
        scores = table[:, 4:]
        if spec.objectness:
            scores = scores[:, :1] * scores[:, 1:]
        return _best_class(table[:, :4], scores)

    return read


def _columns_first(middle: int, last: int, least: int) -> bool:
    """Whether the columns stand before the places: there are at least `least` of them, and fewer than places."""
    if 0 < last < least:
        return True
    return middle >= least and (last < 0 or middle < last)


def _best_class(boxes: Array, scores: Array) -> Candidates:
    """Of scores (k, classes) the best one."""
    best = scores.argmax(axis=1)
    return _equally_long(Candidates(boxes, scores.max(axis=1), best.astype(np.float32)))


def _equally_long(found: Candidates) -> Candidates:
    if len({len(part) for part in found}) != 1:
        raise ValueError(f"boxes, scores and classes of lengths {[len(part) for part in found]}")
    return found


def _corners(boxes: Array, form: BoxForm, unit: tuple[int, int]) -> Array:
    """Boxes as x1, y1, x2, y2 in pixels of the model's input."""
    a, b, c, d = boxes.astype(np.float32).T
    if form == "yxyx":
        a, b, c, d = b, a, d, c
    elif form == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    width, height = unit
    return np.stack([a * width, b * height, c * width, d * height], axis=1)


def _in_frame(corners: Array, placed: Array) -> Array:
    """From pixels of the model's input to pixels of the frame, cut at its edges."""
    scale_x, scale_y, left, top, width, height = placed
    moved = (corners - np.array([left, top, left, top])) / np.array([scale_x, scale_y, scale_x, scale_y])
    inside: Array = np.clip(moved, 0, np.array([width, height, width, height])).astype(np.float32)
    return inside
