"""One picture's findings as a Comprehensive 3D SR after TID 1500, one TID 1410 group per lesion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from cds_plugin.elements import element_value
from cds_plugin.results import codes
from cds_plugin.results.context import RESEARCH_NOTICE, ResultContext, reference_dataset
from cds_plugin.results.equipment import finish, object_arguments, plain_text
from cds_plugin.results.findings import algorithm, lesion_group
from cds_plugin.results.identity import MANUFACTURER, MODEL_NAME
from cds_plugin.results.predecessors import predecessor_items
from cds_plugin.results.shape import area_change
from cds_plugin.results.source import Source
from cds_plugin.results.uids import device_uid
from cds_plugin.study import Analysis, Lesion, OperatingPoint, Prior, Quality, ResultKind, Verdict

DESCRIPTION = "AI report; research use, not for diagnosis"
NO_LESION = "no lesion detected by the algorithm; this does not exclude disease"
NO_REASON = "no reason given"
NOTHING_FLAGGED = "no lesion; this does not exclude disease"
NO_PRIOR = "no earlier report on the same lesion is known"
AREAS_NOT_COMPARABLE = "areas can't be compared without Pixel Spacing in both"
UNFAMILIAR = "unlike the lesions that the algorithm learned from, its answers may mislead"

_CONTAINS = RelationshipTypeValues.CONTAINS


def build_report(context: ResultContext, segmentations: Sequence[Dataset] = ()) -> Dataset:
    """Return the SR; `segmentations` are evidence beside the picture, tied to the groups by tracking UIDs."""
    report = Comprehensive3DSR(
        evidence=[reference_dataset(context.source), *segmentations],
        content=_content(context),
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=[_private_scheme()],
        **object_arguments(context, ResultKind.REPORT),
    )
    if context.predecessors:
        report.PredecessorDocumentsSequence = predecessor_items(context.predecessors)
    finish(report, context, DESCRIPTION)
    return report


def statements(analysis: Analysis, spacing_mm: tuple[float, float] | None = None) -> tuple[str, ...]:
    """Return what the report says in words about the whole picture, the weightiest first."""
    reasons = "; ".join(analysis.quality.reasons) or NO_REASON
    if not analysis.analysed:
        return (f"not analysed: {reasons}",)
    limits = (f"limited image quality: {reasons}",) if analysis.quality.verdict is Verdict.LIMITED else ()
    if not analysis.lesions:
        return (*limits, NO_LESION)
    return (*limits, *_on_lesions(analysis), *_on_priors(analysis, spacing_mm))


def _on_priors(analysis: Analysis, spacing_mm: tuple[float, float] | None) -> Iterator[str]:
    """Yield what changed since an earlier visit, lesion by lesion, and for which lesions none is known."""
    if not analysis.priors_sought:
        return
    for each in analysis.lesions:
        if each.prior is not None:
            yield f"lesion {each.number}: {_since_prior(each, each.prior, spacing_mm)}"
    if unknown := _numbers(each for each in analysis.lesions if each.prior is None):
        yield f"{NO_PRIOR}: {unknown}"


def _since_prior(lesion: Lesion, prior: Prior, spacing_mm: tuple[float, float] | None) -> str:
    growth = area_change(lesion, spacing_mm)
    area = AREAS_NOT_COMPARABLE if growth is None else f"area {prior.area_mm2:.1f} {growth:+.1f} mm2"
    return (
        f"matched by place and appearance to a report of {prior.observed:%Y-%m-%d} "
        f"(likeness {prior.likeness:.2f}); probability of malignancy {prior.malignancy:.2f} then, "
        f"{lesion.malignancy:.2f} now; {area}"
    )


def _on_lesions(analysis: Analysis) -> Iterator[str]:
    """Yield which lesions are flagged, which are unfamiliar, and what of the patient the answers rest on."""
    if (point := analysis.operating_point) is not None:
        flagged = _numbers(each for each in analysis.lesions if point.flags(each))
        yield f"{threshold_in_words(point)} is reached by {flagged or NOTHING_FLAGGED}"
        if unfamiliar := _numbers(each for each in analysis.lesions if point.is_unfamiliar(each)):
            yield f"{UNFAMILIAR}: {unfamiliar}"
    if analysis.patient_facts:
        yield f"probabilities rest on the picture and on the patient's {', '.join(analysis.patient_facts)}"


def threshold_in_words(point: OperatingPoint) -> str:
    """Return the malignancy threshold and where it comes from."""
    origin = (
        "set by the site" if point.sensitivity is None else f"fitted to {point.sensitivity:.0%} sensitivity"
    )
    return f"malignancy threshold {point.malignancy_threshold:.3f} ({origin})"


def _numbers(lesions: Iterable[Lesion]) -> str:
    numbers = [str(each.number) for each in lesions]
    return f"lesion{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else ""


def _content(context: ResultContext) -> ContainerContentItem:
    """Return the root of TID 1500.

    highdicom's MeasurementReport takes neither a report without a lesion nor qualitative evaluations nor
    dermoscopic pictures in its image library, so the root is put together here from its parts.
    """
    root = ContainerContentItem(codes.REPORT_TITLE, template_id="1500")
    content = ContentSequence()
    content.extend(LanguageOfContentItemAndDescendants(_ENGLISH))
    content.extend(_observation_context(context))
    content.append(_code(codes.PROCEDURE_REPORTED, codes.DERMOSCOPIC_PHOTOGRAPHY, "HAS CONCEPT MOD"))
    content.extend(_comment(text) for text in (*_statements_of(context), RESEARCH_NOTICE))
    content.append(_image_library(context.source))
    if context.analysis.lesions:
        content.append(_imaging_measurements(context))
    content.append(_image_quality(context.analysis))
    root.ContentSequence = content
    return root


def _statements_of(context: ResultContext) -> tuple[str, ...]:
    return statements(context.analysis, context.source.pixel_spacing_mm)


_ENGLISH = CodedConcept("en-US", "RFC5646", "English (United States)")


def _observation_context(context: ResultContext) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(context.analysis.bundles),
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=device_uid(context.analysis.bundles).rsplit(".", 1)[1],
    )
    return ObservationContext(
        observer_device_context=ObserverContext(CodedConcept.from_code(codes.DEVICE_OBSERVER), device)
    )


def _image_library(source: Source) -> ContainerContentItem:
    """Return TID 1600 with the one analysed picture."""
    modality = codes.MODALITIES.get(str(element_value(source.header, "Modality")), codes.MODALITIES["OT"])
    group = _container(
        codes.IMAGE_LIBRARY_GROUP,
        _code(codes.MODALITY, modality, "HAS ACQ CONTEXT"),
        ImageContentItem(
            codes.SOURCE,
            referenced_sop_class_uid=source.sop_class_uid,
            referenced_sop_instance_uid=source.sop_instance_uid,
            referenced_frame_numbers=source.frame,
            relationship_type=_CONTAINS,
        ),
    )
    return _container(codes.IMAGE_LIBRARY, group)


def _imaging_measurements(context: ResultContext) -> ContainerContentItem:
    groups = [group for lesion in context.analysis.lesions for group in lesion_group(context, lesion)]
    return _container(codes.IMAGING_MEASUREMENTS, *groups)


def _image_quality(analysis: Analysis) -> ContainerContentItem:
    """Return verdict and reasons; not as a group, because viewers choke on a group without a region."""
    quality = analysis.quality
    return _container(
        codes.QUALITATIVE_EVALUATIONS,
        *algorithm(analysis.bundles.quality_gate),
        _code(codes.IMAGE_QUALITY, codes.QUALITY_GRADES[quality.verdict], "CONTAINS"),
        *(_comment(text) for text in _quality_texts(quality)),
    )


def _quality_texts(quality: Quality) -> tuple[str, ...]:
    psnr = () if quality.psnr_db is None else (f"reconstruction PSNR {quality.psnr_db:.2f} dB",)
    return (*quality.reasons, *psnr)


def _container(name: Code, *items: ContentItem) -> ContainerContentItem:
    container = ContainerContentItem(name, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(items)
    return container


def _code(name: Code, value: Code, relationship: str) -> CodeContentItem:
    return CodeContentItem(name, value, relationship_type=relationship)


def _comment(text: str) -> TextContentItem:
    return TextContentItem(codes.COMMENT, plain_text(text), relationship_type=_CONTAINS)


def _private_scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        codes.PRIVATE_SCHEME, name="Codes of cds-plugin", responsible_organization=MANUFACTURER
    )
