"""Figures of a classification: overall, malignancy, calibration, prediction sets, and class by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.classes import CLASSES, MALIGNANT_CLASSES
from cds_bundles.metric_calibration import Confidences, brier_score
from cds_bundles.metric_ranking import F2
from cds_bundles.metric_resampling import Bools, Floats, Measure, Places
from cds_plugin.study import OperatingPoint
from cds_worker.evaluation.task import Cells, Row

NO_FINDING = "none"
WANTED_SENSITIVITY = 0.95
COMPARED = (
    "balanced_accuracy",
    "accuracy",
    "malignancy_auc",
    "malignancy_sensitivity",
    "malignancy_specificity",
    "ece",
    "coverage",
    "mean_set_size",
)
"""Figures that are given with and without facts of the patient."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of a lesion, and which facts of the patient it rests on; all 0 where there is none."""

    probabilities: tuple[float, ...] = (0.0,) * len(CLASSES)
    prediction_set: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Classified(Row):
    """The answer about the largest lesion that counts, and those from the picture alone and with facts."""

    answer: Answer
    ood_score: float | None
    alone: Answer
    told: Answer

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Return the probabilities of the answer."""
        return self.answer.probabilities

    @property
    def prediction_set(self) -> tuple[str, ...]:
        """Return the prediction set of the answer."""
        return self.answer.prediction_set

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
            "facts": " ".join(self.answer.facts),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """All rows as arrays; an answer of len(CLASSES) is none."""

    labels: Places
    answers: Places
    probabilities: Floats
    malignant: Bools
    malignancy: Floats
    answered: Bools

    @classmethod
    def of(cls, rows: Sequence[Classified]) -> Columns:
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
        """Return the probability of each finding, and whether it is right."""
        return Confidences(self.probabilities.max(axis=1), self.labels == self.answers, self.answered)


def overall(columns: Columns) -> dict[str, Measure]:
    """Return the figures of all seven classes together."""
    labels, answers, count = columns.labels, columns.answers, len(CLASSES)
    return {
        "balanced_accuracy": metric_shares.balanced_accuracy(labels, answers, count),
        "accuracy": metric_shares.share(labels == answers),
        "macro_f1": metric_shares.macro_f1(labels, answers, count),
        "weighted_f1": metric_shares.weighted_f1(labels, answers, count),
        "share_without_finding": metric_shares.share(~columns.answered),
    }


def malignancy(columns: Columns, thresholds: Floats) -> dict[str, Measure]:
    """Return how malignant lesions are told from benign ones, each flagged from its threshold (N,) on."""
    ill, score = columns.malignant, columns.malignancy
    flagged = columns.answered & (score >= thresholds)
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


def headlines(rows: Sequence[Classified], point: OperatingPoint) -> dict[str, Measure]:
    """Return the few figures by which answers of two kinds to the same pictures are compared."""
    columns = Columns.of(rows)
    flagging = malignancy(columns, np.full(len(rows), point.malignancy_threshold))
    every = {
        **overall(columns),
        **flagging,
        **calibration(columns),
        **prediction_sets(rows, columns),
    }
    return {name: every[name] for name in COMPARED}


def calibration(columns: Columns) -> dict[str, Measure]:
    """Return whether the probabilities mean what they say, of pictures with a finding."""
    rows = columns.confidences
    return {
        "ece": rows.error(rows.equal_width()),
        "ece_equal_mass": rows.error(rows.equal_mass()),
        "brier_score": brier_score(columns.probabilities, columns.labels, columns.answered),
    }


def prediction_sets(rows: Sequence[Classified], columns: Columns) -> dict[str, Measure]:
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


def unfamiliar(rows: Sequence[Classified], threshold: float) -> Measure:
    """Return the share of lesions that are called unlike those learned from."""
    scores = np.array([np.nan if row.ood_score is None else row.ood_score for row in rows], np.float64)
    return metric_shares.share(scores >= threshold, ~np.isnan(scores))


def by_class(columns: Columns) -> Iterator[tuple[str, Measure]]:
    """Yield the figures of each class against all others."""
    for place, name in enumerate(CLASSES):
        true, said = columns.labels == place, columns.answers == place
        yield f"sensitivity_{name}", metric_shares.share(said, true)
        yield f"specificity_{name}", metric_shares.share(~said, ~true)
        yield f"precision_{name}", metric_shares.share(true, said)
        yield f"auc_{name}", metric_ranking.roc_auc(true, columns.probabilities[:, place])
