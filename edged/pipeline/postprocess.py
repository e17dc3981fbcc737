"""Model outputs → labels, scores, values and quality, for a whole batch at once.

A row that is not a number is never given a label: its value fields are None and its quality is bad, and no other row
is touched by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from edged.errors import ConfigError, InferenceError, ModelError
from edged.messages import QUALITY_BAD, QUALITY_GOOD, QUALITY_UNCERTAIN, TensorSpec
from edged.pipeline.calibration import Calibration
from edged.pipeline.spec import CalibratedThreshold, OutputSpec

Array = np.ndarray[Any, np.dtype[Any]]
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
        self._output = _chosen(spec, outputs, "scores")
        self._softmax = spec.softmax
        self._classes = _columns(self._output, len(spec.labels) or None, "labels")
        self._labels = spec.labels

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        scores, broken = _finite(_rows(outputs, self._output.name, count))
        if scores.shape[1] != (self._classes or max(1, scores.shape[1])):
            raise _bad_output(self._output.name, scores.shape, f"{self._classes or 'some'} class scores per row")
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
        self._output = _chosen(spec, outputs, "scores")
        _columns(self._output, 1, "an anomaly score per row")
        self._threshold = 0.0 if isinstance(spec.threshold, CalibratedThreshold) else spec.threshold
        self._calibration = calibration

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        rows, broken = _finite(_rows(outputs, self._output.name, len(devices)))
        if rows.shape[1] != 1:
            raise _bad_output(self._output.name, rows.shape, "one score per row")
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
        widths = [_static_columns(output) for output in outputs]
        known = [width for width in widths if width is not None]
        if spec.names and len(known) == len(widths) and sum(known) != len(spec.names):
            raise ModelError(
                "incompatible",
                f"the model gives {sum(known)} values per row, names has {len(spec.names)}",
            )

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        parts = [_rows(outputs, name, count) for name in self._outputs]
        rows, broken = _finite(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
        names = self._names or _column_names(self._outputs, [part.shape[1] for part in parts])
        if rows.shape[1] != len(names):
            raise _bad_output(", ".join(self._outputs), rows.shape, f"{len(names)} values per row")
        values: list[Values | None] = [dict(zip(names, row, strict=True)) for row in rows.tolist()]
        return _spoilt(_good([None] * count, [None] * count, values), broken)


class _Detection:
    """After non-maximum suppression: boxes (batch, k, 4), scores and classes (batch, k), optionally count (batch)."""

    def __init__(self, spec: OutputSpec, outputs: Sequence[TensorSpec], _: Calibration | None) -> None:
        if isinstance(spec.threshold, CalibratedThreshold):
            raise ConfigError("the threshold of a detection is a number, the least score of a detection")
        self._boxes = _chosen(spec, outputs, "boxes").name
        self._scores = _chosen(spec, outputs, "scores").name
        self._classes = _chosen(spec, outputs, "classes").name
        has_count = "count" in spec.outputs or any(output.name == "count" for output in outputs)
        self._count = _chosen(spec, outputs, "count").name if has_count else None
        self._threshold = 0.5 if spec.threshold is None else spec.threshold
        self._labels = spec.labels

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        scores = _rows(outputs, self._scores, count)
        classes = _rows(outputs, self._classes, count)
        boxes = _rows(outputs, self._boxes, count)
        places = scores.shape[1]
        if classes.shape[1] != places or boxes.shape[1] != 4 * places:
            raise _bad_output(self._boxes, boxes.shape, f"4 numbers for each of {places} detections per row")
        filled, broken = _finite(np.full((count, 1), float(places)))
        if self._count is not None:
            filled, broken = _finite(_rows(outputs, self._count, count))
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
        total = sum(_static_columns(output) or 0 for output in outputs)
        if total > MAX_TENSOR_VALUES:
            raise ModelError(
                "incompatible",
                f"the model gives {total} numbers per row, a result may hold {MAX_TENSOR_VALUES}",
                hint="reduce the output inside the model, or use another kind of output",
            )

    def answer(self, outputs: Mapping[str, Array], devices: Sequence[str]) -> Answers:
        count = len(devices)
        parts = [_rows(outputs, name, count) for name in self._outputs]
        rows, broken = _finite(np.concatenate(parts, axis=1))
        if rows.shape[1] > MAX_TENSOR_VALUES:
            raise _bad_output(", ".join(self._outputs), rows.shape, f"at most {MAX_TENSOR_VALUES} numbers per row")
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


def _rows(outputs: Mapping[str, Array], name: str, count: int) -> Array:
    """One output as (count, columns)."""
    array = outputs[name]
    if array.ndim == 0 or array.shape[0] != count:
        raise _bad_output(name, array.shape, f"{count} rows, batch axis first")
    rows: Array = array.reshape(count, math.prod(array.shape[1:]))  # not -1: a row may be empty
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def _finite(rows: Array) -> tuple[Array, list[int]]:
    """The rows with what is not a number set to 0, and which rows had any."""
    finite = np.isfinite(rows)
    if finite.all():
        return rows, []
    return np.where(finite, rows, 0), np.flatnonzero(~finite.all(axis=1)).tolist()


def _chosen(spec: OutputSpec, outputs: Sequence[TensorSpec], role: str) -> TensorSpec:
    """The output that plays a role: as declared, or by its own name, or because it is the only one."""
    wanted = spec.outputs.get(role, role)
    for output in outputs:
        if output.name == wanted:
            return output
    if role not in spec.outputs and len(outputs) == 1:
        return outputs[0]
    raise ModelError(
        "incompatible",
        f"no output {wanted!r} for {role}; the model has {[output.name for output in outputs]}",
        hint=f'name it in [pipeline.output] outputs = {{ {role} = "..." }}',
    )


def _static_columns(output: TensorSpec) -> int | None:
    """Numbers per row, as far as the model declares them."""
    columns = 1
    for size in output.shape[1:]:
        if size < 0:
            return None
        columns *= size
    return columns


def _columns(output: TensorSpec, wanted: int | None, what: str) -> int | None:
    found = _static_columns(output)
    if found is not None and wanted is not None and found != wanted:
        raise ModelError(
            "incompatible", f"output {output.name!r} has {found} numbers per row, expected {wanted} for {what}"
        )
    return wanted if found is None else found


def _column_names(outputs: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        name if width == 1 else f"{name}_{column}"
        for name, width in zip(outputs, widths, strict=True)
        for column in range(width)
    )


def _bad_output(name: str, shape: tuple[int, ...], expected: str) -> InferenceError:
    return InferenceError("bad_output", f"output {name!r} has the shape {shape}, expected {expected}")
