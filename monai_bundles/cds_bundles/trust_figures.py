"""Figures of a classifier's calibrated answers, with 95 % intervals over lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.calibration import VectorScaling, malignancy
from cds_bundles.classes import CLASSES, MALIGNANT_COLUMNS
from cds_bundles.clinical_facts import REGION_OF, SEXES, KnownFacts
from cds_bundles.lesion_answers import Seen
from cds_bundles.metric_calibration import Confidences
from cds_bundles.metric_resampling import ROUNDS, Measure, estimates

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AGE_BANDS = ((0, 30), (30, 50), (50, 70), (70, 200))
HEADLINE_SENSITIVITY = 0.95
FEWEST = 20
"""Pictures that a subgroup needs for figures of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Probabilities (N, 7), prediction sets (N, 7), and who is flagged (N,) for each wanted sensitivity."""

    rows: Floats
    sets: Bools
    flagged: Mapping[float, Bools]

    @classmethod
    def empty(cls, count: int, wanted: Sequence[float]) -> Answers:
        """Answers to be filled in."""
        shape = (count, len(CLASSES))
        return cls(
            np.zeros(shape), np.zeros(shape, np.bool_), {each: np.zeros(count, np.bool_) for each in wanted}
        )

    def of(self, chosen: Bools) -> Answers:
        """The cases that are `chosen`."""
        flagged = {wanted: hits[chosen] for wanted, hits in self.flagged.items()}
        return Answers(self.rows[chosen], self.sets[chosen], flagged)


def figures_of(answers: Answers, seen: Seen) -> dict[str, Any]:
    """All figures: of all pictures, of those that histology confirmed, of sets and operating points."""
    confirmed = seen.confirmed
    return {
        "all_pictures": _classes(answers, seen),
        "histology_confirmed": _classes(answers.of(confirmed), seen.of(confirmed)),
        "prediction_sets": _sets(answers, seen),
        "operating_points": {
            f"{wanted:.2f}": _figures(_flags(hits, seen), seen) for wanted, hits in answers.flagged.items()
        },
    }


def headline(answers: Answers, seen: Seen) -> dict[str, Any]:
    """The figures by which variants are compared."""
    return _figures(
        {**_overall(answers, seen), **_coverage(answers, seen), **_at_headline(answers, seen)}, seen
    )


def subgroups(answers: Answers, seen: Seen, skin: Sequence[str]) -> dict[str, Any]:
    """Figures by age, sex, region and skin tone, of groups with FEWEST pictures and more."""
    names: dict[str, list[str]] = {
        "age": [_age_band(each) for each in seen.facts],
        "sex": [each.sex if each.sex in SEXES else "" for each in seen.facts],
        "region": [REGION_OF.get(each.site, "") for each in seen.facts],
        "skin_tone": list(skin),
    }
    return {
        facet: {
            group: _subgroup(answers, seen, np.array([name == group for name in of_case]))
            for group in sorted(set(of_case) - {""})
            if of_case.count(group) >= FEWEST
        }
        for facet, of_case in names.items()
    }


def _age_band(facts: KnownFacts) -> str:
    if facts.age_years is None:
        return ""
    low, high = next((low, high) for low, high in AGE_BANDS if facts.age_years < high)
    return f"{low} to {high - 1}" if high < AGE_BANDS[-1][1] else f"{low} and over"


def _subgroup(answers: Answers, seen: Seen, chosen: Bools) -> dict[str, Any]:
    some, cases = answers.of(chosen), seen.of(chosen)
    ill = np.isin(cases.labels, MALIGNANT_COLUMNS)
    measures = {
        "accuracy": metric_shares.share(some.rows.argmax(axis=1) == cases.labels),
        "malignancy_auc": metric_ranking.roc_auc(ill, malignancy(some.rows)),
        **_at_headline(some, cases),
    }
    return _figures(measures, cases)


def _figures(measures: Mapping[str, Measure], seen: Seen) -> dict[str, Any]:
    found = estimates(measures, seen.groups, "", ROUNDS)
    return {
        name: {"value": each["value"], "interval_95": each["interval_95"], "n": each["n"]}
        for name, estimate in found.items()
        for each in [estimate.as_json()]
        if each["value"] is not None
    }


def _classes(answers: Answers, seen: Seen) -> dict[str, Any]:
    said = answers.rows.argmax(axis=1)
    plain = VectorScaling((1.0,) * len(CLASSES), (0.0,) * len(CLASSES)).probabilities(
        seen.logits.mean(axis=1)
    )
    measures = {
        **_overall(answers, seen),
        "macro_f1": metric_shares.macro_f1(seen.labels, said, len(CLASSES)),
        "ece_uncalibrated": _calibration_error(plain, seen),
    }
    by_class = {
        name: metric_shares.share(said == column, seen.labels == column)
        for column, name in enumerate(CLASSES)
    }
    return {**_figures(measures, seen), "sensitivity": _figures(by_class, seen)}


def _overall(answers: Answers, seen: Seen) -> dict[str, Measure]:
    labels, said = seen.labels, answers.rows.argmax(axis=1)
    ill = np.isin(labels, MALIGNANT_COLUMNS)
    return {
        "balanced_accuracy": metric_shares.balanced_accuracy(labels, said, len(CLASSES)),
        "accuracy": metric_shares.share(labels == said),
        "malignancy_auc": metric_ranking.roc_auc(ill, malignancy(answers.rows)),
        "ece": _calibration_error(answers.rows, seen),
    }


def _calibration_error(rows: Floats, seen: Seen) -> Measure:
    right = rows.argmax(axis=1) == seen.labels
    confidences = Confidences(rows.max(axis=1), right, np.ones(len(right), np.bool_))
    return confidences.error(confidences.equal_width())


def _coverage(answers: Answers, seen: Seen) -> dict[str, Measure]:
    covered = answers.sets[np.arange(len(seen.labels)), seen.labels]
    return {
        "coverage": metric_shares.share(covered),
        "mean_set_size": metric_shares.mean(answers.sets.sum(axis=1).astype(np.float64)),
    }


def _sets(answers: Answers, seen: Seen) -> dict[str, Any]:
    covered = answers.sets[np.arange(len(seen.labels)), seen.labels]
    by_class = {
        name: metric_shares.share(covered, seen.labels == column) for column, name in enumerate(CLASSES)
    }
    return {**_figures(_coverage(answers, seen), seen), "coverage_by_class": _figures(by_class, seen)}


def _flags(hits: Bools, seen: Seen) -> dict[str, Measure]:
    ill = np.isin(seen.labels, MALIGNANT_COLUMNS)
    return {
        "sensitivity": metric_shares.share(hits, ill),
        "specificity": metric_shares.share(~hits, ~ill),
    }


def _at_headline(answers: Answers, seen: Seen) -> dict[str, Measure]:
    measures = _flags(answers.flagged[HEADLINE_SENSITIVITY], seen)
    return {f"{name}_at_{HEADLINE_SENSITIVITY:.2f}": measure for name, measure in measures.items()}
