"""Third stage: what is each lesion?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cds_plugin.config import Findings
from cds_plugin.errors import Refused
from cds_plugin.photograph import ClinicalFacts
from cds_plugin.study import Appearance, Lesion, LesionClass, OperatingPoint, Rgb, Sha256
from cds_worker.segmentation import FoundLesion


class Opinion(Protocol):
    """What the classification bundle's predictor answers for one lesion."""

    @property
    def probabilities(self) -> Sequence[float]:
        """Return seven probabilities in the order of LesionClass, summing to 1."""

    @property
    def prediction_set(self) -> Sequence[str]:
        """Return the keys of the diagnoses that can't be left out."""

    @property
    def ood_score(self) -> float:
        """Return 0-1: how unlike the lesions that were learned from."""

    @property
    def appearance(self) -> tuple[float, ...]:
        """Return a vector of length one; its cosine with another says how alike two lesions look."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Return which of "age", "sex" and "site" the probabilities rest on beside the picture."""


class ClassificationPredictor(Protocol):
    """The `predictor` of dermoscopy_lesion_classification."""

    appearance_model: str
    """SHA-256 of all that makes an appearance: only those of one model can be compared."""

    @property
    def operating_points(self) -> Mapping[float, float]:
        """Return for each sensitivity on offer the malignancy from which on a lesion is flagged."""

    @property
    def informed_operating_points(self) -> Mapping[float, float]:
        """Return the same for malignancies that `informed` gave."""

    def informed(self, opinions: Sequence[Any], facts: ClinicalFacts) -> Sequence[Opinion]:
        """Return the opinions once the facts are known too; any of them may be missing."""

    def __call__(self, rgb: Rgb, bboxes: Sequence[tuple[int, int, int, int]]) -> Sequence[Opinion]:
        """Return an opinion on each lesion."""

    def activation_map(
        self, rgb: Rgb, bbox: tuple[int, int, int, int], name: str
    ) -> tuple[Rgb, NDArray[np.float32]]:
        """Return the crop (S, S, 3) that was looked at and the evidence in it for a class, (S, S) in 0-1."""


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """Where malignancy is flagged: judged by the picture alone, and with facts of the patient."""

    picture_alone: OperatingPoint
    with_facts: OperatingPoint

    def after(self, facts: Sequence[str]) -> OperatingPoint:
        """Return the one that holds once these `facts` were used."""
        return self.with_facts if facts else self.picture_alone


def classify(
    predictor: ClassificationPredictor,
    rgb: Rgb,
    found: Sequence[FoundLesion],
    facts: ClinicalFacts | None = None,
) -> tuple[tuple[Lesion, ...], tuple[str, ...]]:
    """Return the lesions numbered 1..N in the order given, each with the opinion on it, and the facts used.

    `facts` of patient and lesion are used as far as they are known; None: by the picture alone.
    """
    if not found:
        return (), ()
    boxes = [(each.bbox.x0, each.bbox.y0, each.bbox.x1, each.bbox.y1) for each in found]
    opinions = predictor(rgb, boxes)
    if facts is not None:
        opinions = predictor.informed(opinions, facts)
    lesions = (
        _lesion(number, *each, Sha256(predictor.appearance_model))
        for number, each in enumerate(zip(found, opinions, strict=True), start=1)
    )
    return tuple(lesions), tuple(opinions[0].facts)


def _lesion(number: int, found: FoundLesion, opinion: Opinion, model: Sha256) -> Lesion:
    return Lesion(
        number,
        found.bbox,
        found.mask,
        found.score,
        tuple(float(value) for value in opinion.probabilities),
        tuple(LesionClass(name) for name in opinion.prediction_set),
        float(opinion.ood_score),
        appearance=Appearance(tuple(opinion.appearance), model),
    )


def operating_points(predictor: ClassificationPredictor, findings: Findings) -> OperatingPoints:
    """Return the operating points that the settings ask for.

    Raises Refused, naming what the bundle offers, for a sensitivity that it has no threshold for.
    """
    return OperatingPoints(
        _operating_point(predictor.operating_points, findings),
        _operating_point(predictor.informed_operating_points, findings),
    )


def _operating_point(offered: Mapping[float, float], findings: Findings) -> OperatingPoint:
    if findings.malignancy_threshold is not None:
        return OperatingPoint(findings.malignancy_threshold, None, findings.ood_threshold)
    if findings.sensitivity not in offered:
        raise Refused(
            "bad_setting",
            f"findings.sensitivity: the classification bundle has no threshold for {findings.sensitivity}",
            f"Choose one of {', '.join(map(str, sorted(offered)))}, or set findings.malignancy_threshold.",
        )
    return OperatingPoint(offered[findings.sensitivity], findings.sensitivity, findings.ood_threshold)
