"""Finds matched to lesions, and means with a bootstrap interval, for the segmenter's evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import metric_instances
from .metric_overlap import iou
from .metric_resampling import estimates
from .metric_shares import mean
from .scene_artefacts import Mask
from .segmentation import LesionInstance

MATCH_IOU = 0.5
"""A find and a lesion that overlap at least this much are the same."""

Figure = dict[str, object]


def figure(values: Sequence[float], split: str, unit: str) -> Figure:
    """Mean of `values`, their number, and the 95 % percentile-bootstrap interval over them."""
    names = [str(place) for place in range(len(values))]
    found = estimates({"mean": mean(values, unit)}, names, split)["mean"].as_json()
    return {name: found[name] for name in ("value", "interval_95", "n", "unit", "split")}


def whole_mask(lesions: Sequence[LesionInstance], height: int, width: int) -> Mask:
    """(height, width): the union of all instances."""
    union = np.zeros((height, width), bool)
    for lesion in lesions:
        x0, y0, x1, y1 = lesion.bbox
        union[y0:y1, x0:x1] |= lesion.mask
    return union


def matched(lesions: Sequence[LesionInstance], masks: Sequence[Mask]) -> list[float]:
    """IoU of each lesion in `masks` with the find matched to it, best score first; 0 where it was missed."""
    overlaps = np.array([[iou(whole_mask((each,), *m.shape), m) for m in masks] for each in lesions])
    rows = overlaps.reshape(len(lesions), len(masks))
    best = [0.0] * len(masks)
    for row, lesion in zip(rows, metric_instances.matched(rows, MATCH_IOU), strict=True):
        if lesion is not None:
            best[lesion] = float(row[lesion])
    return best
