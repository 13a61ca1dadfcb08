"""Shares, means, and the figures of a confusion matrix, as measures of drawn rows. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cds_bundles.metric_resampling import Bools, Floats, Measure, Places


def divided(above: Floats, below: Floats) -> Floats:
    """Return `above` over `below`, NaN where `below` is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def share(hits: Bools, among: Bools | None = None, unit: str = "pictures") -> Measure:
    """Return the share of `hits` (N,) among the rows of `among` (default: all)."""
    counted = np.ones(len(hits), np.bool_) if among is None else among
    return ratio((hits & counted).astype(np.float64), counted.astype(np.float64), unit, share=True)


def ratio(above: Floats, below: Floats, unit: str, *, share: bool = False) -> Measure:
    """Return the sum of `above` over the sum of `below`; n is the latter."""
    both = np.stack([above, below], axis=1)

    def compute(weights: Floats) -> Floats:
        sums = weights @ both
        return divided(sums[:, 0], sums[:, 1])

    return Measure(compute, below, unit, share=share)


def mean(values: Sequence[float] | Floats, unit: str = "pictures") -> Measure:
    """Return the mean of `values` (N,); NaN values are left out."""
    array = np.asarray(values, np.float64)
    known = ~np.isnan(array)
    return ratio(np.where(known, array, 0.0), known.astype(np.float64), unit)


def f_score(hits: Bools, predicted: Bools, true: Bools, beta: float = 1.0) -> Measure:
    """Return F-beta: `hits` against what was `predicted` and what is `true`; 0 where nothing is right."""
    columns = np.stack([hits, predicted, true], axis=1).astype(np.float64)

    def compute(weights: Floats) -> Floats:
        right, found, there = (weights @ columns).T
        return divided((1 + beta**2) * right, found + beta**2 * there)

    return Measure(compute, np.ones(len(hits)))


def balanced_accuracy(labels: Places, answers: Places, classes: int) -> Measure:
    """Return the mean sensitivity of the classes that are there; an answer of `classes` is no class."""
    columns = _columns(labels, answers, classes)

    def compute(weights: Floats) -> Floats:
        hits, true, _ = _sums(weights, columns, classes)
        return _mean_of_known(divided(hits, true))

    return Measure(compute, np.ones(len(labels)))


def macro_f1(labels: Places, answers: Places, classes: int) -> Measure:
    """Return the mean F1 of the classes that are there or were answered (as scikit-learn's "macro")."""
    columns = _columns(labels, answers, classes)

    def compute(weights: Floats) -> Floats:
        hits, true, found = _sums(weights, columns, classes)
        return _mean_of_known(divided(2 * hits, true + found))

    return Measure(compute, np.ones(len(labels)))


def weighted_f1(labels: Places, answers: Places, classes: int) -> Measure:
    """Return the mean F1 of the classes, each weighing as many rows as it has (scikit-learn's "weighted")."""
    columns = _columns(labels, answers, classes)

    def compute(weights: Floats) -> Floats:
        hits, true, found = _sums(weights, columns, classes)
        f1 = np.nan_to_num(divided(2 * hits, true + found))
        return divided((f1 * true).sum(axis=1), true.sum(axis=1))

    return Measure(compute, np.ones(len(labels)))


def _columns(labels: Places, answers: Places, classes: int) -> Floats:
    """(N, 3 * classes): right as this class, is this class, was answered as this class."""
    is_class = labels[:, None] == np.arange(classes)
    said = answers[:, None] == np.arange(classes)
    return np.concatenate([is_class & said, is_class, said], axis=1).astype(np.float64)


def _sums(weights: Floats, columns: Floats, classes: int) -> tuple[Floats, Floats, Floats]:
    sums = (weights @ columns).reshape(len(weights), 3, classes)
    return sums[:, 0], sums[:, 1], sums[:, 2]


def _mean_of_known(rows: Floats) -> Floats:
    known = ~np.isnan(rows)
    return divided(np.where(known, rows, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def confusion(labels: Places, answers: Places, classes: int) -> Places:
    """Return (classes, classes + 1) counts: rows are the truth, the last column is no answer."""
    table = np.zeros((classes, classes + 1), np.intp)
    np.add.at(table, (labels, answers), 1)
    return table
