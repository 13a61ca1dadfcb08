"""Is the finding the diagnosis, is malignancy told from benignity, and do the probabilities mean anything?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cds_bundles import metric_shares
from cds_bundles.classes import CLASSES, MALIGNANT_CLASSES
from cds_bundles.metric_calibration import BINS
from cds_bundles.metric_ranking import (
    benefit_of_flagging_all,
    net_benefit,
    threshold_reaching,
    threshold_table,
)
from cds_bundles.metric_resampling import Floats, Measure, estimates
from cds_plugin.study import OperatingPoint
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.classification_figures import (
    NO_FINDING,
    WANTED_SENSITIVITY,
    Answer,
    Classified,
    Columns,
    by_class,
    calibration,
    headlines,
    malignancy,
    overall,
    prediction_sets,
    unfamiliar,
)
from cds_worker.evaluation.facts import WITH, WITHOUT, FactsReading, of_part
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.task import Task, common

DECISION_THRESHOLDS = (0.01, *(each / 50 for each in range(1, 50)))
"""Risks of the decision curve: 1 %, then every 2 %."""
PLOTTED_POINTS = 200
"""Rows of the threshold table that go into figures.json and the plots; thresholds.csv holds all."""


@dataclass(frozen=True, slots=True)
class Classification(Task[Classified]):
    """Measures findings and malignancy; `point` is where malignancy is flagged."""

    point: OperatingPoint
    facts: FactsReading | None = None
    """How age, sex and site of the index are used; None: not at all."""

    policy = (
        "The finding of a picture is that of its largest lesion. A picture that is non-diagnostic, or in "
        'which nothing is found, counts as answered "none": wrong for every class, with malignancy 0. '
        "Calibration and prediction sets are measured on the pictures with a finding."
    )
    headline = (
        "balanced_accuracy",
        "accuracy",
        "malignancy_auc",
        "malignancy_sensitivity",
        "malignancy_specificity",
    )

    def takes(self, case: Case) -> bool:
        """Return whether the diagnosis is one of the seven classes."""
        return case.dx in CLASSES

    def row(self, case: Case, observation: Observation) -> Classified:
        """Return the largest lesion's answer."""
        largest = observation.largest
        if largest is None:
            return Classified(*common(case, observation), Answer(), None, Answer(), Answer())
        alone = Answer(largest.probabilities, tuple(each.value for each in largest.prediction_set))
        told = Answer()
        if self.facts is not None:
            opinion = self.facts.informed(case, largest)
            told = Answer(tuple(opinion.probabilities), tuple(opinion.prediction_set), tuple(opinion.facts))
        used = told if self.facts is not None and self.facts.in_use and told.facts else alone
        return Classified(*common(case, observation), used, largest.ood_score, alone, told)

    def measures(self, rows: Sequence[Classified]) -> dict[str, Measure]:
        """Return overall figures, malignancy, calibration, prediction sets, then class by class.

        Where the index tells something of patients, the weightiest follow without and with it.
        """
        columns = Columns.of(rows)
        return {
            **overall(columns),
            **malignancy(columns, self._thresholds(rows)),
            **calibration(columns),
            **prediction_sets(rows, columns),
            "share_unfamiliar": unfamiliar(rows, self.point.ood_threshold),
            **dict(by_class(columns)),
            **self._by_facts(rows),
        }

    def _thresholds(self, rows: Sequence[Classified]) -> Floats:
        """Return the malignancy from which on each row is flagged, (N,)."""
        told = self.point if self.facts is None else self.facts.point
        points = (told if row.answer.facts else self.point for row in rows)
        return np.array([point.malignancy_threshold for point in points])

    def _by_facts(self, rows: Sequence[Classified]) -> dict[str, Measure]:
        """Return the same few figures twice, of the lesions that the index tells something of."""
        places = np.array([place for place, row in enumerate(rows) if row.told.facts], np.intp)
        if self.facts is None or not places.size:
            return {}
        told = [rows[place] for place in places]
        with_facts = [replace(row, answer=row.told) for row in told]
        alone = [replace(row, answer=row.alone) for row in told]
        return {
            **of_part(headlines(alone, self.point), places, len(rows), WITHOUT),
            **of_part(headlines(with_facts, self.facts.point), places, len(rows), WITH),
        }

    def curves(self, rows: Sequence[Classified], split: str) -> dict[str, Any]:
        """Return confusion, thresholds, decision curve and reliability."""
        columns = Columns.of(rows)
        table = threshold_table(columns.malignant, columns.malignancy)
        return {
            "confusion": {
                "classes": [*CLASSES, NO_FINDING],
                "table": metric_shares.confusion(columns.labels, columns.answers, len(CLASSES)).tolist(),
            },
            "thresholds": [_without_nan(row) for row in table[:: max(1, len(table) // PLOTTED_POINTS)]],
            "operating_point": {"threshold": self.point.malignancy_threshold, "source": self._source()},
            "decision": _decision(columns, [row.case.lesion_id for row in rows], split),
            "reliability": {
                "equal_width": columns.confidences.diagram(columns.confidences.equal_width()),
                "equal_mass": columns.confidences.diagram(columns.confidences.equal_mass()),
            },
            "ece_by_chance": _by_chance(columns),
        }

    def tables(self, rows: Sequence[Classified]) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """Return every threshold of malignancy with what it gives."""
        columns = Columns.of(rows)
        return {"thresholds.csv": threshold_table(columns.malignant, columns.malignancy)}

    def notes(self, rows: Sequence[Classified]) -> tuple[str, ...]:
        """Return the operating point, how calibration is counted, and what the curves depend on."""
        columns = Columns.of(rows)
        reached = threshold_reaching(columns.malignant, columns.malignancy, WANTED_SENSITIVITY)
        return (
            f"Malignant or premalignant is {', '.join(MALIGNANT_CLASSES)}. Operating point: malignancy of "
            f"{self.point.malignancy_threshold:.4g} or more ({self._source()}).",
            f"The specificity at {WANTED_SENSITIVITY:.0%} sensitivity takes the highest threshold that "
            f"reaches it on these very pictures ({reached:.4f}), and again on each draw: it is somewhat "
            "optimistic.",
            f"ece is the headline: {BINS} bins of equal width, as most papers count it; ece_equal_mass has "
            "as many pictures in each bin. Both bins are fixed on the whole sample, and both intervals are "
            "mirrored around the value, because drawing again inflates an error that can't be negative. "
            f"{_chance_note(columns)}",
            *self._facts_note(rows),
            "Precision, F-scores, accuracy and net benefit depend on how frequent each diagnosis is "
            "in this index; a clinic's mix is another.",
        )

    def _facts_note(self, rows: Sequence[Classified]) -> tuple[str, ...]:
        told = sum(bool(row.told.facts) for row in rows)
        if self.facts is None or not told:
            return ()
        main = "with" if self.facts.in_use else "without"
        return (
            f"The index tells age, sex or site of {told} pictures with a finding: figures that begin with "
            f"{WITH} and {WITHOUT} are of just these, judged with and without it, with operating points of "
            f"{self.facts.point.malignancy_threshold:.4g} and {self.point.malignancy_threshold:.4g}. All "
            f"others are {main} it, as the setting findings.use_patient_facts says. The facts of this index "
            "may tell more than a clinic's: age alone tells much where nevi are of the young.",
        )

    def _source(self) -> str:
        sensitivity = self.point.sensitivity
        if sensitivity is None:
            return "set by the site: findings.malignancy_threshold"
        return f"the classification bundle's threshold for {sensitivity:.0%} sensitivity"


def _by_chance(columns: Columns) -> dict[str, Any] | None:
    """Return the calibration error that perfect calibration would show on as many pictures."""
    rows = columns.confidences
    if not rows.among.any():
        return None
    expected, low, high = rows.error_by_chance(rows.equal_width())
    return {"value": round(expected, 4), "interval_95": [round(low, 4), round(high, 4)]}


def _chance_note(columns: Columns) -> str:
    chance = _by_chance(columns)
    if chance is None:
        return ""
    low, high = chance["interval_95"]
    return (
        f"Perfect calibration would show an ece of {chance['value']:.3f} ({low:.3f} to {high:.3f}) by chance "
        "on as many pictures with these probabilities."
    )


def _without_nan(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(value, 6) for name, value in row.items()}


def _decision(columns: Columns, lesion_ids: Sequence[str], split: str) -> list[dict[str, Any]]:
    """Return the net benefit with its interval at each risk, and that of flagging all."""
    measures = {
        str(risk): net_benefit(columns.malignant, columns.malignancy, risk) for risk in DECISION_THRESHOLDS
    }
    found = estimates(measures, lesion_ids, split)
    every = benefit_of_flagging_all(columns.malignant, DECISION_THRESHOLDS)
    return [
        {
            "threshold": risk,
            "net_benefit": found[str(risk)].as_json()["value"],
            "interval_95": found[str(risk)].as_json()["interval_95"],
            "flagging_all": round(float(all_flagged), 4),
        }
        for risk, all_flagged in zip(DECISION_THRESHOLDS, every, strict=True)
    ]
