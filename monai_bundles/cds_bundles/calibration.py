"""From a classifier's logits to what may be said: calibrated probabilities, prediction sets, thresholds.

Everything is fitted on lesions that no network was trained on, and applied with numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classes import MALIGNANT_COLUMNS

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

COVERAGE = 0.90
"""Share of the lesions of each class whose prediction set holds the true class."""
SENSITIVITIES = (0.80, 0.85, 0.90, 0.95, 0.98)
"""Operating points that are offered: share of malignant or premalignant lesions to be flagged."""
OFFSET_SHARE = 0.5
"""Of the offsets that fit best. They mostly move answers to the prevalences of the lesions fitted on, which
are nobody else's; half of them costs little calibration here and spares the rare classes."""
PULL = 0.01
"""Weight of the penalty that keeps scales near their mean and offsets near zero: rare classes are few."""


@dataclass(frozen=True, slots=True)
class VectorScaling:
    """Guo et al., ICML 2017: each logit is multiplied and shifted before the softmax."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def probabilities(self, logits: NDArray[np.floating]) -> Floats:
        """Rows (N, C) that sum to 1, from `logits` (N, C)."""
        shifted = np.asarray(logits, np.float64) * np.array(self.scales) + np.array(self.offsets)
        powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def fit_scaling(logits: NDArray[np.floating], labels: Places) -> VectorScaling:
    """The scaling of least cross-entropy on `logits` (N, C) and `labels` (N,)."""
    return fit_mixture(np.asarray(logits)[:, None], labels)[1]


def fit_mixture(logits: NDArray[np.floating], labels: Places) -> tuple[tuple[float, ...], VectorScaling]:
    """Weights of M networks, and the scaling of their weighted mean, of least cross-entropy.

    `logits` (N, M, C), `labels` (N,). One common temperature is learned freely; what a class or a network
    has of its own is pulled towards none. The weights sum to 1.
    """
    values = torch.tensor(np.asarray(logits), dtype=torch.float64)
    truth = torch.tensor(np.asarray(labels, np.int64))
    temperature, own, offsets, shares = (
        torch.zeros(size, dtype=torch.float64, requires_grad=True)
        for size in (1, values.shape[2], values.shape[2], values.shape[1])
    )
    learned = [temperature, own, offsets, shares]
    optimizer = torch.optim.LBFGS(learned, max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        mixed = torch.einsum("nmc,m->nc", values, shares.softmax(0))
        entropy = nn.functional.cross_entropy(mixed * (temperature + own).exp() + offsets, truth)
        cost = entropy + PULL * sum(part.square().sum() for part in (own, offsets, shares))
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scales = (temperature + own).exp().detach()
    scaling = VectorScaling(tuple(scales.tolist()), tuple((OFFSET_SHARE * offsets.detach()).tolist()))
    return tuple(shares.detach().softmax(0).tolist()), scaling


def set_thresholds(probabilities: Floats, labels: Places, coverage: float = COVERAGE) -> tuple[float, ...]:
    """For each class the probability from which on it belongs to a prediction set.

    Label-conditional split conformal prediction (Vovk, ACML 2012) with the score 1 - p: among new lesions of
    a class, exchangeable with those here, at least `coverage` have it in their set. A class with too few
    cases to promise that gets 0: it is always in the set.
    """
    return tuple(
        _conformal_quantile(probabilities[labels == column, column], coverage)
        for column in range(probabilities.shape[1])
    )


def _conformal_quantile(of_truth: Floats, coverage: float) -> float:
    """The k-th smallest probability of the true class that leaves at most 1 - `coverage` below it."""
    allowed = int(np.floor((len(of_truth) + 1) * (1 - coverage)))
    return float(np.sort(of_truth)[allowed - 1]) if allowed >= 1 else 0.0


def prediction_sets(probabilities: Floats, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """(N, C), true for the classes in each row's set.

    A set is never empty: where no class reaches its threshold, the most probable one is taken. The most
    probable class may be missing from a set of others: it is then too improbable for a lesion of its kind.
    """
    member = probabilities >= np.asarray(thresholds)
    empty = np.flatnonzero(~member.any(axis=1))
    member[empty, probabilities[empty].argmax(axis=1)] = True
    return np.asarray(member, np.bool_)


def malignancy(probabilities: Floats) -> Floats:
    """(N,): p(akiec) + p(bcc) + p(mel), malignant or premalignant."""
    return np.asarray(probabilities[:, MALIGNANT_COLUMNS].sum(axis=1), np.float64)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A malignancy from which on a lesion is flagged, and what that gave on held-out lesions."""

    threshold: float
    sensitivity: float
    specificity: float


def operating_points(
    scores: Floats, malignant: NDArray[np.bool_], wanted: Sequence[float] = SENSITIVITIES
) -> tuple[OperatingPoint, ...]:
    """For each wanted sensitivity the highest threshold that reaches it on `scores` (N,)."""
    ill = np.sort(scores[malignant])
    points = []
    for sensitivity in wanted:
        missed = int(np.floor((1 - sensitivity) * len(ill) + 1e-9))
        threshold = float(ill[missed])
        flagged = scores >= threshold
        points.append(
            OperatingPoint(threshold, float(flagged[malignant].mean()), float((~flagged[~malignant]).mean()))
        )
    return tuple(points)
