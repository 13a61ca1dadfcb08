"""One lesion as a TID 1410 group: outline, finding, probabilities and size, each with its algorithm."""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ImageRegion,
    Measurement,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.sr.coding import Code

from cds_plugin.results import codes
from cds_plugin.results.context import ResultContext, tracking_identifier
from cds_plugin.results.equipment import plain_text
from cds_plugin.results.identity import MANUFACTURER
from cds_plugin.results.shape import measure, outline
from cds_plugin.results.source import Source
from cds_plugin.study import BundleIdentity, Lesion, LesionClass


def lesion_group(context: ResultContext, lesion: Lesion) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the measurement group of one lesion, tied to its segment by the tracking UID.

    Finding and probabilities come from the classification model, which the group names; score and size
    come from the segmentation model and name it themselves.
    """
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(context.tracking_uid(lesion), tracking_identifier(lesion)),
        referenced_region=_region(context.source, lesion),
        finding_category=codes.ABNORMAL_STRUCTURE,
        finding_type=_finding(lesion.finding),
        algorithm_id=algorithm(context.analysis.bundles.classification),
        measurements=_measurements(context, lesion),
        qualitative_evaluations=[
            QualitativeEvaluation(codes.CLASS_INCLUDES, member)
            for member in codes.MEMBERS.get(lesion.finding, ())
        ],
    )


def algorithm(bundle: BundleIdentity) -> AlgorithmIdentification:
    """Return TID 4019 for one bundle; its parameter is the SHA-256 over the bundle's files."""
    return AlgorithmIdentification(
        name=plain_text(bundle.name),
        version=plain_text(bundle.version),
        parameters=[f"bundle sha256={bundle.sha256}"],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _region(source: Source, lesion: Lesion) -> ImageRegion:
    picture = SourceImageForRegion(
        source.sop_class_uid, source.sop_instance_uid, [1] if source.is_multiframe else None
    )
    return ImageRegion(graphic_type="POLYLINE", graphic_data=outline(lesion), source_image=picture)


def _finding(finding: LesionClass) -> CodedConcept:
    concept = CodedConcept.from_code(codes.FINDINGS[finding])
    if finding in codes.EQUIVALENTS:
        # Equivalent Code Sequence (0008,0121), PS3.3 8.9.
        concept.EquivalentCodeSequence = [CodedConcept.from_code(codes.EQUIVALENTS[finding])]
    return concept


def _measurements(context: ResultContext, lesion: Lesion) -> list[Measurement]:
    """Return the numbers; a viewer that shows only the first shows probability, malignancy and size."""
    first, *others = sorted(zip(LesionClass, lesion.probabilities, strict=True), key=lambda pair: -pair[1])
    return [
        _probability(codes.PROBABILITIES[first[0]], first[1]),
        _probability(codes.MALIGNANCY, lesion.malignancy),
        *_sizes(context, lesion),
        *(_probability(codes.PROBABILITIES[each], value) for each, value in others),
    ]


def _probability(name: Code, value: float) -> Measurement:
    return Measurement(name=name, value=float(value), unit=codes.UNIT_RANGE)


def _sizes(context: ResultContext, lesion: Lesion) -> Iterator[Measurement]:
    size = measure(lesion, context.source.pixel_spacing_mm)
    length = codes.MILLIMETRE if size.calibrated else codes.PIXELS
    area = codes.SQUARE_MILLIMETRE if size.calibrated else codes.PIXELS
    found_by = algorithm(context.analysis.bundles.segmentation)
    yield Measurement(codes.AREA, size.area, area, algorithm_id=found_by)
    yield Measurement(codes.LONG_AXIS, size.long_axis, length, algorithm_id=found_by)
    yield Measurement(codes.SHORT_AXIS, size.short_axis, length, algorithm_id=found_by)
    yield Measurement(
        codes.DIAMETER, size.diameter, length, algorithm_id=found_by, method=codes.EQUAL_AREA_CIRCLE
    )
    yield Measurement(codes.DETECTION_SCORE, float(lesion.score), codes.UNIT_RANGE, algorithm_id=found_by)
