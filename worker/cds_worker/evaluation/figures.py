"""Figures with their uncertainty: each a function of row weights, so that one bootstrap over lesions serves all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 20180602

Weights = NDArray[np.float64]
"""(rows,) how often each row was drawn; all ones for the point estimate."""
Statistic = Callable[[Weights], float]
"""A figure of the weighted rows; NaN where the draw has none that count."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, its 95 % percentile-bootstrap interval over lesions, and how much it rests on."""

    value: float
    low: float
    high: float
    rows: int
    lesions: int

    def as_json(self) -> dict[str, object]:
        """Return the figure as metrics.json holds it."""
        interval = [_rounded(self.low), _rounded(self.high)]
        return {
            "value": _rounded(self.value),
            "interval_95": interval,
            "n": self.rows,
            "lesions": self.lesions,
        }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def bootstrapped(statistic: Statistic, lesion_ids: Sequence[str]) -> Figure:
    """Return `statistic` of all rows, with an interval from drawing whole lesions with replacement."""
    _, group = np.unique(np.asarray(lesion_ids), return_inverse=True)
    lesions = int(group.max()) + 1
    random = np.random.default_rng(SEED)
    drawn = np.full(RESAMPLES, np.nan)
    for index in range(RESAMPLES):
        counts = np.bincount(random.integers(0, lesions, lesions), minlength=lesions)
        drawn[index] = statistic(counts[group].astype(np.float64))
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, (2.5, 97.5)) if known.size else (np.nan, np.nan)
    value = statistic(np.ones(len(group)))
    return Figure(value, float(low), float(high), len(group), lesions)


def mean(values: Sequence[float]) -> Statistic:
    """Return the weighted mean of `values`; NaN values are left out."""
    array = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(array)
    filled = np.where(known, array, 0.0)

    def statistic(weights: Weights) -> float:
        total = float(weights[known].sum())
        return float((filled * weights).sum() / total) if total else float("nan")

    return statistic


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Statistic:
    """Return the weighted sum of `numerators` over that of `denominators`."""
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)

    def statistic(weights: Weights) -> float:
        total = float((below * weights).sum())
        return float((above * weights).sum() / total) if total else float("nan")

    return statistic


def balanced_accuracy(truth: Sequence[str], answer: Sequence[str]) -> Statistic:
    """Return the mean over the classes present of the share that was named rightly."""
    right = np.asarray(truth) == np.asarray(answer)
    labels, code = np.unique(np.asarray(truth), return_inverse=True)

    def statistic(weights: Weights) -> float:
        total = np.bincount(code, weights, len(labels))
        hits = np.bincount(code, weights * right, len(labels))
        present = total > 0
        return float((hits[present] / total[present]).mean()) if present.any() else float("nan")

    return statistic


def area_under_roc(positive: Sequence[bool], score: Sequence[float]) -> Statistic:
    """Return P(score of a positive > score of a negative) + half of P(equal) (Hanley and McNeil, 1982)."""
    order = np.argsort(np.asarray(score, dtype=np.float64), kind="stable")
    is_positive = np.asarray(positive, dtype=np.bool_)[order]
    _, tie = np.unique(np.asarray(score, dtype=np.float64)[order], return_inverse=True)

    def statistic(weights: Weights) -> float:
        sorted_weights = weights[order]
        positives = np.bincount(tie, sorted_weights * is_positive)
        negatives = np.bincount(tie, sorted_weights * ~is_positive)
        pairs = float(positives.sum() * negatives.sum())
        below = np.cumsum(negatives) - negatives
        return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")

    return statistic
