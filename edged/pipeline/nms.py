"""Non-maximum suppression: of boxes that show the same thing the most confident one stays. Pure numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_CANDIDATES = 1000  # the most confident boxes that are compared at all: the cost grows with kept × candidates


def suppress(boxes: Array, scores: Array, classes: Array, *, min_score: float, max_iou: float, limit: int) -> Array:
    """Indices of the boxes that stay, most confident first, at most `limit`.

    Args:
        boxes: (k, 4) as x1, y1, x2, y2. scores, classes: (k,). Boxes of different classes never suppress each other.
        min_score: less confident boxes are left out. max_iou: boxes that overlap more than this show the same thing.
    """
    candidates = np.flatnonzero(scores >= min_score)
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:MAX_CANDIDATES]
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        rivals = (classes[rest] == classes[best]) & (overlap(boxes[best], boxes[rest]) > max_iou)
        order = rest[~rivals]
    return np.array(kept, dtype=np.intp)


def overlap(box: Array, boxes: Array) -> Array:
    """Intersection over union of one box (4,) with each of `boxes` (k, 4); 0 where both are empty."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    union = _area(box[np.newaxis]) + _area(boxes) - shared
    ratio: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def _area(boxes: Array) -> Array:
    area: Array = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    return area
