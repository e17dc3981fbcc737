"""The task metric: how well answers fit labels. Pure.

Each metric knows what it gives when nothing is learnt (`naive`): a reference that is no better than that cannot show
that a model got worse, so labels in the wrong order or of another data set are noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from edged.workbench.refusal import Unfit

MIN_LABELLED = 30
_FINEST_DROP = 0.01


class Metric(NamedTuple):
    """score, naive: (answers, labels) → figure; `naive` ignores the answers. prepare: labels as it needs them."""

    name: str
    higher_is_better: bool
    score: Callable[[np.ndarray, np.ndarray], float]
    naive: Callable[[np.ndarray, np.ndarray], float]
    prepare: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def drop(self, reference: float, model: float, naive: float) -> float:
        """How much worse the model is: in points of the metric, or for errors in shares of the naive error."""
        if self.higher_is_better:
            return reference - model
        return (model - reference) / naive

    def says_something(self, reference: float, naive: float) -> bool:
        """Whether the reference knows more than nothing."""
        return reference > naive if self.higher_is_better else reference < naive


class Scored(NamedTuple):
    """One metric of both models. changed: (reference right and model wrong, the reverse), where rightness exists.

    interval: 95 % of the drop, from the samples on which the two disagree.
    """

    metric: str
    higher_is_better: bool
    samples: int
    reference: float
    model: float
    naive: float
    drop: float
    interval: tuple[float, float] | None
    changed: tuple[int, int] | None


def score(metric: Metric, reference: np.ndarray, model: np.ndarray, labels: np.ndarray) -> Scored:
    """The metric of both answers, first axis samples.

    Raises:
        Unfit: `labels_shape`, `labels_type`, `labels_one_class`, `labels_range`, `labels_do_not_fit` (the reference is
            no better than knowing nothing).
    """
    wanted = metric.prepare(reference, labels)
    naive = metric.naive(reference, wanted)
    before, after = metric.score(reference, wanted), metric.score(model, wanted)
    if not metric.says_something(before, naive):
        raise Unfit(
            "labels_do_not_fit",
            f"the reference has {metric.name} {before:.4g}, knowing nothing gives {naive:.4g}: with these samples and"
            " labels nothing can be said about a model",
            hint="check the order of the labels, the preprocessing, and that it is the data of this task",
        )
    interval, changed = None, None
    if metric.name == "accuracy":
        right, now = classes(reference) == wanted, classes(model) == wanted
        changed = int((right & ~now).sum()), int((~right & now).sum())
        interval = _paired_interval(changed, len(wanted))
    drop = metric.drop(before, after, naive)
    return Scored(metric.name, metric.higher_is_better, len(labels), before, after, naive, drop, interval, changed)


def needed_samples(max_drop: float) -> int:
    """As many labelled samples as make a drop of that size visible."""
    return max(MIN_LABELLED, math.ceil(1.0 / max(max_drop, _FINEST_DROP)))


def classes(answers: np.ndarray) -> np.ndarray:
    """The class of each sample: the largest score, or the answer itself where it is one integer."""
    flat = answers.reshape(len(answers), -1)
    if flat.shape[1] == 1:
        return flat[:, 0].astype(np.int64) if flat.dtype.kind in "iu" else (flat[:, 0] > 0.5).astype(np.int64)
    largest: np.ndarray = flat.argmax(axis=1)
    return largest


def _paired_interval(changed: tuple[int, int], samples: int) -> tuple[float, float]:
    worse, better = changed
    drop = (worse - better) / samples
    spread = 1.96 * math.sqrt(max(worse + better - (worse - better) ** 2 / samples, 0.0)) / samples
    return drop - spread, drop + spread


# --- labels -----------------------------------------------------------------------------------------------------


def _class_labels(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Class numbers, from numbers or one-hot rows."""
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] > 1:
        if not ((flat == 0) | (flat == 1)).all() or not (flat.sum(axis=1) == 1).all():
            raise Unfit("labels_shape", f"expected one class number or one-hot row per sample, got {labels.shape}")
        wanted = flat.argmax(axis=1)
    else:
        wanted = flat[:, 0]
    if wanted.dtype.kind not in "iub":
        raise Unfit("labels_type", f"expected class numbers as integers, got {labels.dtype}", hint="labels.astype(int)")
    wanted = np.asarray(wanted, np.int64)
    width = answers.reshape(len(answers), -1).shape[1]
    limit = width if width > 1 else None
    if wanted.min() < 0 or (limit is not None and wanted.max() >= limit):
        raise Unfit(
            "labels_range", f"labels are {wanted.min()} to {wanted.max()}, the output has {limit or 2} classes from 0"
        )
    if len(np.unique(wanted)) < 2:
        raise Unfit("labels_one_class", f"every label is {wanted[0]}: a model that always answers that is perfect")
    return wanted


