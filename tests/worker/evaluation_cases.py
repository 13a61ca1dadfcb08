"""Observations as the pipeline would make them, written down, so that every figure can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cds_bundles.skin_tone import SkinTone
from cds_plugin.study import (
    BoundingBox,
    BundleIdentity,
    Bundles,
    Lesion,
    LesionClass,
    Mask,
    OperatingPoint,
    Quality,
    Sha256,
    Verdict,
)
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation

ROWS, COLUMNS = 60, 80
BUNDLES = Bundles(
    *(BundleIdentity(name, "1.0", Sha256(digit * 64)) for name, digit in zip("abc", "123", strict=True))
)
LIGHT = SkinTone("light", 45.0)
POINT = OperatingPoint(0.5, 0.95, 0.9)


def probabilities(finding: str, certainty: float = 0.7) -> tuple[float, ...]:
    """Return seven that sum to 1, `certainty` for the finding."""
    rest = (1 - certainty) / 6
    return tuple(certainty if each == finding else rest for each in LesionClass)


def a_lesion(
    finding: str = "nv",
    box: tuple[int, int, int, int] = (20, 10, 50, 40),
    score: float = 0.9,
    certainty: float = 0.7,
    prediction_set: Sequence[str] = (),
    ood_score: float | None = None,
    number: int = 1,
) -> Lesion:
    """Return a lesion that fills its box."""
    bbox = BoundingBox(*box)
    mask = np.ones((bbox.height, bbox.width), np.bool_)
    named = tuple(LesionClass(each) for each in prediction_set or (finding,))
    return Lesion(number, bbox, mask, score, probabilities(finding, certainty), named, ood_score)


def an_observation(
    *lesions: Lesion,
    verdict: Verdict = Verdict.DIAGNOSTIC,
    psnr_db: float | None = 30.0,
    defect: float | None = None,
    tone: SkinTone = LIGHT,
) -> Observation:
    """Return what the pipeline says of a picture of 80 x 60 pixels."""
    return Observation(ROWS, COLUMNS, Quality(verdict, (), psnr_db, defect), lesions, tone)


def a_case(number: int = 0, dx: str = "nv", **facts: object) -> Case:
    """Return a labelled picture of a lesion of its own."""
    known: dict[str, object] = {"lesion_id": f"lesion-{number}", "mask_path": None, "split": "fold 0"}
    return Case(Path(f"{number}.png"), dx, **{**known, **facts})  # type: ignore[arg-type]


def a_mask(*boxes: tuple[int, int, int, int]) -> Mask:
    """Return (60, 80) booleans, true inside the boxes."""
    mask = np.zeros((ROWS, COLUMNS), np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def a_label_picture(path: Path, *boxes: tuple[int, int, int, int], step: int = 1) -> Path:
    """Write a picture in which the n-th box has the value n * step; return `path`."""
    labels = np.zeros((ROWS, COLUMNS), np.uint8)
    for number, box in enumerate(boxes, start=1):
        labels[a_mask(box)] = number * step
    Image.fromarray(labels).save(path)
    return path
