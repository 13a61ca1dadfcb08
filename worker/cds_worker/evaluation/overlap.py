"""How well outlines agree, and which find belongs to which true lesion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cds_plugin.study import Lesion, Mask

MATCH_IOU = 0.5


def union_of(lesions: Sequence[Lesion], height: int, width: int) -> Mask:
    """Return (height, width) booleans: every pixel of any lesion."""
    union = np.zeros((height, width), dtype=np.bool_)
    for lesion in lesions:
        box = lesion.bbox
        union[box.y0 : box.y1, box.x0 : box.x1] |= lesion.mask
    return union


def iou(first: Mask, second: Mask) -> float:
    """Return intersection over union; 1 where both are empty (nothing to find, nothing found)."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0


def dice(first: Mask, second: Mask) -> float:
    """Return twice the intersection over the sum of both areas; 1 where both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2 * np.count_nonzero(first & second) / total) if total else 1.0


def matches(found: Sequence[Mask], truth: Sequence[Mask]) -> int:
    """Return how many lesions of `truth` have a find of their own with IoU above 0.5, best overlaps first."""
    pairs = sorted(
        ((iou(one, other), i, j) for i, one in enumerate(found) for j, other in enumerate(truth)),
        reverse=True,
    )
    used_found: set[int] = set()
    used_truth: set[int] = set()
    for overlap, i, j in pairs:
        if overlap > MATCH_IOU and i not in used_found and j not in used_truth:
            used_found.add(i)
            used_truth.add(j)
    return len(used_truth)
