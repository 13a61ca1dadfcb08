"""The frozen values that travel from pixels to results: photograph, quality, lesions, analysis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

SopInstanceUid = NewType("SopInstanceUid", str)
StudyInstanceUid = NewType("StudyInstanceUid", str)
SeriesInstanceUid = NewType("SeriesInstanceUid", str)
Sha256 = NewType("Sha256", str)
"""64 lower-case hexadecimal digits."""

UNIT_TOLERANCE = 1e-3

Mask = NDArray[np.bool_]
Rgb = NDArray[np.uint8]
"""(H, W, 3), sRGB, 0-255."""


class LesionClass(StrEnum):
    """The seven diagnostic classes of HAM10000 (Tschandl 2018), in the order of every probability vector."""

    AKIEC = "akiec"
    BCC = "bcc"
    BKL = "bkl"
    DF = "df"
    MEL = "mel"
    NV = "nv"
    VASC = "vasc"


MALIGNANT_OR_PREMALIGNANT = (LesionClass.AKIEC, LesionClass.BCC, LesionClass.MEL)


class Verdict(StrEnum):
    """Image quality as CID 7036 grades it."""

    DIAGNOSTIC = "diagnostic"
    LIMITED = "limited"
    NON_DIAGNOSTIC = "non_diagnostic"


class ResultKind(StrEnum):
    """The objects that may go back for one picture; a rule calls them forms."""

    SEGMENTATION = "seg"
    STRICT_SEGMENTATION = "seg-strict"
    """The masks without any invented geometry."""
    REPORT = "sr"
    OVERLAY = "overlay"
    PRESENTATION = "presentation"
    PDF = "pdf"
    HEAT_MAP = "heatmap"


USUAL_KINDS = frozenset({ResultKind.SEGMENTATION, ResultKind.REPORT, ResultKind.OVERLAY})
"""What is made of every picture; anything else only where a rule or a person asks for it."""


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """Pixels of the source picture; `x1` and `y1` are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 and 0 <= self.y0 < self.y1):
            raise ValueError(f"empty or negative bounding box {self.as_list()}")

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    def as_list(self) -> list[int]:
        """Return `[x0, y0, x1, y1]`."""
        return [self.x0, self.y0, self.x1, self.y1]


