"""The four tasks: what is kept of each picture, and which figures are made of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cds_bundles.classes import CLASSES
from cds_plugin.errors import Refused
from cds_plugin.study import MALIGNANT_OR_PREMALIGNANT, Analysis, Lesion, LesionClass
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.figures import (
    Measure,
    area_under_roc,
    mean,
    mean_sensitivity,
    measured,
    ratio,
    sensitivity,
)
from cds_worker.evaluation.overlap import dice, iou, matches, union_of

Row = dict[str, object]
NO_FINDING = "none"


class TaskName(StrEnum):
    """What can be measured."""

    CLASSIFICATION = "classification"
    SEGMENTATION = "segmentation"
    INSTANCES = "instances"
    QUALITY = "quality"


class Task(ABC):
    """One measurement: `row` of each picture, `figures` of all rows."""

    policy: ClassVar[str]

    @abstractmethod
    def takes(self, case: Case) -> bool:
        """Return whether the case carries the label that this task needs."""

    @abstractmethod
    def row(self, case: Case, analysis: Analysis) -> Row:
        """Return what the per-picture table keeps."""

    @abstractmethod
    def measures(self, rows: Sequence[Row]) -> dict[str, Measure]:
        """Return the figures by name, as functions of the rows drawn."""

    def figures(self, rows: Sequence[Row]) -> dict[str, dict[str, object]]:
        """Return every figure with its interval over lesions."""
        lesion_ids = [str(row["lesion_id"]) for row in rows]
        return {name: measured(each, lesion_ids) for name, each in self.measures(rows).items()}


def common_row(case: Case, analysis: Analysis) -> Row:
    """Return the columns that every task keeps."""
    return {
        "path": str(case.path),
        "lesion_id": case.lesion_id,
        "dx": case.dx,
        "verdict": analysis.quality.verdict.value,
        "lesions": len(analysis.lesions),
    }


class Classification(Task):
    """Is the finding the diagnosis?"""

    policy = (
        "The finding of a picture is that of its largest lesion. A picture that is non-diagnostic, or in "
        'which nothing is found, counts as answered "none": wrong, with malignancy 0.'
    )

    def takes(self, case: Case) -> bool:
        """Return whether the diagnosis is one of the seven classes."""
        return case.dx in CLASSES

    def row(self, case: Case, analysis: Analysis) -> Row:
        """Return the largest lesion's finding, malignancy and probabilities."""
        largest = max(analysis.lesions, key=lambda each: each.area_px, default=None)
        return {
            **common_row(case, analysis),
            "finding": largest.finding.value if largest else NO_FINDING,
            "malignancy": largest.malignancy if largest else 0.0,
            **_probabilities(largest),
        }

    def measures(self, rows: Sequence[Row]) -> dict[str, Measure]:
        """Return balanced accuracy, accuracy, malignancy AUC and each class's sensitivity."""
        truth = [str(row["dx"]) for row in rows]
        answer = [str(row["finding"]) for row in rows]
        malignant = [one in MALIGNANT_OR_PREMALIGNANT for one in truth]
        return {
            "balanced_accuracy": mean_sensitivity(truth, answer),
            "accuracy": mean([float(one == other) for one, other in zip(truth, answer, strict=True)]),
            "malignancy_auc": area_under_roc(malignant, _numbers(rows, "malignancy")),
            **{f"sensitivity_{each}": sensitivity(truth, answer, each) for each in sorted(set(truth))},
        }


class Segmentation(Task):
    """Does the union of all outlines cover what the mask covers?"""

    policy = (
        "The union of all lesions found against the mask (pixels above half of its range); "
        "non-diagnostic or nothing found is an empty outline."
    )

    def takes(self, case: Case) -> bool:
        """Return whether there is a mask."""
        return case.mask_path is not None

    def row(self, case: Case, analysis: Analysis) -> Row:
        """Return IoU and Dice of one picture."""
        labels = _label_picture(case, analysis)
        truth = labels > labels.max() / 2
        found = union_of(analysis.lesions, analysis.rows, analysis.columns)
        return {**common_row(case, analysis), "iou": iou(found, truth), "dice": dice(found, truth)}

    def measures(self, rows: Sequence[Row]) -> dict[str, Measure]:
        """Return the means of both."""
        return {"mean_iou": mean(_numbers(rows, "iou")), "mean_dice": mean(_numbers(rows, "dice"))}


