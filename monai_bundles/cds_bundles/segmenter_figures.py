"""Overlap of outlines, matching of finds to lesions, and means with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .scene_artefacts import Mask
from .segmentation import LesionInstance

MATCH_IOU = 0.5
"""A find and a lesion that overlap more than this are the same."""
RESAMPLES = 2000

Figure = dict[str, object]


def figure(values: Sequence[float], split: str, unit: str) -> Figure:
    """Mean of `values`, their number, and the 95 % percentile-bootstrap interval over them."""
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), (2.5, 97.5))
    return {
        "value": round(float(array.mean()), 4),
        "interval_95": [round(float(low), 4), round(float(high), 4)],
        "n": len(array),
        "unit": unit,
        "split": split,
    }


def whole_mask(lesions: Sequence[LesionInstance], height: int, width: int) -> Mask:
    """(height, width): the union of all instances."""
    union = np.zeros((height, width), bool)
    for lesion in lesions:
        x0, y0, x1, y1 = lesion.bbox
        union[y0:y1, x0:x1] |= lesion.mask
    return union


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union; 0 where both are empty."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def dice(first: Mask, second: Mask) -> float:
    """Twice the intersection over the sum; 0 where both are empty."""
    return float(2 * (first & second).sum() / max(1, first.sum() + second.sum()))


def matched(lesions: Sequence[LesionInstance], masks: Sequence[Mask]) -> list[float]:
    """IoU of each lesion in `masks` with the find matched to it, best score first; 0 where it was missed."""
    best = [0.0] * len(masks)
    for lesion in lesions:
        overlaps = [
            0.0 if taken else iou(whole_mask((lesion,), *mask.shape), mask)
            for taken, mask in zip(best, masks, strict=True)
        ]
        if overlaps and max(overlaps) > MATCH_IOU:
            best[int(np.argmax(overlaps))] = max(overlaps)
    return best
