"""One lesion as a TID 1410 group: outline, finding, probabilities and size, each with its algorithm."""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    FindingSite,
    ImageRegion,
    Measurement,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from cds_plugin.elements import element_text, element_value
from cds_plugin.photograph.clinical import clinical_facts_of
from cds_plugin.results import codes
from cds_plugin.results.context import ResultContext, tracking_identifier
from cds_plugin.results.equipment import plain_text
from cds_plugin.results.identity import MANUFACTURER
from cds_plugin.results.shape import area_change, measure, outline
from cds_plugin.results.source import Source
from cds_plugin.study import Analysis, BundleIdentity, Lesion, LesionClass, OperatingPoint


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
        finding_sites=_sites(context.source),
        algorithm_id=algorithm(context.analysis.bundles.classification, *_parameters(context)),
        measurements=_measurements(context, lesion),
        qualitative_evaluations=list(_evaluations(context.analysis, lesion)),
    )


def algorithm(bundle: BundleIdentity, *parameters: str) -> AlgorithmIdentification:
    """Return TID 4019 for one bundle; its first parameter is the SHA-256 over the bundle's files."""
    return AlgorithmIdentification(
        name=plain_text(bundle.name),
        version=plain_text(bundle.version),
        parameters=[f"bundle sha256={bundle.sha256}", *map(plain_text, parameters)],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _parameters(context: ResultContext) -> Iterator[str]:
    """Yield what besides the bundle decided the answers: the operating point, facts of the patient."""
    analysis = context.analysis
    point = analysis.operating_point
    if point is not None:
        wanted = "not given" if point.sensitivity is None else f"{point.sensitivity:g}"
        yield f"malignancy threshold={point.malignancy_threshold:.6g}"
        yield f"wanted sensitivity={wanted}"
        yield f"out-of-distribution threshold={point.ood_threshold:g}"
    facts = clinical_facts_of(context.source.header)
    values = {"age": f"{facts.age_years or 0:.0f} years", "sex": facts.sex, "site": facts.site}
    for name in analysis.patient_facts:
        yield f"patient {name}={values[name]}"


def _sites(source: Source) -> list[FindingSite] | None:
    """Return where on the body the picture says that it was taken, as one coded site."""
    regions = element_value(source.header, "AnatomicRegionSequence")
    region = _code_of(regions[0]) if regions else None
    if region is None:
        return None
    side = element_value(source.header, "ImageLaterality") or element_value(source.header, "Laterality")
    return [FindingSite(region, laterality=codes.SIDES.get(str(side)))]


def _code_of(item: Dataset) -> CodedConcept | None:
    values = [element_text(item, each) for each in _CODE]
    value, scheme, meaning = values
    usable = all(values) and len(value) <= 16 and len(scheme) <= 16 and len(meaning) <= 64
    return CodedConcept(value, scheme, meaning) if usable else None


_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def _evaluations(analysis: Analysis, lesion: Lesion) -> Iterator[QualitativeEvaluation]:
    """Yield prediction set, flag, familiarity and prior; a group of diagnoses also gets its members."""
    point = analysis.operating_point
    for each in lesion.prediction_set:
        yield QualitativeEvaluation(codes.PREDICTION_SET, codes.FINDINGS[each])
    if point is not None:
        yield QualitativeEvaluation(codes.MALIGNANCY_FLAG, codes.FLAGS[point.flags(lesion)])
    if point is not None and lesion.ood_score is not None:
        yield QualitativeEvaluation(codes.FAMILIARITY, codes.FAMILIAR[not point.is_unfamiliar(lesion)])
    if analysis.priors_sought:
        yield QualitativeEvaluation(codes.PRIOR, codes.PRIORS[lesion.prior is not None])
    for member in codes.MEMBERS.get(lesion.finding, ()):
        yield QualitativeEvaluation(codes.CLASS_INCLUDES, member)


def _region(source: Source, lesion: Lesion) -> ImageRegion:
    picture = SourceImageForRegion(
        source.sop_class_uid, source.sop_instance_uid, None if source.frame is None else [source.frame]
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
        *_thresholds(context.analysis.operating_point),
        *([] if lesion.ood_score is None else [_probability(codes.OOD_SCORE, lesion.ood_score)]),
        *_changes(context, lesion),
    ]


def _changes(context: ResultContext, lesion: Lesion) -> Iterator[Measurement]:
    """Yield what changed since the prior; the area only where both were measured in millimetres."""
    if lesion.prior is None:
        return
    yield _probability(codes.PRIOR_LIKENESS, lesion.prior.likeness)
    more = lesion.malignancy - lesion.prior.malignancy
    yield Measurement(codes.MALIGNANCY_CHANGE, more, codes.NO_UNITS)
    growth = area_change(lesion, context.source.pixel_spacing_mm)
    if growth is not None:
        found_by = algorithm(context.analysis.bundles.segmentation)
        yield Measurement(codes.AREA_CHANGE, growth, codes.SQUARE_MILLIMETRE, algorithm_id=found_by)


def _thresholds(point: OperatingPoint | None) -> Iterator[Measurement]:
    """Yield the operating point; no sensitivity where a site chose the threshold itself."""
    if point is not None:
        yield _probability(codes.MALIGNANCY_THRESHOLD, point.malignancy_threshold)
        if point.sensitivity is not None:
            yield _probability(codes.WANTED_SENSITIVITY, point.sensitivity)


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
