"""Figures of many pictures, each a function of the rows drawn: one bootstrap over lesions serves all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cds_bundles.classes import CLASSES
from cds_bundles.metrics import Figure, Places, balanced_accuracy, bootstrap, recalls, roc_auc

Measure = Callable[[Places], float]
"""A figure of the rows at these places, repeats included; NaN where none of them counts."""


def measured(measure: Measure, lesion_ids: Sequence[str]) -> dict[str, object]:
    """Return the figure of all rows as metrics.json holds it, with the interval of drawing whole lesions."""
    figure: Figure = bootstrap(measure, lesion_ids)
    return {
        "value": _rounded(figure.value),
        "interval_95": [_rounded(figure.low), _rounded(figure.high)],
        "n": figure.n,
        "lesions": len(set(lesion_ids)),
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def mean(values: Sequence[float]) -> Measure:
    """Return the mean of `values`; NaN values are left out."""
    array = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(array)
    return ratio(np.where(known, array, 0.0).tolist(), known.astype(np.float64).tolist())


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Measure:
    """Return the sum of `numerators` over that of `denominators`."""
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)

    def measure(places: Places) -> float:
        total = float(below[places].sum())
        return float(above[places].sum()) / total if total else float("nan")

    return measure


def mean_sensitivity(truth: Sequence[str], answer: Sequence[str]) -> Measure:
    """Return the balanced accuracy; an answer that is no class is wrong for every class."""
    labels, answers = _coded(truth), _coded(answer)
    return lambda places: balanced_accuracy(labels[places], answers[places], len(CLASSES))


def sensitivity(truth: Sequence[str], answer: Sequence[str], name: str) -> Measure:
    """Return the share of class `name` that was named so."""
    labels, answers = _coded(truth), _coded(answer)
    return lambda places: float(recalls(labels[places], answers[places], len(CLASSES))[CLASSES.index(name)])


def area_under_roc(positive: Sequence[bool], scores: Sequence[float]) -> Measure:
    """Return the share of (positive, negative) pairs whose scores stand in the right order, ties half."""
    is_positive, array = np.asarray(positive, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    return lambda places: roc_auc(is_positive[places], array[places])


def _coded(names: Sequence[str]) -> Places:
    code = {name: number for number, name in enumerate(CLASSES)}
    return np.array([code.get(name, len(CLASSES)) for name in names], dtype=np.intp)
