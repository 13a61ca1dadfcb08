"""Is every lesion found as one, and nothing else?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cds_bundles import metric_shares
from cds_bundles.metric_instances import Finds, average_precision, matched
from cds_bundles.metric_overlap import iou
from cds_bundles.metric_resampling import Floats, Measure
from cds_plugin.study import Mask
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.masks import LABELS
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.segmentation import labels_of
from cds_worker.evaluation.task import Cells, Row, Task, common

LEAST_IOU = (0.50, 0.75)
MOST_COUNTED = 8
"""More lesions than this share the last row of the table of counts."""
MOST_LESIONS = 64
"""Lesions in one label picture; more values are no labels but a mask with soft edges."""


@dataclass(frozen=True, slots=True)
class Counted(Row):
    """True lesions of a picture, and its finds: scores, and which of them are lesions at either IoU."""

    lesions: int
    scores: tuple[float, ...]
    hits_50: tuple[bool, ...]
    hits_75: tuple[bool, ...]
    overlaps: tuple[float, ...]
    """IoU of each true lesion with the find that took it at 0.5; 0 where none did."""

    def cells(self) -> Cells:
        """Return counts and hits."""
        return {
            **Row.cells(self),
            "true_lesions": self.lesions,
            "matched": sum(self.hits_50),
            "matched_at_iou_75": sum(self.hits_75),
            "count_right": self.finds == self.lesions,
        }


class Instances(Task[Counted]):
    """Measures how lesions are told apart."""

    policy = (
        "The mask is a label picture: 0 is skin, every other value one lesion. Finds take lesions in the "
        "order of their score, each the free one that it overlaps most, from the stated IoU on."
    )
    headline = ("ap50", "sensitivity_at_iou_50", "precision_at_iou_50", "count_accuracy")

    def takes(self, case: Case) -> bool:
        """Return whether there is a label picture."""
        return case.mask_path is not None

    def row(self, case: Case, observation: Observation) -> Counted:
        """Return which finds are which lesions."""
        truth = _lesions(labels_of(case, observation))
        found = sorted(observation.lesions, key=lambda each: -each.score)
        masks = [each.full_mask(observation.rows, observation.columns) for each in found]
        table = _overlaps(masks, truth)
        at_50, at_75 = (matched(table, least) for least in LEAST_IOU)
        best = {lesion: table[find, lesion] for find, lesion in enumerate(at_50) if lesion is not None}
        return Counted(
            *common(case, observation),
            lesions=len(truth),
            scores=tuple(each.score for each in found),
            hits_50=tuple(each is not None for each in at_50),
            hits_75=tuple(each is not None for each in at_75),
            overlaps=tuple(float(best.get(lesion, 0.0)) for lesion in range(len(truth))),
        )

    def measures(self, rows: Sequence[Counted]) -> dict[str, Measure]:
        """Return average precisions, sensitivity and precision of the finds given, and right counts."""
        lesions, finds = _floats([row.lesions for row in rows]), _floats([row.finds for row in rows])
        hits = _floats([sum(row.hits_50) for row in rows])
        empty = lesions == 0
        right = np.array([row.finds == row.lesions for row in rows], np.bool_)
        return {
            "ap50": average_precision([Finds(row.scores, row.hits_50, row.lesions) for row in rows]),
            "ap75": average_precision([Finds(row.scores, row.hits_75, row.lesions) for row in rows]),
            "sensitivity_at_iou_50": metric_shares.ratio(hits, lesions, "lesions", share=True),
            "precision_at_iou_50": metric_shares.ratio(hits, finds, "finds", share=True),
            "mean_lesion_iou": metric_shares.ratio(
                _floats([sum(row.overlaps) for row in rows]), lesions, "lesions"
            ),
            "count_accuracy": metric_shares.share(right),
            "count_accuracy_several": metric_shares.share(right, lesions > 1),
            "false_finds_per_picture": metric_shares.mean(finds - hits),
            "share_empty_pictures_left_empty": metric_shares.share(finds == 0, empty),
        }

    def curves(self, rows: Sequence[Counted], split: str) -> dict[str, Any]:
        """Return precision over recall at both IoUs, and found against true counts."""
        counts = Counter((min(row.lesions, MOST_COUNTED), min(row.finds, MOST_COUNTED)) for row in rows)
        return {
            "precision_recall": {
                "IoU 0.50": _precision_recall([(row.scores, row.hits_50) for row in rows], _total(rows)),
                "IoU 0.75": _precision_recall([(row.scores, row.hits_75) for row in rows], _total(rows)),
            },
            "counts": [{"true": true, "found": found, "n": n} for (true, found), n in sorted(counts.items())],
        }

    def notes(self, rows: Sequence[Counted]) -> tuple[str, ...]:
        """Return how average precision is counted here."""
        return (
            "ap50 and ap75: as COCO, precision at 101 recall levels over the finds of all pictures by score. "
            "The pipeline gives only finds above its own threshold, so average precision can't exceed the "
            "sensitivity that this threshold leaves.",
            "mean_lesion_iou counts a missed lesion as 0.",
        )


def _lesions(labels: LABELS) -> list[Mask]:
    values = [value for value in np.unique(labels) if value]
    if len(values) > MOST_LESIONS:
        return [labels > labels.max() / 2]
    return [labels == value for value in values]


def _overlaps(found: Sequence[Mask], truth: Sequence[Mask]) -> NDArray[np.float64]:
    table = [[iou(one, other) for other in truth] for one in found]
    return np.array(table, np.float64).reshape(len(found), len(truth))


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, np.float64)


def _total(rows: Sequence[Counted]) -> int:
    return sum(row.lesions for row in rows)


def _precision_recall(
    pictures: Sequence[tuple[tuple[float, ...], tuple[bool, ...]]], lesions: int
) -> list[dict[str, float]]:
    """Return a point after each find, best score first."""
    finds = sorted(((score, hit) for one in pictures for score, hit in zip(*one, strict=True)), reverse=True)
    right = np.cumsum([hit for _, hit in finds])
    return [
        {"recall": round(int(hits) / lesions, 4), "precision": round(int(hits) / number, 4)}
        for number, hits in enumerate(right, start=1)
        if lesions
    ]
