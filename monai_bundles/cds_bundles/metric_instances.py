"""Which find is which lesion, and average precision as COCO counts it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cds_bundles.metric_resampling import Floats, Measure, Places
from cds_bundles.metric_shares import divided

RECALL_LEVELS = np.linspace(0, 1, 101)
"""Where precision is read off (Lin et al., Microsoft COCO, ECCV 2014)."""
ROUNDING = 1e-9


def matched(overlaps: NDArray[np.floating], least: float) -> tuple[int | None, ...]:
    """Return for each find, best score first, the lesion that it takes: the free one it overlaps most.

    `overlaps` is the IoU (finds, lesions); an overlap below `least` is none. Every lesion is taken once.
    """
    free = np.ones(overlaps.shape[1], np.bool_)
    taken: list[int | None] = []
    for row in overlaps:
        open_to = np.where(free, row, -1.0)
        best = int(np.argmax(open_to)) if open_to.size else 0
        if open_to.size and open_to[best] >= least:
            free[best] = False
            taken.append(best)
        else:
            taken.append(None)
    return tuple(taken)


@dataclass(frozen=True, slots=True)
class Finds:
    """One picture: the score of each find, whether it took a lesion, and how many lesions there are."""

    scores: tuple[float, ...]
    hits: tuple[bool, ...]
    lesions: int


def average_precision(pictures: Sequence[Finds]) -> Measure:
    """Return the mean of the best precision at 101 recall levels, over the finds of all pictures by score."""
    row_of = np.repeat(np.arange(len(pictures)), [len(each.scores) for each in pictures])
    scores = np.array([score for each in pictures for score in each.scores], np.float64)
    hits = np.array([hit for each in pictures for hit in each.hits], np.bool_)
    lesions = np.array([each.lesions for each in pictures], np.float64)
    order = np.argsort(-scores, kind="stable")
    row_of, hits = row_of[order], hits[order]

    def compute(weights: Floats) -> Floats:
        drawn = weights[:, row_of]
        right, wrong = np.cumsum(drawn * hits, axis=1), np.cumsum(drawn * ~hits, axis=1)
        precision = np.nan_to_num(divided(right, right + wrong))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        there = weights @ lesions
        rows = [_at_levels(*row) for row in zip(best, right, there, strict=True)]
        return np.array(rows, np.float64)

    return Measure(compute, lesions, "lesions")


def _at_levels(best_precision: Floats, hits: Floats, lesions: float) -> float:
    """Return the mean precision at the recall levels; 0 at a recall that is never reached."""
    if not lesions:
        return float("nan")
    places: Places = np.searchsorted(hits, RECALL_LEVELS * lesions - ROUNDING, side="left")
    reached = places < len(best_precision)
    return float(best_precision[places[reached]].sum() / len(RECALL_LEVELS))
