"""Is the finding the diagnosis, is malignancy told from benignity, and do the probabilities mean anything?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.classes import CLASSES, MALIGNANT_CLASSES
from cds_bundles.metric_calibration import BINS, Confidences, brier_score
from cds_bundles.metric_ranking import F2, benefit_of_flagging_all, net_benefit, threshold_table
from cds_bundles.metric_resampling import Bools, Floats, Measure, Places, estimates
from cds_plugin.study import OperatingPoint
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.task import Cells, Row, Task, common

NO_FINDING = "none"
WANTED_SENSITIVITY = 0.95
DECISION_THRESHOLDS = (0.01, *(each / 50 for each in range(1, 50)))
"""Risks of the decision curve: 1 %, then every 2 %."""
PLOTTED_POINTS = 200
"""Rows of the threshold table that go into figures.json and the plots; thresholds.csv holds all."""


@dataclass(frozen=True, slots=True)
class Classified(Row):
    """The answer about the largest lesion; probabilities are 0 where there is none."""

    probabilities: tuple[float, ...]
    prediction_set: tuple[str, ...]
    ood_score: float | None

    @property
    def finding(self) -> str:
        """Return the class of the largest probability, or "none"."""
        return CLASSES[int(np.argmax(self.probabilities))] if self.finds else NO_FINDING

    @property
    def malignancy(self) -> float:
        """Return p(akiec) + p(bcc) + p(mel)."""
        by_class = dict(zip(CLASSES, self.probabilities, strict=True))
        return sum(by_class[each] for each in MALIGNANT_CLASSES)

    def cells(self) -> Cells:
        """Return finding, malignancy, probabilities, and what else the classifier says."""
        rounded = {f"p_{name}": round(p, 6) for name, p in zip(CLASSES, self.probabilities, strict=True)}
        return {
            **Row.cells(self),
            "finding": self.finding,
            "malignancy": round(self.malignancy, 6),
            **rounded,
            "prediction_set": " ".join(self.prediction_set),
            "ood_score": "" if self.ood_score is None else round(self.ood_score, 6),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """All rows as arrays; an answer of len(CLASSES) is none."""

    labels: Places
    answers: Places
    probabilities: Floats
    malignant: Bools
    malignancy: Floats
    answered: Bools

    @classmethod
    def of(cls, rows: Sequence[Classified]) -> _Columns:
        place = {name: number for number, name in enumerate((*CLASSES, NO_FINDING))}
        return cls(
            labels=np.array([place[row.case.dx] for row in rows], np.intp),
            answers=np.array([place[row.finding] for row in rows], np.intp),
            probabilities=np.array([row.probabilities for row in rows], np.float64),
            malignant=np.array([row.case.dx in MALIGNANT_CLASSES for row in rows], np.bool_),
            malignancy=np.array([row.malignancy for row in rows], np.float64),
            answered=np.array([row.finds > 0 for row in rows], np.bool_),
        )

    @property
    def confidences(self) -> Confidences:
        return Confidences(self.probabilities.max(axis=1), self.labels == self.answers, self.answered)


@dataclass(frozen=True, slots=True)
class Classification(Task[Classified]):
    """Measures findings and malignancy; `point` is where malignancy is flagged."""

    point: OperatingPoint

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
            return Classified(*common(case, observation), (0.0,) * len(CLASSES), (), None)
        return Classified(
            *common(case, observation),
            largest.probabilities,
            tuple(each.value for each in largest.prediction_set),
            largest.ood_score,
        )

    def measures(self, rows: Sequence[Classified]) -> dict[str, Measure]:
        """Return overall figures, malignancy, calibration, prediction sets, then class by class."""
        columns = _Columns.of(rows)
        return {
            **_overall(columns),
            **_malignancy(columns, self.point.malignancy_threshold),
            **_calibration(columns),
            **_sets(rows, columns),
            "share_unfamiliar": _unfamiliar(rows, self.point.ood_threshold),
            **dict(_by_class(columns)),
        }

    def curves(self, rows: Sequence[Classified], split: str) -> dict[str, Any]:
        """Return confusion, thresholds, decision curve and reliability."""
        columns = _Columns.of(rows)
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
        }

    def tables(self, rows: Sequence[Classified]) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """Return every threshold of malignancy with what it gives."""
        columns = _Columns.of(rows)
        return {"thresholds.csv": threshold_table(columns.malignant, columns.malignancy)}

    def notes(self, rows: Sequence[Classified]) -> tuple[str, ...]:
        """Return the operating point, how calibration is counted, and what the curves depend on."""
        columns = _Columns.of(rows)
        reached = metric_ranking.threshold_reaching(columns.malignant, columns.malignancy, WANTED_SENSITIVITY)
        return (
            f"Malignant or premalignant is {', '.join(MALIGNANT_CLASSES)}. Operating point: malignancy of "
            f"{self.point.malignancy_threshold:.4g} or more ({self._source()}).",
            f"The specificity at {WANTED_SENSITIVITY:.0%} sensitivity takes the highest threshold that "
            f"reaches it on these very pictures ({reached:.4f}), and again on each draw: it is somewhat "
            "optimistic.",
            f"ece is the headline: {BINS} bins of equal width, as most papers count it; ece_equal_mass has "
            "as many pictures in each bin. Both bins are fixed on the whole sample, and both intervals are "
            "mirrored around the value, because drawing again inflates an error that can't be negative.",
            "Precision, F-scores, accuracy and net benefit depend on how frequent each diagnosis is "
            "in this index; a clinic's mix is another.",
        )

    def _source(self) -> str:
        sensitivity = self.point.sensitivity
        if sensitivity is None:
            return "set by the site: findings.malignancy_threshold"
        return f"the classification bundle's threshold for {sensitivity:.0%} sensitivity"


def _without_nan(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(value, 6) for name, value in row.items()}


def _overall(columns: _Columns) -> dict[str, Measure]:
    labels, answers, count = columns.labels, columns.answers, len(CLASSES)
    return {
        "balanced_accuracy": metric_shares.balanced_accuracy(labels, answers, count),
        "accuracy": metric_shares.share(labels == answers),
        "macro_f1": metric_shares.macro_f1(labels, answers, count),
        "weighted_f1": metric_shares.weighted_f1(labels, answers, count),
        "share_without_finding": metric_shares.share(~columns.answered),
    }


def _malignancy(columns: _Columns, threshold: float) -> dict[str, Measure]:
    ill, score = columns.malignant, columns.malignancy
    flagged = columns.answered & (score >= threshold)
    return {
        "malignancy_auc": metric_ranking.roc_auc(ill, score),
        "malignancy_sensitivity": metric_shares.share(flagged, ill),
        "malignancy_specificity": metric_shares.share(~flagged, ~ill),
        "malignancy_precision": metric_shares.share(ill, flagged),
        "malignancy_f1": metric_shares.f_score(flagged & ill, flagged, ill),
        "malignancy_f2": metric_shares.f_score(flagged & ill, flagged, ill, F2),
        "malignancy_specificity_at_95_sensitivity": metric_ranking.specificity_at_sensitivity(
            ill, score, WANTED_SENSITIVITY
        ),
    }


def _calibration(columns: _Columns) -> dict[str, Measure]:
    rows = columns.confidences
    return {
        "ece": rows.error(rows.equal_width()),
        "ece_equal_mass": rows.error(rows.equal_mass()),
        "brier_score": brier_score(columns.probabilities, columns.labels, columns.answered),
    }


def _sets(rows: Sequence[Classified], columns: _Columns) -> dict[str, Measure]:
    """Return coverage and size of the prediction sets of pictures with a finding."""
    given = columns.answered
    covered = np.array([row.case.dx in row.prediction_set for row in rows], np.bool_)
    sizes = np.array([len(row.prediction_set) for row in rows], np.float64)
    return {
        "coverage": metric_shares.share(covered, given),
        "mean_set_size": metric_shares.mean(np.where(given, sizes, np.nan)),
        "share_sets_of_one": metric_shares.share(sizes == 1, given),
        **{
            f"coverage_{name}": metric_shares.share(covered, given & (columns.labels == place))
            for place, name in enumerate(CLASSES)
        },
    }


def _unfamiliar(rows: Sequence[Classified], threshold: float) -> Measure:
    """Return the share of lesions that are called unlike those learned from."""
    scores = np.array([np.nan if row.ood_score is None else row.ood_score for row in rows], np.float64)
    return metric_shares.share(scores >= threshold, ~np.isnan(scores))


def _by_class(columns: _Columns) -> Iterator[tuple[str, Measure]]:
    for place, name in enumerate(CLASSES):
        true, said = columns.labels == place, columns.answers == place
        yield f"sensitivity_{name}", metric_shares.share(said, true)
        yield f"specificity_{name}", metric_shares.share(~said, ~true)
        yield f"precision_{name}", metric_shares.share(true, said)
        yield f"auc_{name}", metric_ranking.roc_auc(true, columns.probabilities[:, place])


def _decision(columns: _Columns, lesion_ids: Sequence[str], split: str) -> list[dict[str, Any]]:
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
