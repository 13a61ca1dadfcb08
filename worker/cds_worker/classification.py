"""Third stage: what is each lesion?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cds_plugin.study import Lesion, Rgb
from cds_worker.segmentation import FoundLesion


class ClassificationPredictor(Protocol):
    """The `predictor` of dermoscopy_lesion_classification."""

    def __call__(self, rgb: Rgb, bboxes: Sequence[tuple[int, int, int, int]]) -> NDArray[np.float32]:
        """Return (N, 7) probabilities in the order of LesionClass; each row sums to 1."""


def classify(
    predictor: ClassificationPredictor, rgb: Rgb, found: Sequence[FoundLesion]
) -> tuple[Lesion, ...]:
    """Return the lesions numbered 1..N in the order given, each with its seven probabilities."""
    if not found:
        return ()
    boxes = [(each.bbox.x0, each.bbox.y0, each.bbox.x1, each.bbox.y1) for each in found]
    rows = np.asarray(predictor(rgb, boxes), dtype=np.float64)
    return tuple(
        Lesion(number, each.bbox, each.mask, each.score, tuple(row.tolist()))
        for number, (each, row) in enumerate(zip(found, rows, strict=True), start=1)
    )
