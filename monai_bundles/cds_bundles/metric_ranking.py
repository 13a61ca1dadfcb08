"""How well a score tells yes from no: ROC, thresholds and net benefit, as measures and curves. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cds_bundles.metric_resampling import Bools, Floats, Measure, Places
from cds_bundles.metric_shares import divided

ROUNDING = 1e-9
"""19 of 20 is a sensitivity of 0.95, whatever binary fractions make of it."""
F2 = 2.0
PROBABILITY_THRESHOLDS = np.arange(1, 100) / 100
"""Of the decision curve: the risk at which a reader would act, 1 to 99 %."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """Rows by rising score; `starts` is the first place of each run of equal scores."""

    order: Places
    starts: Places
    positive: Bools

    @classmethod
    def of(cls, positive: Bools, scores: Floats, among: Bools) -> _Ranked:
        rows = np.flatnonzero(among)
        order = rows[np.argsort(scores[rows], kind="stable")]
        new = np.concatenate([[True], np.diff(scores[order]) > 0]) if len(order) else np.zeros(0, np.bool_)
        return cls(order, np.flatnonzero(new), positive[order])

    def sums(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return (R, runs) weights of positive and of negative rows of each run of equal scores."""
        drawn = weights[:, self.order]
        if not len(self.order):
            return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
        positive = np.add.reduceat(drawn * self.positive, self.starts, axis=1)
        return positive, np.add.reduceat(drawn * ~self.positive, self.starts, axis=1)


def roc_auc(positive: Bools, scores: Floats, among: Bools | None = None) -> Measure:
    """Return the share of (positive, negative) pairs in the right order, ties half (Mann-Whitney)."""
    counted = np.ones(len(scores), np.bool_) if among is None else among
    ranked = _Ranked.of(positive, scores, counted)

    def compute(weights: Floats) -> Floats:
        above, below = ranked.sums(weights)
        lower = np.cumsum(below, axis=1) - below / 2
        return divided((above * lower).sum(axis=1), above.sum(axis=1) * below.sum(axis=1))

    pair = counted & positive, counted & ~positive
    return Measure(compute, counted.astype(np.float64), share=True, pair=pair)


def specificity_at_sensitivity(positive: Bools, scores: Floats, wanted: float) -> Measure:
    """Return the specificity at the highest threshold that reaches the `wanted` sensitivity on each draw."""
    ranked = _Ranked.of(positive, scores, np.ones(len(scores), np.bool_))

    def compute(weights: Floats) -> Floats:
        above, below = ranked.sums(weights)
        total = above.sum(axis=1)
        flagged = np.cumsum(above[:, ::-1], axis=1)[:, ::-1]
        reached = flagged >= wanted * total[:, None] - ROUNDING
        last = above.shape[1] - 1 - np.argmax(reached[:, ::-1], axis=1)
        passed = np.cumsum(below, axis=1) - below
        value = divided(passed[np.arange(len(weights)), last], below.sum(axis=1))
        return np.where(total > 0, value, np.nan)

    return Measure(compute, np.ones(len(scores)), share=True, pair=(positive, ~positive))


def threshold_reaching(positive: Bools, scores: Floats, wanted: float) -> float:
    """Return the highest threshold whose sensitivity is at least `wanted`; NaN without positives."""
    ill = np.sort(scores[positive])
    return float(ill[int(np.floor((1 - wanted) * len(ill) + ROUNDING))]) if len(ill) else float("nan")


def threshold_table(positive: Bools, scores: Floats) -> list[dict[str, float]]:
    """Return a row for each score that occurs, as the threshold from which on a case is flagged, rising."""
    ranked = _Ranked.of(positive, scores, np.ones(len(scores), np.bool_))
    above, below = (each[0] for each in ranked.sums(np.ones((1, len(scores)))))
    thresholds = scores[ranked.order][ranked.starts]
    hits, alarms = np.cumsum(above[::-1])[::-1], np.cumsum(below[::-1])[::-1]
    return [
        _at(float(threshold), float(right), float(wrong), float(above.sum()), float(below.sum()))
        for threshold, right, wrong in zip(thresholds, hits, alarms, strict=True)
    ]


def _at(threshold: float, hits: float, alarms: float, ill: float, well: float) -> dict[str, float]:
    nan = float("nan")
    return {
        "threshold": threshold,
        "sensitivity": hits / ill if ill else nan,
        "specificity": 1 - alarms / well if well else nan,
        "precision": hits / (hits + alarms),
        "f1": 2 * hits / (hits + alarms + ill),
        "f2": (1 + F2**2) * hits / (hits + alarms + F2**2 * ill),
    }


def net_benefit(positive: Bools, scores: Floats, threshold: float) -> Measure:
    """Return (true positives - false positives * odds of `threshold`) / n (Vickers and Elkin, 2006).

    A case is flagged whose score, read as a risk, is at least `threshold` (0 to 1, exclusive).
    """
    flagged = scores >= threshold
    odds = threshold / (1 - threshold)
    gains = (flagged & positive) - odds * (flagged & ~positive)
    columns = np.stack([gains, np.ones(len(scores))], axis=1)

    def compute(weights: Floats) -> Floats:
        sums = weights @ columns
        return divided(sums[:, 0], sums[:, 1])

    return Measure(compute, np.ones(len(scores)))


def benefit_of_flagging_all(positive: Bools, thresholds: Sequence[float] | Floats) -> Floats:
    """Return the net benefit of flagging everybody at each threshold."""
    prevalence = float(positive.mean())
    risks = np.asarray(thresholds, np.float64)
    return np.asarray(prevalence - (1 - prevalence) * risks / (1 - risks), np.float64)
