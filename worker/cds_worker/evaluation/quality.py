"""What does the gate say of good pictures, and of each fault?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.classes import CLASSES
from cds_bundles.metric_resampling import Bools, Floats, Measure
from cds_plugin.study import Verdict
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.task import Cells, Row, Task, common

GOOD = "good"
# fmt: off
FAULTS = frozenset(
    (
        "blur", "blurred", "gaussian_blur", "motion_blur", "out_of_focus", "noise", "noisy", "jpeg",
        "low_contrast", "dark", "underexposed", "bright", "overexposed", "over_exposed", "glare",
        "colour_cast", "color_cast", "no_lesion", "bare_skin", "hair", "obscured", "cropped",
        "artefact", "non_skin", "nonskin", "drawn", "non_dermoscopic", "nondermoscopic", "clinical",
        "smartphone",
    )
)
# fmt: on
"""Words that name a fault in the column dx, where a stranger's diagnosis may stand too."""
VERDICTS = tuple(Verdict)
UNLABELLED = ""
DEFECT_SCORE = "the gate's worst defect (0.5 doubtful, 1 useless)"
VERDICT_SCORE = "the verdict alone (0, 1, 2), for want of a defect in the gate's answer"


@dataclass(frozen=True, slots=True)
class Judged(Row):
    """The gate's answer; `label` is "good", the name of a fault, or empty."""

    label: str
    reasons: tuple[str, ...]
    psnr_db: float | None
    defect: float | None
    ood_score: float | None

    def cells(self) -> Cells:
        """Return label, defect, PSNR and reasons."""
        return {
            **Row.cells(self),
            "label": self.label,
            "defect": "" if self.defect is None else round(self.defect, 4),
            "psnr_db": "" if self.psnr_db is None else round(self.psnr_db, 2),
            "ood_score": "" if self.ood_score is None else round(self.ood_score, 6),
            "reasons": "; ".join(self.reasons),
        }


class QualityTask(Task[Judged]):
    """Measures the quality gate."""

    policy = (
        'The label is any word in the column "quality" ("good", or the name of a fault), else that in "dx" '
        "where it names a known fault. A picture with one of the seven diagnoses counts as good. Pictures "
        "without a label count in the shares of verdicts alone."
    )
    headline = ("good_analysed", "good_diagnostic", "faults_noticed", "share_non_diagnostic")

    def takes(self, case: Case) -> bool:
        """Return True: every picture counts."""
        return True

    def row(self, case: Case, observation: Observation) -> Judged:
        """Return the gate's answer."""
        quality, largest = observation.quality, observation.largest
        return Judged(
            *common(case, observation),
            label=label_of(case),
            reasons=quality.reasons,
            psnr_db=quality.psnr_db,
            defect=quality.defect,
            ood_score=largest.ood_score if largest else None,
        )

    def measures(self, rows: Sequence[Judged]) -> dict[str, Measure]:
        """Return shares of verdicts, what becomes of good pictures, and each fault against the good ones."""
        labels = np.array([row.label for row in rows])
        verdicts = np.array([row.verdict.value for row in rows])
        good, faulty = labels == GOOD, (labels != GOOD) & (labels != UNLABELLED)
        analysed, diagnostic = verdicts != Verdict.NON_DIAGNOSTIC, verdicts == Verdict.DIAGNOSTIC
        by_fault = (_of_fault(rows, labels, fault, good) for fault in _faults(rows))
        return {
            **{f"share_{each}": metric_shares.share(verdicts == each) for each in VERDICTS},
            "good_analysed": metric_shares.share(analysed, good),
            "good_diagnostic": metric_shares.share(diagnostic, good),
            "faults_noticed": metric_shares.share(~diagnostic, faulty),
            "faults_refused": metric_shares.share(~analysed, faulty),
            **{name: measure for measures in by_fault for name, measure in measures},
            "mean_psnr_db": metric_shares.mean(_known([row.psnr_db for row in rows])),
        }

    def curves(self, rows: Sequence[Judged], split: str) -> dict[str, Any]:
        """Return verdicts by label, and the scores of each label."""
        counts = Counter((row.label or "no label", row.verdict.value) for row in rows)
        labels = sorted({label for label, _ in counts}, key=lambda each: (each != GOOD, each))
        scores, source = _scores(rows)
        return {
            "verdicts": {
                label: {verdict.value: counts[label, verdict.value] for verdict in VERDICTS}
                for label in labels
            },
            "scores": {
                label: [
                    round(float(score), 4)
                    for score, row in zip(scores, rows, strict=True)
                    if (row.label or "no label") == label
                ]
                for label in labels
            },
            "score": source,
        }

    def notes(self, rows: Sequence[Judged]) -> tuple[str, ...]:
        """Return which score is ranked."""
        return (
            f"auc_<fault>: pictures with the fault against good ones, ranked by {_scores(rows)[1]}. "
            "psnr_auc_<fault>: the same by low PSNR of the autoencoder alone.",
            "noticed_<fault>: share that is limited or non-diagnostic; refused_<fault>: share that is "
            "non-diagnostic and so not analysed.",
        )


def label_of(case: Case) -> str:
    """Return "good", the name of a fault, or nothing."""
    if case.quality:
        return _word(case.quality)
    if case.dx in CLASSES:
        return GOOD
    word = _word(case.dx)
    return word if word == GOOD or word in FAULTS else UNLABELLED


def _word(label: str) -> str:
    return label.replace("-", "_").replace(" ", "_")


def _faults(rows: Sequence[Judged]) -> list[str]:
    return sorted({row.label for row in rows} - {GOOD, UNLABELLED})


def _of_fault(
    rows: Sequence[Judged], labels: np.ndarray[Any, np.dtype[np.str_]], fault: str, good: Bools
) -> Iterator[tuple[str, Measure]]:
    faulty = np.asarray(labels == fault, np.bool_)
    verdicts = np.array([row.verdict.value for row in rows])
    psnr, strange = _known([row.psnr_db for row in rows]), _known([row.ood_score for row in rows])
    yield f"auc_{fault}", metric_ranking.roc_auc(faulty, _scores(rows)[0], faulty | good)
    yield f"noticed_{fault}", metric_shares.share(verdicts != Verdict.DIAGNOSTIC, faulty)
    yield f"refused_{fault}", metric_shares.share(verdicts == Verdict.NON_DIAGNOSTIC, faulty)
    measured = (faulty | good) & ~np.isnan(psnr)
    yield f"psnr_auc_{fault}", metric_ranking.roc_auc(faulty, -np.nan_to_num(psnr), measured)
    if not np.isnan(strange).all():
        with_score = (faulty | good) & ~np.isnan(strange)
        yield f"ood_auc_{fault}", metric_ranking.roc_auc(faulty, np.nan_to_num(strange), with_score)


def _scores(rows: Sequence[Judged]) -> tuple[Floats, str]:
    defects = _known([row.defect for row in rows])
    if np.isnan(defects).any():
        return np.array([VERDICTS.index(row.verdict) for row in rows], np.float64), VERDICT_SCORE
    return defects, DEFECT_SCORE


def _known(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)
