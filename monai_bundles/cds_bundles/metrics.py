"""Figures with their number of cases and a 95 % interval by bootstrap over lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.metric_resampling import SEED, TAIL, Measure, lesion_weights

Places = NDArray[np.intp]
Floats = NDArray[np.floating]

ROUNDS = 1000


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


def bootstrap(measure: Callable[[Places], float], groups: Sequence[str], seed: int = SEED) -> Figure:
    """`measure` of all cases, and the interval of it when whole groups (lesions) are drawn with replacement.

    `measure` takes the places of cases, with repeats; where it gives NaN for a draw, that draw is left out.
    For what is no function of weights; the draws are those of `metric_resampling`.
    """
    group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    every = np.arange(len(groups))
    draws = [
        measure(np.repeat(every, times.astype(np.intp)))
        for weights in lesion_weights(group_of, ROUNDS, seed)
        for times in weights
    ]
    low, high = np.nanquantile(draws, (TAIL, 1 - TAIL))
    return Figure(float(measure(every)), float(low), float(high), len(groups))


def balanced_accuracy(labels: Places, predicted: Places, classes: int) -> float:
    """Mean sensitivity of the classes that have cases."""
    return _plain(metric_shares.balanced_accuracy(labels, predicted, classes))


def roc_auc(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in right order, ties half; or NaN."""
    return _plain(metric_ranking.roc_auc(positive, np.asarray(scores, np.float64)))


def _plain(measure: Measure) -> float:
    return float(measure.compute(np.ones((1, len(measure.amounts))))[0])
