"""How well two outlines agree: overlap, border, and the share of a mask that was found. No torch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

JACCARD_THRESHOLD = 0.65
"""Below it an outline counts as failed (ISIC 2018, Task 1: Codella et al., arXiv 1902.03368)."""
BORDER_TOLERANCE = 0.0075
"""How far a border may be off, as a share of the picture's diagonal (Csurka et al., BMVC 2013)."""


def iou(first: Mask, second: Mask) -> float:
    """Return intersection over union; 1 where both are empty (nothing to find, nothing found)."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0


def dice(first: Mask, second: Mask) -> float:
    """Return twice the intersection over the sum of both areas; 1 where both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2 * np.count_nonzero(first & second) / total) if total else 1.0


def thresholded_jaccard(overlap: float) -> float:
    """Return the IoU, or 0 where it is below 0.65."""
    return overlap if overlap >= JACCARD_THRESHOLD else 0.0


def border_tolerance(height: int, width: int) -> float:
    """Return how many pixels a border may be off: 0.75 % of the diagonal, at least one."""
    return max(1.0, BORDER_TOLERANCE * float(np.hypot(height, width)))


def boundary_f1(found: Mask, truth: Mask) -> float:
    """Return F1 of border pixels that lie within `border_tolerance` of the other border; 1 if both are empty.

    The picture's edge is a border too: a lesion that runs out of the picture ends there in both outlines.
    """
    borders = _border(found), _border(truth)
    if not borders[0].any() or not borders[1].any():
        return float(not borders[0].any() and not borders[1].any())
    tolerance = border_tolerance(*truth.shape)
    precision = _share_near(borders[0], borders[1], tolerance)
    recall = _share_near(borders[1], borders[0], tolerance)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _border(mask: Mask) -> Mask:
    """Return the pixels of `mask` that have a neighbour, or the picture's edge, outside it."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    return np.asarray(mask & (inner == 0), np.bool_)


def _share_near(border: Mask, other: Mask, tolerance: float) -> float:
    distance = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((np.asarray(distance)[border] <= tolerance).mean())
