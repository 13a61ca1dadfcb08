"""What the pipeline says of a labelled picture, on the way that `analyze` takes, and the tone of its skin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cds_bundles.skin_tone import SkinTone, skin_tone
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.errors import Refused
from cds_plugin.photograph import Photograph
from cds_plugin.study import Analysis, Lesion, Mask, Quality
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.masks import read_labels
from cds_worker.inputs import InputKind, kind_of
from cds_worker.pipeline import Pipeline

NO_OUTLINE = SkinTone("no outline", None)
"""Neither a mask nor a find says where the skin begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One picture of (rows, columns) pixels as the pipeline sees it."""

    rows: int
    columns: int
    quality: Quality
    lesions: tuple[Lesion, ...]
    tone: SkinTone

    @property
    def largest(self) -> Lesion | None:
        """Return the lesion of the largest area."""
        return max(self.lesions, key=lambda each: each.area_px, default=None)

    def union(self) -> Mask:
        """Return (rows, columns) booleans: every pixel of any lesion."""
        return union_of(self.lesions, self.rows, self.columns)


def union_of(lesions: Sequence[Lesion], height: int, width: int) -> Mask:
    """Return (height, width) booleans: every pixel of any lesion."""
    union = np.zeros((height, width), dtype=np.bool_)
    for lesion in lesions:
        box = lesion.bbox
        union[box.y0 : box.y1, box.x0 : box.x1] |= lesion.mask
    return union


@dataclass(frozen=True, slots=True)
class Observer:
    """Runs the shipped pipeline on one picture after another."""

    pipeline: Pipeline
    decoder: Decoder
    max_pixels: int

    def observe(self, case: Case) -> Observation:
        """Return what the pipeline says; a JPEG or PNG becomes DICOM first. Raises Refused or Unavailable."""
        with TemporaryDirectory() as folder:
            source = case.path
            if _kind(source) is InputKind.PICTURE:
                source = Dicomizer(Path(folder), self.decoder, max_pixels=self.max_pixels).add(source)
            photograph = self.decoder.decode(source, self.max_pixels)
        analysis = self.pipeline.analyse(photograph)
        return Observation(
            rows=analysis.rows,
            columns=analysis.columns,
            quality=analysis.quality,
            lesions=analysis.lesions,
            tone=_tone(case, photograph, analysis),
        )


def _kind(path: Path) -> InputKind:
    try:
        return kind_of(path)
    except OSError as error:
        raise Refused("unreadable_file", f"{error.strerror}.", "Correct the column path.") from error


def _tone(case: Case, photograph: Photograph, analysis: Analysis) -> SkinTone:
    """Return the tone of the skin outside the true mask, or where there is none outside all finds."""
    outlines = union_of(analysis.lesions, analysis.rows, analysis.columns)
    if case.mask_path is not None:
        try:
            outlines = read_labels(case.mask_path, analysis.rows, analysis.columns) > 0
        except Refused:
            """Tasks that need the mask refuse the picture; this one figure can do without."""
    return skin_tone(photograph.rgb, outlines) if outlines.any() else NO_OUTLINE
