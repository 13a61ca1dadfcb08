"""Figures with their number of cases and a 95 % interval by bootstrap over lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]
Floats = NDArray[np.floating]

ROUNDS = 1000
LEVEL = 95.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, its 95 % interval, and the number of cases it rests on."""

    value: float
    low: float
    high: float
    n: int

    def rounded(self) -> dict[str, float | int]:
        """The figure as JSON, to four decimals."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "n": self.n,
        }


def bootstrap(measure: Callable[[Places], float], groups: Sequence[str], seed: int = 0) -> Figure:
    """`measure` of all cases, and the interval of it when whole groups (lesions) are drawn with replacement.

    `measure` takes the places of cases, with repeats; where it gives NaN for a draw, that draw is left out.
    """
    members = _members(groups)
    rng = np.random.default_rng(seed)
    draws = [
        measure(np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]))
        for _ in range(ROUNDS)
    ]
    low, high = np.nanpercentile(draws, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return Figure(float(measure(np.arange(len(groups)))), float(low), float(high), len(groups))


def _members(groups: Sequence[str]) -> list[Places]:
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return [np.array(row) for row in places.values()]


def recalls(labels: Places, predicted: Places, classes: int) -> Floats:
    """Sensitivity of each class, NaN for one without cases."""
    hits = np.bincount(labels[labels == predicted], minlength=classes).astype(np.float64)
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    return hits / np.where(counts > 0, counts, np.nan)


def balanced_accuracy(labels: Places, predicted: Places, classes: int) -> float:
    """Mean sensitivity of the classes that have cases."""
    return float(np.nanmean(recalls(labels, predicted, classes)))


def roc_auc(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in right order, ties half; or NaN."""
    above, below = scores[positive], np.sort(scores[~positive])
    if not above.size or not below.size:
        return float("nan")
    lower = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(lower.mean() / (2 * below.size))
