"""Do probabilities mean what they say? Reliability, calibration error, and the Brier score. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cds_bundles.metric_resampling import SEED, TAIL, Bools, Floats, Measure, Places
from cds_bundles.metric_shares import divided, mean

BINS = 15
"""As in Guo et al., On calibration of modern neural networks, ICML 2017."""

CHANCE_ROUNDS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Confidences:
    """The largest probability of each row, and whether its class is right; only `among` counts."""

    confidence: Floats
    right: Bools
    among: Bools

    def equal_width(self, bins: int = BINS) -> Places:
        """Return the bin of each row, bins of equal width on 0 to 1."""
        return np.minimum((self.confidence * bins).astype(np.intp), bins - 1)

    def equal_mass(self, bins: int = BINS) -> Places:
        """Return the bin of each row, bins of (nearly) as many rows each; equal confidences share one."""
        known = self.confidence[self.among]
        edges = np.quantile(known, np.arange(1, bins) / bins) if known.size else np.zeros(0)
        return np.searchsorted(edges, self.confidence, side="right").astype(np.intp)

    def error(self, bin_of: Places) -> Measure:
        """Return the expected calibration error: the mean gap between confidence and accuracy, by bins.

        The bins of the whole sample serve every draw.
        """
        inside = (bin_of[:, None] == np.arange(BINS)) & self.among[:, None]
        gaps = inside * (self.right - self.confidence)[:, None]
        counted = self.among.astype(np.float64)

        def compute(weights: Floats) -> Floats:
            return divided(np.abs(weights @ gaps).sum(axis=1), weights @ counted)

        return Measure(compute, counted, centred=True)

    def error_by_chance(self, bin_of: Places) -> tuple[float, float, float]:
        """Return the error that perfect calibration would show here, and the bounds of 95 % of its draws.

        Answers are drawn right as often as their confidence says (Bröcker and Smith, Weather and Forecasting
        22:651, 2007): few cases show an error though there is none.
        """
        confidence, bins = self.confidence[self.among], bin_of[self.among]
        rng = np.random.default_rng(SEED)
        inside = (bins[:, None] == np.arange(BINS)).astype(np.float64)
        errors = [
            np.abs(((rng.random(len(bins)) < confidence) - confidence) @ inside).sum() / max(1, len(bins))
            for _ in range(CHANCE_ROUNDS)
        ]
        low, high = np.quantile(errors, (TAIL, 1 - TAIL))
        return float(np.mean(errors)), float(low), float(high)

    def diagram(self, bin_of: Places) -> list[dict[str, float]]:
        """Return one row per bin that is not empty: n, mean confidence, accuracy."""
        rows = []
        for place in range(BINS):
            chosen = (bin_of == place) & self.among
            if chosen.any():
                confidence, accuracy = self.confidence[chosen].mean(), self.right[chosen].mean()
                rows.append(
                    {"n": int(chosen.sum()), "confidence": float(confidence), "accuracy": float(accuracy)}
                )
        return rows


def brier_score(probabilities: Floats, labels: Places, among: Bools) -> Measure:
    """Return the mean squared distance of probability rows (N, C) from the truth, 0 to 2 (Brier, 1950)."""
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    distance = np.square(probabilities - truth).sum(axis=1)
    return mean(np.where(among, distance, np.nan))
