"""Second stage: where are the lesions?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cds_plugin.study import BoundingBox, Mask, Rgb


class Instance(Protocol):
    """One lesion as the segmentation bundle's predictor answers it."""

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Return (x0, y0, x1, y1) in pixels of the picture; x1 and y1 exclusive."""

    @property
    def mask(self) -> Mask:
        """Return booleans of shape (y1 - y0, x1 - x0)."""

    @property
    def score(self) -> float:
        """Return the detector's score, 0-1."""


class SegmentationPredictor(Protocol):
    """The `predictor` of dermoscopy_lesion_segmentation."""

    def __call__(self, rgb: Rgb) -> Sequence[Instance]:
        """Return the lesions of `rgb` (H, W, 3) uint8 sRGB."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundLesion:
    """A lesion with its outline, not yet named."""

    bbox: BoundingBox
    mask: Mask
    score: float


def find_lesions(predictor: SegmentationPredictor, rgb: Rgb) -> tuple[FoundLesion, ...]:
    """Return the lesions of `rgb` in the order that numbers them: falling score, then from top left.

    Lesion 1 is therefore the one that the detector is surest of.
    """
    found = [_translate(each) for each in predictor(rgb)]
    return tuple(sorted(found, key=lambda each: (-each.score, each.bbox.y0, each.bbox.x0)))


def _translate(instance: Instance) -> FoundLesion:
    bbox = BoundingBox(*(int(edge) for edge in instance.bbox))
    return FoundLesion(bbox, np.ascontiguousarray(instance.mask, dtype=np.bool_), float(instance.score))
