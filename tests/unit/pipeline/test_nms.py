"""Doubles of one thing are left out, neighbours and other classes stay."""

from __future__ import annotations

import numpy as np
import pytest

from edged.pipeline.nms import MAX_CANDIDATES, overlap, suppress

BOXES = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
SCORES = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
CLASSES = np.array([1, 1, 1, 2], np.float32)


def kept(min_score: float = 0.1, max_iou: float = 0.5, limit: int = 10) -> list[int]:
    found: list[int] = suppress(
        BOXES, SCORES, CLASSES, min_score=min_score, max_iou=max_iou, limit=limit
    ).tolist()  # fmt: skip
    return found


def test_the_best_of_boxes_that_overlap_stays_and_other_classes_are_not_touched() -> None:
    assert kept() == [1, 2, 3]


def test_what_overlaps_less_than_allowed_stays() -> None:
    assert kept(max_iou=0.9) == [1, 0, 2, 3]


def test_weak_boxes_are_left_out_and_there_are_at_most_as_many_as_asked_for() -> None:
    assert kept(min_score=0.65) == [1, 2]
    assert kept(limit=1) == [1]
    assert kept(min_score=1.0) == []


def test_only_so_many_boxes_are_compared() -> None:
    count = MAX_CANDIDATES + 50
    left = np.arange(count, dtype=np.float32)[:, np.newaxis] * 20
    boxes = np.concatenate([left, left, left + 10, left + 10], axis=1)
    found = suppress(boxes, np.ones(count), np.zeros(count), min_score=0.5, max_iou=0.5, limit=2 * count)
    assert len(found) == MAX_CANDIDATES


def test_overlap_is_intersection_over_union_and_0_for_what_is_empty() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [4, 4, 2, 2]], np.float32)
    assert overlap(box, others).tolist() == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    assert overlap(np.zeros(4), np.zeros((1, 4))).tolist() == [0.0]
