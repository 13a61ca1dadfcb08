"""Does the union of all outlines cover what the mask covers, and does its border run where it should?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cds_bundles import metric_shares
from cds_bundles.metric_overlap import (
    BORDER_TOLERANCE,
    JACCARD_THRESHOLD,
    boundary_f1,
    dice,
    iou,
    thresholded_jaccard,
)
from cds_bundles.metric_resampling import Measure
from cds_plugin.errors import Refused
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.masks import LABELS, read_labels
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.task import Cells, Row, Task, common


@dataclass(frozen=True, slots=True)
class Outlined(Row):
    """How well the outline of one picture agrees."""

    iou: float
    dice: float
    boundary_f1: float

    def cells(self) -> Cells:
        """Return the three figures of the picture."""
        figures = {"iou": self.iou, "dice": self.dice, "boundary_f1": self.boundary_f1}
        return {**Row.cells(self), **{name: round(value, 6) for name, value in figures.items()}}


class Segmentation(Task[Outlined]):
    """Measures outlines."""

    policy = (
        "The union of all lesions found against the mask (pixels above half of its range). Non-diagnostic or "
        "nothing found is an empty outline: 0, or 1 where the mask is empty too."
    )
    headline = ("mean_dice", "mean_iou", "thresholded_jaccard", "mean_boundary_f1")

    def takes(self, case: Case) -> bool:
        """Return whether there is a mask."""
        return case.mask_path is not None

    def row(self, case: Case, observation: Observation) -> Outlined:
        """Return IoU, Dice and boundary F1 of one picture."""
        labels = labels_of(case, observation)
        truth = labels > labels.max() / 2
        found = observation.union()
        figures = iou(found, truth), dice(found, truth), boundary_f1(found, truth)
        return Outlined(*common(case, observation), *figures)

    def measures(self, rows: Sequence[Outlined]) -> dict[str, Measure]:
        """Return the means, the thresholded Jaccard index, and how often an outline failed."""
        overlap = np.array([row.iou for row in rows], np.float64)
        return {
            "mean_dice": metric_shares.mean([row.dice for row in rows]),
            "mean_iou": metric_shares.mean(overlap),
            "mean_boundary_f1": metric_shares.mean([row.boundary_f1 for row in rows]),
            "thresholded_jaccard": metric_shares.mean([thresholded_jaccard(row.iou) for row in rows]),
            "share_failed": metric_shares.share(overlap < JACCARD_THRESHOLD),
            "share_nothing_found": metric_shares.share(np.array([not row.finds for row in rows], np.bool_)),
            "share_one_find": metric_shares.share(np.array([row.finds == 1 for row in rows], np.bool_)),
        }

    def curves(self, rows: Sequence[Outlined], split: str) -> dict[str, Any]:
        """Return the distributions."""
        return {
            "distributions": {
                "IoU": [round(row.iou, 4) for row in rows],
                "Dice": [round(row.dice, 4) for row in rows],
                "boundary F1": [round(row.boundary_f1, 4) for row in rows],
            }
        }

    def notes(self, rows: Sequence[Outlined]) -> tuple[str, ...]:
        """Return the tolerance and the threshold."""
        return (
            f"Boundary F1: a border pixel is right within {BORDER_TOLERANCE:.2%} of the picture's diagonal, "
            "at least one pixel (Csurka et al., BMVC 2013).",
            f"Thresholded Jaccard as in ISIC 2018, Task 1: an IoU below {JACCARD_THRESHOLD} counts as 0; "
            "share_failed is the share of such pictures.",
        )


def labels_of(case: Case, observation: Observation) -> LABELS:
    """Return the values of the case's mask; raises Refused."""
    if case.mask_path is None:
        raise Refused("no_mask", f"{case.path} has no mask.", "Fill the column mask_path.")
    return read_labels(case.mask_path, observation.rows, observation.columns)
