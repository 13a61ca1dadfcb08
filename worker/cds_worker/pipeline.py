"""The sentence that everything here is about: quality, segmentation, classification, results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from pydicom import Dataset

from cds_plugin.config import Profile, Settings
from cds_plugin.elements import element_value
from cds_plugin.errors import CdsError
from cds_plugin.photograph import Photograph
from cds_plugin.results.build import BuiltResult, Wanted, build_results
from cds_plugin.results.predecessors import Predecessor
from cds_plugin.study import (
    USUAL_KINDS,
    Analysis,
    Bundles,
    Lesion,
    OperatingPoint,
    Quality,
    ResultKind,
    Rgb,
    Verdict,
)
from cds_worker.activation import heat_maps
from cds_worker.bundle import check_bundles, load_predictor
from cds_worker.classification import ClassificationPredictor, OperatingPoints, classify, operating_points
from cds_worker.quality import QualityPredictor, assess, not_decoded
from cds_worker.segmentation import SegmentationPredictor, find_lesions
from cds_worker.stack import Stack, devices, import_stack
from cds_worker.stage import stage


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """Three predictors on one device, and who they are."""

    bundles: Bundles
    device: str
    quality_gate: QualityPredictor
    segmenter: SegmentationPredictor
    classifier: ClassificationPredictor
    operating_points: OperatingPoints
    use_patient_facts: bool
    strict: bool = False
    """Whether the usual SEG goes without invented geometry."""

    @property
    def operating_point(self) -> OperatingPoint:
        """Return where malignancy is flagged that was judged by the picture alone."""
        return self.operating_points.picture_alone

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return the pipeline for one process that needs no other: libraries imported, first device taken.

        Bad bundles are refused before the slow import; what a library prints goes to stderr.
        """
        check_bundles(settings.bundles)
        with redirect_stdout(sys.stderr):
            stack = import_stack()
            return cls.load(settings, stack, devices(stack, settings.worker.device)[0])

    @classmethod
    def load(cls, settings: Settings, stack: Stack, device: str) -> Self:
        """Return the pipeline of the bundles in the settings, on `device`.

        Raises Refused for a bundle that is missing, altered or can't be built.
        """
        checked = check_bundles(settings.bundles)
        gate, segmenter, classifier = (
            load_predictor(each, stack, device)
            for each in (checked.quality_gate, checked.segmentation, checked.classification)
        )
        points = operating_points(classifier, settings.findings)
        use_facts = settings.findings.use_patient_facts
        strict = settings.results.segmentation is Profile.STRICT
        return cls(checked.identities, device, gate, segmenter, classifier, points, use_facts, strict)

    def analyse(self, photograph: Photograph) -> Analysis:
        """Return the quality verdict and, unless it is non-diagnostic, every lesion found and named.

        Raises StageFailed, a Refused, where a model can't do with this picture.
        """
        seconds: dict[str, float] = {}
        lesions: tuple[Lesion, ...] = ()
        facts_used: tuple[str, ...] = ()
        facts = photograph.clinical if self.use_patient_facts else None
        with stage(seconds, "quality"):
            quality = assess(self.quality_gate, photograph.rgb)
        if quality.verdict is not Verdict.NON_DIAGNOSTIC:
            with stage(seconds, "segmentation"):
                found = find_lesions(self.segmenter, photograph.rgb)
            with stage(seconds, "classification"):
                lesions, facts_used = classify(self.classifier, photograph.rgb, found, facts)
        rows, columns = photograph.rgb.shape[:2]
        point = self.operating_points.after(facts_used)
        return Analysis(rows, columns, quality, lesions, self.bundles, point, facts_used, seconds)

    def not_analysed(self, header: Dataset, refusal: CdsError) -> Analysis:
        """Return the analysis of a picture whose pixels could not be had: non-diagnostic, for that reason."""
        quality: Quality = not_decoded(refusal)
        rows, columns = (_count(element_value(header, each)) for each in ("Rows", "Columns"))
        return Analysis(rows, columns, quality, (), self.bundles)

    def results(
        self,
        header: Dataset,
        rgb: Rgb | None,
        analysis: Analysis,
        revision: int,
        predecessors: Sequence[Predecessor] = (),
        kinds: frozenset[ResultKind] = USUAL_KINDS,
        *,
        frame: int | None = 1,
        created: datetime | None = None,
    ) -> tuple[Analysis, tuple[BuiltResult, ...]]:
        """Return the objects that go back for one picture, and the analysis with their seconds added.

        `created` is the moment to write into the objects, now by default. `predecessors` are the earlier
        reports that the new one names, `frame` says which one of its object's frames the picture is, None for
        the object as a whole. Raises Refused where the header can't be referred to, or no object can be made
        from it.
        """
        seconds = dict(analysis.seconds)
        if ResultKind.HEAT_MAP in kinds and rgb is not None:
            with stage(seconds, "heat maps"):
                analysis = replace(analysis, heat_maps=tuple(heat_maps(self.classifier, rgb, analysis)))
        with stage(seconds, "results"):
            wanted = Wanted(kinds, self.strict)
            built = build_results(header, rgb, analysis, revision, created, predecessors, frame, wanted)
        return replace(analysis, seconds=seconds), built


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