def _two_classes(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] != 1 or not np.isin(flat, (0, 1)).all():
        raise Unfit("labels_range", "expected one label per sample, 0 (normal) or 1 (anomaly)")
    if answers.reshape(len(answers), -1).shape[1] > 2:
        raise Unfit("labels_shape", f"auc needs one score per sample, the output has the shape {answers.shape}")
    if len(np.unique(flat)) < 2:
        raise Unfit("labels_one_class", f"every label is {flat[0, 0]}: there is nothing to tell apart")
    return np.asarray(flat[:, 0], np.int64)


def _values(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.size != answers.size:
        raise Unfit("labels_shape", f"expected labels of the output's shape {answers.shape}, got {labels.shape}")
    if labels.dtype.kind not in "iuf" or not np.isfinite(labels).all():
        raise Unfit("labels_type", f"expected finite numbers, got {labels.dtype} with NaN, infinity or no numbers")
    wanted: np.ndarray = labels.reshape(len(labels), -1).astype(np.float64)
    if (wanted == wanted[0]).all():
        raise Unfit("labels_one_class", "every label is the same: a model that always answers that is perfect")
    return wanted


# --- figures ----------------------------------------------------------------------------------------------------


def _accuracy(answers: np.ndarray, wanted: np.ndarray) -> float:
    return float((classes(answers) == wanted).mean())


def _largest_class(answers: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.bincount(wanted).max() / len(wanted))


def _balanced_accuracy(answers: np.ndarray, wanted: np.ndarray) -> float:
    right = classes(answers) == wanted
    return float(np.mean([right[wanted == label].mean() for label in np.unique(wanted)]))


def _auc(answers: np.ndarray, wanted: np.ndarray) -> float:
    """Chance that an anomaly scores higher than a normal sample; ties count half."""
    scores = answers.reshape(len(answers), -1)[:, -1].astype(np.float64)
    anomalies, normal = scores[wanted == 1], np.sort(scores[wanted == 0])
    below = np.searchsorted(normal, anomalies, side="left")
    upto = np.searchsorted(normal, anomalies, side="right")
    return float((below + upto).mean() / (2 * len(normal)))


def _off(answers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    off: np.ndarray = answers.reshape(len(answers), -1).astype(np.float64) - wanted
    return off


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", True, _accuracy, _largest_class, _class_labels),
        Metric(
            "balanced_accuracy", True, _balanced_accuracy, lambda _, wanted: 1 / len(np.unique(wanted)), _class_labels
        ),
        Metric("auc", True, _auc, lambda _, __: 0.5, _two_classes),
        Metric(
            "rmse",
            False,
            lambda answers, wanted: math.sqrt(float((_off(answers, wanted) ** 2).mean())),
            lambda _, wanted: math.sqrt(float(((wanted - wanted.mean(axis=0)) ** 2).mean())),
            _values,
        ),
        Metric(
            "mae",
            False,
            lambda answers, wanted: float(np.abs(_off(answers, wanted)).mean()),
            lambda _, wanted: float(np.abs(wanted - np.median(wanted, axis=0)).mean()),
            _values,
        ),
    )
}
