"""Models without weights: they answer as the bundles' predictors do, or fail where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cds_plugin.photograph import ClinicalFacts
from cds_plugin.study import BundleIdentity, Bundles, LesionClass, OperatingPoint, Rgb, Sha256
from cds_worker.classification import OperatingPoints
from cds_worker.pipeline import Pipeline
from cds_worker.warming import SIDE_PX


@dataclass(frozen=True, slots=True)
class Assessment:
    verdict: str = "diagnostic"
    reasons: tuple[str, ...] = ()
    psnr_db: float | None = 30.0
    defect: float | None = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    bbox: tuple[int, int, int, int]
    mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
    score: float = 0.9


@dataclass(frozen=True, slots=True)
class Opinion:
    probabilities: tuple[float, ...] = (0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.1)
    prediction_set: tuple[str, ...] = (LesionClass.NV.value,)
    ood_score: float = 0.1
    appearance: tuple[float, ...] = (1.0, 0.0)
    facts: tuple[str, ...] = ()


@dataclass
class Segmenter:
    """Finds one square; `fail` is called with the number of the picture, counted as they come, from 1."""

    fail: Callable[[int], None] = lambda number: None
    seen: list[int] = field(default_factory=list)
    asked: int = 0
    device_is_well: bool = True

    def __call__(self, rgb: Rgb) -> Sequence[Square]:
        if rgb.shape[0] == SIDE_PX:
            if not self.device_is_well:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return ()
        self.asked += 1
        self.fail(self._number(rgb))
        return [Square((10, 10, 60, 50), np.ones((40, 50), np.bool_))]

    def _number(self, rgb: Rgb) -> int:
        digest = hash(rgb.tobytes())
        if digest not in self.seen:
            self.seen.append(digest)
        return self.seen.index(digest) + 1


@dataclass
class LosesItsDevice(Segmenter):
    """Fails for good, as a broken CUDA context does, from the picture on at which `marker` is a file."""

    marker: str = ""
    lost: bool = False

    def __call__(self, rgb: Rgb) -> Sequence[Square]:
        if rgb.shape[0] != SIDE_PX and Path(self.marker).exists():
            Path(self.marker).unlink()
            self.lost = True
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().__call__(rgb)


class Gate:
    """Likes every picture."""

    def __call__(self, rgb: Rgb) -> Assessment:
        return Assessment()


class Classifier:
    """Calls everything a naevus."""

    appearance_model: str = "cd" * 32
    operating_points: Mapping[float, float] = {0.95: 0.5}
    informed_operating_points: Mapping[float, float] = {0.95: 0.4}

    def __call__(self, rgb: Rgb, bboxes: Sequence[tuple[int, int, int, int]]) -> Sequence[Opinion]:
        return [Opinion() for _ in bboxes]

    def informed(self, opinions: Sequence[Opinion], facts: ClinicalFacts) -> Sequence[Opinion]:
        told = ("age",) if facts.age_years is not None else ()
        return [replace(each, facts=told) for each in opinions]


def answering_pipeline(segmenter: Segmenter, use_facts: bool = False) -> Pipeline:
    """Return a pipeline of models that answer at once."""
    names = ("dermoscopy_quality_gate", "dermoscopy_lesion_segmentation", "dermoscopy_lesion_classification")
    bundles = Bundles(*(BundleIdentity(name, "0.0.0", Sha256("ab" * 32)) for name in names))
    point = OperatingPoint(0.5, 0.95, 0.99)
    points = OperatingPoints(point, OperatingPoint(0.4, 0.95, 0.99))
    return Pipeline(bundles, "cpu", Gate(), segmenter, Classifier(), points, use_facts)
