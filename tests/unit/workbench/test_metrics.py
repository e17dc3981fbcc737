"""Task metrics by hand, and labels that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from edged.workbench.metrics import METRICS, classes, needed_samples, score
from edged.workbench.refusal import Unfit

LABELS = np.array([0, 1, 2, 1, 0, 2, 1, 1, 0, 2])
RIGHT = np.eye(3)[LABELS]


def code(metric: str, answers: np.ndarray, labels: np.ndarray) -> str:
    with pytest.raises(Unfit) as refused:
        score(METRICS[metric], answers, answers, labels)
    return refused.value.code


def with_wrong(*places: int) -> np.ndarray:
    answers: np.ndarray = RIGHT.copy()
    answers[list(places)] = np.roll(answers[list(places)], 1, axis=1)
    return answers


def test_accuracy_drops_by_the_share_that_became_wrong() -> None:
    found = score(METRICS["accuracy"], with_wrong(0), with_wrong(1, 2), LABELS)
    assert found.reference == pytest.approx(0.9)
    assert found.model == pytest.approx(0.8)
    assert found.drop == pytest.approx(0.1)
    assert found.changed == (2, 1)
    assert found.naive == pytest.approx(0.4)
    assert found.interval is not None
    low, high = found.interval
    assert low < 0
    assert high > found.drop


def test_the_interval_is_a_point_when_nothing_changed() -> None:
    assert score(METRICS["accuracy"], RIGHT, RIGHT, LABELS).interval == (0.0, 0.0)


def test_labels_may_be_numbers_or_one_hot_rows() -> None:
    rows = score(METRICS["accuracy"], RIGHT, with_wrong(3), np.eye(3, dtype=np.int64)[LABELS])
    assert rows.drop == pytest.approx(0.1)


def test_balanced_accuracy_counts_each_class_alike() -> None:
    found = score(METRICS["balanced_accuracy"], RIGHT, with_wrong(0), LABELS)
    assert found.model == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found.naive == pytest.approx(1 / 3)
    assert found.changed is None


def test_one_score_or_one_integer_per_sample_is_a_class_too() -> None:
    assert classes(np.array([[0.2], [0.7]])).tolist() == [0, 1]
    assert classes(np.array([3, 5], np.int64)).tolist() == [3, 5]


def test_auc_is_the_chance_that_an_anomaly_scores_higher() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    found = score(METRICS["auc"], np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 2, 4, 4, 5]), labels)
    assert found.reference == 1.0
    assert found.model == pytest.approx(5.5 / 6)


def test_errors_drop_in_shares_of_the_error_of_knowing_nothing() -> None:
    labels = np.array([[0.0], [2.0], [4.0], [6.0]])
    naive = float(labels.std())
    rmse = score(METRICS["rmse"], labels + 0.5, labels + 1.0, labels)
    assert rmse.reference == pytest.approx(0.5)
    assert rmse.model == pytest.approx(1.0)
    assert rmse.drop == pytest.approx(0.5 / naive)
    mae = score(METRICS["mae"], labels + 0.5, labels - 1.0, labels)
    assert mae.drop == pytest.approx(0.5 / 2.0)


def test_a_reference_that_knows_nothing_cannot_show_a_drop() -> None:
    assert code("accuracy", RIGHT, np.roll(LABELS, 3)) == "labels_do_not_fit"
    assert code("rmse", np.zeros((4, 1)), np.array([10.0, 20, 30, 41])) == "labels_do_not_fit"


@pytest.mark.parametrize(
    ("metric", "labels", "expected"),
    [
        ("accuracy", np.zeros(10, np.int64), "labels_one_class"),
        ("accuracy", LABELS.astype(np.float32), "labels_type"),
        ("accuracy", LABELS + 1, "labels_range"),
        ("accuracy", LABELS - 1, "labels_range"),
        ("accuracy", np.ones((10, 3)), "labels_shape"),
        ("auc", LABELS, "labels_range"),
        ("auc", (LABELS > 0).astype(int), "labels_shape"),
        ("rmse", LABELS.astype(np.float64), "labels_shape"),
        ("rmse", np.full((10, 3), np.nan), "labels_type"),
        ("mae", np.ones((10, 3)), "labels_one_class"),
    ],
)
def test_labels_that_say_nothing_are_refused(metric: str, labels: np.ndarray, expected: str) -> None:
    assert code(metric, RIGHT, labels) == expected


def test_auc_needs_both_kinds() -> None:
    assert code("auc", np.arange(4.0), np.ones(4, np.int64)) == "labels_one_class"


def test_smaller_drops_need_more_samples() -> None:
    assert (needed_samples(0.5), needed_samples(0.02), needed_samples(0.01), needed_samples(0)) == (30, 50, 100, 100)
