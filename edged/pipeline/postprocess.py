"""Model outputs → labels, scores, values and quality, for a whole batch at once.

A row that is not a number is never given a label: its value fields are None and its quality is bad, and no other row
is touched by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edged.errors import ConfigError, ModelError
from edged.messages import QUALITY_BAD, QUALITY_GOOD, QUALITY_UNCERTAIN, TensorSpec
from edged.pipeline.calibration import Calibration
from edged.pipeline.outputs import (
    Array,
    bad_output,
    checked_columns,
    chosen_output,
    column_names,
    declared_columns,
    finite_rows,
    rows_of,
)
from edged.pipeline.spec import CalibratedThreshold, OutputSpec

Values = dict[str, float | list[float]]

NORMAL = "normal"
ANOMALY = "anomaly"
CALIBRATING = "calibrating"
MAX_TENSOR_VALUES = 4096  # of one result of kind `tensor`; a payload of about 40 KB
MAX_DETECTIONS = 100  # of one result; the most confident ones

_GOOD: tuple[str, ...] = ()


class Answers(NamedTuple):
    """Columns, one entry per row of the batch; as in `edged.messages.ResultColumns`."""

    label: list[str | None]
    score: list[float | None]
    values: list[Values | None]
    quality: list[int]
    reasons: list[tuple[str, ...]]

    def spoil(self, row: int, reason: str) -> None:
        """Turn one row into a failed inference."""
        self.label[row] = self.score[row] = self.values[row] = None
        self.quality[row] = QUALITY_BAD
        self.reasons[row] = (reason,)


class Kind(Protocol):
    """What the outputs of a model mean; made once per model, so that a model that cannot fit is refused at load."""

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers: ...


class Postprocessor:
    """Answers of one pipeline.

    calibration: the learnt thresholds, if there are any; its state belongs into the snapshot.

    Raises:
        ConfigError: the spec contradicts itself. ModelError: `incompatible`, the outputs do not fit the spec.
    """

    def __init__(self, spec: OutputSpec, outputs: Sequence[TensorSpec], max_devices: int = 10_000) -> None:
        self.calibration: Calibration | None = None
        if isinstance(spec.threshold, CalibratedThreshold):
            self.calibration = Calibration(spec.threshold, max_devices)
        if not outputs:
            raise ModelError("incompatible", "the model has no output")
        self._kind = _KINDS[spec.kind](spec, outputs, self.calibration)

    def __call__(self, outputs: Mapping[str, Array], devices: Sequence[str], unusable: Sequence[int] = ()) -> Answers:
        """Interpret one call of the model.

        Args:
            outputs: by name, batch axis first.
            devices: of each row, in order.
            unusable: rows whose input could not be given to the model as it is (see `Assembler`).

        Raises:
            InferenceError: `bad_output`, the outputs do not have the shape that the model declared.
        """
        answers = self._kind.answer(outputs, devices)
        for row in unusable:
            answers.spoil(row, "input_not_representable")
        return answers


# --- the kinds --------------------------------------------------------------------------------------------------


class _Classification:
    def __init__(self, spec: OutputSpec, outputs: Sequence[TensorSpec], _: Calibration | None) -> None:
        self._output = chosen_output(spec, outputs, "scores")
        self._softmax = spec.softmax
        self._classes = checked_columns(self._output, len(spec.labels) or None, "labels")
        self._labels = spec.labels

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        scores, broken = finite_rows(rows_of(outputs, self._output.name, count))
        if scores.shape[1] != (self._classes or max(1, scores.shape[1])):
            raise bad_output(self._output.name, scores.shape, f"{self._classes or 'some'} class scores per row")
        best = scores.argmax(axis=1)
        top = scores.max(axis=1)
        if self._softmax:
            top = 1.0 / np.exp(scores - top[:, None]).sum(axis=1)  # of the largest class exp(0) remains
        labels = self._labels
        names: list[str | None] = [labels[i] for i in best.tolist()] if labels else [str(i) for i in best.tolist()]
        answers = _good(names, top.tolist(), [None] * count)
        return _spoilt(answers, broken)


class _Anomaly:
    def __init__(self, spec: OutputSpec, outputs: Sequence[TensorSpec], calibration: Calibration | None) -> None:
        if spec.threshold is None:
            raise ConfigError("an anomaly score needs a threshold", hint="set threshold, fixed or calibrated")
        self._output = chosen_output(spec, outputs, "scores")
        checked_columns(self._output, 1, "an anomaly score per row")
        self._threshold = 0.0 if isinstance(spec.threshold, CalibratedThreshold) else spec.threshold
        self._calibration = calibration

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        rows, broken = finite_rows(rows_of(outputs, self._output.name, len(devices)))
        if rows.shape[1] != 1:
            raise bad_output(self._output.name, rows.shape, "one score per row")
        scores: list[float] = rows[:, 0].tolist()
        if self._calibration is None:
            labels: list[str | None] = [ANOMALY if score > self._threshold else NORMAL for score in scores]
            return _spoilt(_good(labels, [*scores], [None] * len(scores)), broken)
        return self._calibrated(self._calibration, scores, devices, broken)

    def _calibrated(
        self, calibration: Calibration, scores: list[float], devices: Sequence[str], broken: list[int]
    ) -> Answers:
        answers = _good([NORMAL] * len(scores), [*scores], [None] * len(scores))
        skip = set(broken)  # what is not a number must not teach the threshold
        for row, (device, score) in enumerate(zip(devices, scores, strict=True)):
            if row in skip:
                continue
            threshold = calibration.threshold(device, score)
            if threshold is None:
                answers.label[row] = CALIBRATING
                answers.quality[row] = QUALITY_UNCERTAIN
                answers.reasons[row] = (CALIBRATING,)
            elif score > threshold:
                answers.label[row] = ANOMALY
        return _spoilt(answers, broken)


class _Regression:
    def __init__(self, spec: OutputSpec, outputs: Sequence[TensorSpec], _: Calibration | None) -> None:
        self._outputs = [output.name for output in outputs]
        self._names = spec.names
        widths = [declared_columns(output) for output in outputs]
        known = [width for width in widths if width is not None]
        if spec.names and len(known) == len(widths) and sum(known) != len(spec.names):
            raise ModelError(
                "incompatible",
                f"the model gives {sum(known)} values per row, names has {len(spec.names)}",
            )

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        parts = [rows_of(outputs, name, count) for name in self._outputs]
        rows, broken = finite_rows(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
        names = self._names or column_names(self._outputs, [part.shape[1] for part in parts])
        if rows.shape[1] != len(names):
            raise bad_output(", ".join(self._outputs), rows.shape, f"{len(names)} values per row")
        values: list[Values | None] = [dict(zip(names, row, strict=True)) for row in rows.tolist()]
        return _spoilt(_good([None] * count, [None] * count, values), broken)


class _Detection:
    """After non-maximum suppression: boxes (batch, k, 4), scores and classes (batch, k), optionally count (batch)."""

    def __init__(self, spec: OutputSpec, outputs: Sequence[TensorSpec], _: Calibration | None) -> None:
        if isinstance(spec.threshold, CalibratedThreshold):
            raise ConfigError("the threshold of a detection is a number, the least score of a detection")
        self._boxes = chosen_output(spec, outputs, "boxes").name
        self._scores = chosen_output(spec, outputs, "scores").name
        self._classes = chosen_output(spec, outputs, "classes").name
        has_count = "count" in spec.outputs or any(output.name == "count" for output in outputs)
        self._count = chosen_output(spec, outputs, "count").name if has_count else None
        self._threshold = 0.5 if spec.threshold is None else spec.threshold
        self._labels = spec.labels

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        scores = rows_of(outputs, self._scores, count)
        classes = rows_of(outputs, self._classes, count)
        boxes = rows_of(outputs, self._boxes, count)
        places = scores.shape[1]
        if classes.shape[1] != places or boxes.shape[1] != 4 * places:
            raise bad_output(self._boxes, boxes.shape, f"4 numbers for each of {places} detections per row")
        filled, broken = finite_rows(np.full((count, 1), float(places)))
        if self._count is not None:
            filled, broken = finite_rows(rows_of(outputs, self._count, count))
        answers = _good([None] * count, [None] * count, [None] * count)
        boxes = boxes.reshape(count, places, 4)
        for row in range(count):
            used = max(0, int(filled[row, 0]))
            self._fill(answers, row, scores[row, :used], classes[row, :used], boxes[row, :used])
        return _spoilt(answers, broken)

    def _fill(self, answers: Answers, row: int, scores: Array, classes: Array, boxes: Array) -> None:
        if not (np.isfinite(scores).all() and np.isfinite(classes).all() and np.isfinite(boxes).all()):
            answers.spoil(row, "non_finite_output")
            return
        kept = np.flatnonzero(scores >= self._threshold)
        kept = kept[np.argsort(-scores[kept], kind="stable")][:MAX_DETECTIONS]
        answers.values[row] = {
            "count": float(len(kept)),
            "boxes": boxes[kept].ravel().tolist(),
            "scores": scores[kept].tolist(),
            "classes": classes[kept].astype(np.float64).tolist(),
        }
        if len(kept):
            best = int(classes[kept[0]])
            answers.label[row] = self._labels[best] if 0 <= best < len(self._labels) else str(best)
            answers.score[row] = float(scores[kept[0]])


class _Tensor:
    def __init__(self, _: OutputSpec, outputs: Sequence[TensorSpec], __: Calibration | None) -> None:
        self._outputs = [output.name for output in outputs]
        total = sum(declared_columns(output) or 0 for output in outputs)
        if total > MAX_TENSOR_VALUES:
            raise ModelError(
                "incompatible",
                f"the model gives {total} numbers per row, a result may hold {MAX_TENSOR_VALUES}",
                hint="reduce the output inside the model, or use another kind of output",
            )

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        parts = [rows_of(outputs, name, count) for name in self._outputs]
        rows, broken = finite_rows(np.concatenate(parts, axis=1))
        if rows.shape[1] > MAX_TENSOR_VALUES:
            raise bad_output(", ".join(self._outputs), rows.shape, f"at most {MAX_TENSOR_VALUES} numbers per row")
        values: list[Values | None] = [{} for _ in range(count)]
        for name, part in zip(self._outputs, parts, strict=True):
            for cells, row in zip(values, part.tolist(), strict=True):
                assert cells is not None
                cells[name] = row[0] if len(row) == 1 else row
        return _spoilt(_good([None] * count, [None] * count, values), broken)


_KINDS: dict[str, Callable[[OutputSpec, Sequence[TensorSpec], Calibration | None], Kind]] = {
    "classification": _Classification,
    "anomaly": _Anomaly,
    "regression": _Regression,
    "detection": _Detection,
    "tensor": _Tensor,
}


# --- what they share --------------------------------------------------------------------------------------------


def _good(label: list[str | None], score: list[float | None], values: list[Values | None]) -> Answers:
    return Answers(label, score, values, [QUALITY_GOOD] * len(label), [_GOOD] * len(label))


def _spoilt(answers: Answers, broken: list[int]) -> Answers:
    for row in broken:
        answers.spoil(row, "non_finite_output")
    return answers