@dataclass(frozen=True, slots=True)
class Quality:
    """The gate's answer; `psnr_db` is None where no reconstruction was made.

    `defect` is the worst defect on one scale: over 0.5 a picture is doubtful, over 1 useless; None where the
    gate has no such scale.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    psnr_db: float | None
    defect: float | None = None


@dataclass(frozen=True, slots=True)
class Appearance:
    """How a lesion looks to one classifier: a vector of length one. Vectors of other models say nothing."""

    vector: tuple[float, ...]
    model: Sha256
    """Digest of the classification bundle."""

    def __post_init__(self) -> None:
        length = math.sqrt(math.fsum(value * value for value in self.vector))
        if not math.isclose(length, 1.0, abs_tol=UNIT_TOLERANCE):
            raise ValueError(f"an appearance has length 1, not {length}")

    def likeness(self, other: Appearance) -> float | None:
        """Return the cosine of both, -1 to 1; None where two models made them."""
        if self.model != other.model or len(self.vector) != len(other.vector):
            return None
        return math.fsum(a * b for a, b in zip(self.vector, other.vector, strict=True))


@dataclass(frozen=True, slots=True)
class Prior:
    """What an earlier report said of the same lesion; `likeness` is how alike both look, -1 to 1.

    `area_mm2` is None where it could not be measured then.
    """

    observed: datetime
    study_instance_uid: StudyInstanceUid
    malignancy: float
    area_mm2: float | None
    likeness: float


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """One lesion; `mask` is (height, width) of `bbox`, `probabilities` in the order of LesionClass."""

    number: int
    bbox: BoundingBox
    mask: Mask
    score: float
    probabilities: tuple[float, ...]
    prediction_set: tuple[LesionClass, ...] = tuple(LesionClass)
    """The diagnoses that can't be left out without missing the true one more often than promised."""
    ood_score: float | None = None
    """0-1: the share of held-out lesions that were less unlike those learned from; None where not known."""
    tracking_uid: str | None = None
    """The UID of a lesion that an earlier report knows already; None: it follows from picture and mask."""
    appearance: Appearance | None = None
    """How it looks; None where the model does not say."""
    prior: Prior | None = None
    """The same lesion at an earlier visit; None where none is known."""

    def __post_init__(self) -> None:
        if self.mask.shape != (self.bbox.height, self.bbox.width):
            raise ValueError(f"mask {self.mask.shape} does not fill its bounding box {self.bbox.as_list()}")
        if not self.mask.any():
            raise ValueError(f"lesion {self.number} has an empty mask")
        if len(self.probabilities) != len(LesionClass):
            raise ValueError(f"{len(self.probabilities)} probabilities for {len(LesionClass)} classes")

    @property
    def area_px(self) -> int:
        """Return the number of pixels inside the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def finding(self) -> LesionClass:
        """Return the class of the largest probability."""
        return max(zip(LesionClass, self.probabilities, strict=True), key=lambda pair: pair[1])[0]

    @property
    def malignancy(self) -> float:
        """Return p(akiec) + p(bcc) + p(mel): "malignant or premalignant", 0-1."""
        by_class = dict(zip(LesionClass, self.probabilities, strict=True))
        return sum(by_class[each] for each in MALIGNANT_OR_PREMALIGNANT)

    def full_mask(self, height: int, width: int) -> Mask:
        """Return the mask on a frame of (height, width)."""
        frame = np.zeros((height, width), dtype=np.bool_)
        frame[self.bbox.y0 : self.bbox.y1, self.bbox.x0 : self.bbox.x1] = self.mask
        return frame


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Which model answered: name and version from its metadata, digest of all its files."""

    name: str
    version: str
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Bundles:
    """The three bundles that make an analysis."""

    quality_gate: BundleIdentity
    segmentation: BundleIdentity
    classification: BundleIdentity

    def __iter__(self) -> Iterator[BundleIdentity]:
        return iter((self.quality_gate, self.segmentation, self.classification))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """From which malignancy on a lesion is flagged, and from which OOD score on it is called unfamiliar."""

    malignancy_threshold: float
    sensitivity: float | None
    """What the threshold was fitted to reach; None where a site chose the threshold itself."""
    ood_threshold: float

    def flags(self, lesion: Lesion) -> bool:
        """Return whether the lesion's malignancy reaches the threshold."""
        return lesion.malignancy >= self.malignancy_threshold

    def is_unfamiliar(self, lesion: Lesion) -> bool:
        """Return whether the lesion is unlike those that the algorithm learned from."""
        return lesion.ood_score is not None and lesion.ood_score >= self.ood_threshold


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """Where in the crop (S, S, 3) around a lesion its finding is seen: `evidence` (S, S), 0-1."""

    number: int
    finding: LesionClass
    crop: Rgb
    evidence: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What the pipeline says about one picture of (rows, columns) pixels.

    A picture that could not be decoded is non-diagnostic, with the reason of the refusal and no pixels seen.
    """

    rows: int
    columns: int
    quality: Quality
    lesions: tuple[Lesion, ...]
    bundles: Bundles
    operating_point: OperatingPoint | None = None
    patient_facts: tuple[str, ...] = ()
    """Which of "age", "sex" and "site" the probabilities rest on beside the picture."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    heat_maps: tuple[HeatMap, ...] = ()
    """Made only where their picture is wanted."""
    priors_sought: bool = False
    """Whether the lesions were looked for among the earlier reports on this patient."""

    @property
    def analysed(self) -> bool:
        """Return whether the picture went through segmentation and classification."""
        return self.quality.verdict is not Verdict.NON_DIAGNOSTIC