class Instances(Task):
    """Is every lesion found as one, and nothing else?"""

    policy = "The mask is a label picture: 0 is skin, every other value one lesion."

    def takes(self, case: Case) -> bool:
        """Return whether there is a label picture."""
        return case.mask_path is not None

    def row(self, case: Case, analysis: Analysis) -> Row:
        """Return how many lesions there are, were found, and agree."""
        labels = _label_picture(case, analysis)
        truth = [labels == value for value in np.unique(labels) if value]
        found = [each.full_mask(analysis.rows, analysis.columns) for each in analysis.lesions]
        return {
            **common_row(case, analysis),
            "true_lesions": len(truth),
            "matched": matches(found, truth),
            "count_right": float(len(found) == len(truth)),
        }

    def measures(self, rows: Sequence[Row]) -> dict[str, Measure]:
        """Return the share of pictures with the right count, and recall and precision at IoU 0.5."""
        matched = _numbers(rows, "matched")
        return {
            "count_accuracy": mean(_numbers(rows, "count_right")),
            "found_at_iou_50": ratio(matched, _numbers(rows, "true_lesions")),
            "precision_at_iou_50": ratio(matched, _numbers(rows, "lesions")),
        }


class QualityTask(Task):
    """What does the gate say?"""

    policy = "Shares of the three verdicts over all pictures; no label is needed."

    def takes(self, case: Case) -> bool:
        """Return True: every picture counts."""
        return True

    def row(self, case: Case, analysis: Analysis) -> Row:
        """Return verdict, reasons and PSNR."""
        quality = analysis.quality
        psnr = float("nan") if quality.psnr_db is None else quality.psnr_db
        return {**common_row(case, analysis), "psnr_db": psnr, "reasons": "; ".join(quality.reasons)}

    def measures(self, rows: Sequence[Row]) -> dict[str, Measure]:
        """Return the share of each verdict and the mean PSNR."""
        verdicts = Counter(str(row["verdict"]) for row in rows)
        shares = {
            f"share_{each}": mean([float(row["verdict"] == each) for row in rows])
            for each in sorted(verdicts)
        }
        return {**shares, "mean_psnr_db": mean(_numbers(rows, "psnr_db"))}


TASKS: dict[TaskName, Task] = {
    TaskName.CLASSIFICATION: Classification(),
    TaskName.SEGMENTATION: Segmentation(),
    TaskName.INSTANCES: Instances(),
    TaskName.QUALITY: QualityTask(),
}


def _numbers(rows: Sequence[Row], column: str) -> list[float]:
    return [float(str(row[column])) for row in rows]


def _probabilities(lesion: Lesion | None) -> Row:
    values = lesion.probabilities if lesion else (float("nan"),) * len(LesionClass)
    return {f"p_{each}": value for each, value in zip(LesionClass, values, strict=True)}


def _label_picture(case: Case, analysis: Analysis) -> NDArray[np.uint8]:
    if case.mask_path is None:
        raise Refused("no_mask", f"{case.path} has no mask.", "Fill the column mask_path.")
    try:
        with Image.open(case.mask_path) as picture:
            labels = np.asarray(
                picture.convert("L") if picture.mode not in ("L", "P", "I", "I;16") else picture
            )
    except OSError as error:
        raise Refused("bad_mask", f"{case.mask_path} can't be read: {error}.", "Give a PNG mask.") from error
    if labels.shape != (analysis.rows, analysis.columns):
        size = f"{labels.shape} instead of {(analysis.rows, analysis.columns)}"
        raise Refused("bad_mask", f"{case.mask_path} is {size}.", "Give a mask of the picture's size.")
    return labels
