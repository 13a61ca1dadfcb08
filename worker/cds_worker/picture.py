"""One stored picture: decoded, analysed, and made into result objects; a refused one gets a report too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset

from cds_db.lesions import EarlierLesion, ReportedLesion
from cds_db.models import Instance, Study
from cds_db.studies import NewResult
from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused
from cds_plugin.photograph import check_decodable, frame_count, read_header
from cds_plugin.priors.following import PictureSeen, followed, picture_seen, reported
from cds_plugin.results.build import BuiltResult, tracked
from cds_plugin.results.predecessors import Predecessor
from cds_plugin.study import (
    USUAL_KINDS,
    Analysis,
    BundleIdentity,
    Lesion,
    LesionClass,
    OperatingPoint,
    Prior,
    ResultKind,
)
from cds_worker.keeping import KeptFile
from cds_worker.pipeline import Pipeline
from cds_worker.stage import StageFailed
from cds_worker.warming import check_device

DECIMALS = 6


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedPicture:
    """What the pipeline says about one picture and the objects that go back for it.

    `refusal` says why its pixels were not analysed; spacing is (row, column) in millimetres where known;
    `frame` is its number within an object of several frames, None elsewhere.
    """

    analysis: Analysis
    results: tuple[BuiltResult, ...]
    spacing_mm: tuple[float, float] | None = None
    refusal: Refused | None = None
    frame: int | None = None
    seen: PictureSeen | None = None
    """When and where it was taken; None where it was refused."""


class Place(NamedTuple):
    """Where a picture's results stand: their revision, the reports that theirs follows, the kinds wanted.

    `known` are the lesions that were reported of this patient before, None where nobody asked.
    """

    revision: int
    predecessors: Sequence[Predecessor] = ()
    kinds: frozenset[ResultKind] = USUAL_KINDS
    known: Sequence[EarlierLesion] | None = None
    created: datetime | None = None
    """The moment that stands in the objects; None: now."""


def analyse_pictures(
    pipeline: Pipeline, decoder: Decoder, path: Path, max_pixels: int, place: Place
) -> tuple[AnalysedPicture, ...]:
    """Return analysis and result objects of the DICOM file at `path`, of each of its frames by itself.

    Pixels that can't be had, or that a model can't do with, make a report that says so. Raises Refused where
    not even a report can refer to the picture, Unavailable where the file can't be opened, DeviceFailed
    where no picture can be analysed.
    """
    header = read_header(path)
    try:
        check_decodable(header, max_pixels)
    except Refused as refusal:
        return (refused_picture(pipeline, header, refusal, place),)
    frames = frame_count(header)
    numbers = (None,) if frames is None else range(1, frames + 1)
    return tuple(_analysed_or_refused(pipeline, decoder, path, max_pixels, place, each) for each in numbers)


def refused_picture(
    pipeline: Pipeline, header: Dataset, refusal: Refused, place: Place, frame: int | None = None
) -> AnalysedPicture:
    """Return the report "not analysed: reason" on a picture; raises Refused as `Pipeline.results` does."""
    analysis = pipeline.not_analysed(header, refusal)
    results = pipeline.results(header, None, analysis, *place[:3], frame=frame, created=place.created)
    return AnalysedPicture(*results, refusal=refusal, frame=frame)


def header_of_record(instance: Instance, study: Study) -> Dataset:
    """Return what the database knows of a picture, as far as a report needs it."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = instance.sop_class_uid
    header.SOPInstanceUID = instance.sop_instance_uid
    header.StudyInstanceUID = study.study_instance_uid
    header.SeriesInstanceUID = instance.series_instance_uid
    header.PatientID = study.patient_id
    if study.issuer_of_patient_id:
        header.IssuerOfPatientID = study.issuer_of_patient_id
    return header


def _analysed_or_refused(
    pipeline: Pipeline, decoder: Decoder, path: Path, max_pixels: int, place: Place, frame: int | None
) -> AnalysedPicture:
    """Try again where a stage failed and the device is well: memory that was short may be there now."""
    try:
        try:
            return _analysed(pipeline, decoder, path, max_pixels, place, frame)
        except StageFailed:
            check_device(pipeline, decoder)
            return _analysed(pipeline, decoder, path, max_pixels, place, frame)
    except Refused as refusal:
        return refused_picture(pipeline, read_header(path), refusal, place, frame)


def _analysed(
    pipeline: Pipeline, decoder: Decoder, path: Path, max_pixels: int, place: Place, frame: int | None
) -> AnalysedPicture:
    photograph = decoder.decode(path, max_pixels, frame or 1)
    analysis = pipeline.analyse(photograph)
    seen = picture_seen(photograph.header, frame, place.created or datetime.now(UTC))
    if place.known is not None:
        analysis = followed(analysis, seen, place.known)
    analysis = tracked(photograph.header, analysis, frame)
    results = pipeline.results(
        photograph.header, photograph.rgb, analysis, *place[:3], frame=frame, created=place.created
    )
    return AnalysedPicture(*results, photograph.pixel_spacing_mm, frame=frame, seen=seen)


def reported_lesions(pictures: Sequence[AnalysedPicture]) -> list[ReportedLesion]:
    """Return the rows of all lesions of one source, by which a later visit can know them again."""
    return [
        reported(lesion, picture.seen, picture.spacing_mm)
        for picture in pictures
        if picture.seen is not None
        for lesion in picture.analysis.lesions
    ]


def new_results(
    pictures: Sequence[AnalysedPicture], files: Sequence[KeptFile], source_sop_instance_uid: str, recipe: str
) -> list[NewResult]:
    """Return the rows of all objects of one source; `files` are those of all its frames in their order."""
    built = [(picture.frame or 1, result) for picture in pictures for result in picture.results]
    return [
        _new_result(result, file, source_sop_instance_uid, frame, recipe)
        for (frame, result), file in zip(built, files, strict=True)
    ]


def _new_result(
    result: BuiltResult, file: KeptFile, source_sop_instance_uid: str, frame: int, recipe: str
) -> NewResult:
    return NewResult(
        sop_instance_uid=str(result.dataset.SOPInstanceUID),
        sop_class_uid=str(result.dataset.SOPClassUID),
        kind=result.kind.value,
        source_sop_instance_uid=source_sop_instance_uid,
        path=file.path,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        recipe=recipe,
        series_instance_uid=str(result.dataset.SeriesInstanceUID),
        frame=frame,
    )


def audit_detail(pictures: Sequence[AnalysedPicture]) -> dict[str, Any]:
    """Return what the audit keeps of one source: models, answers, seconds, refusals; by frame of several."""
    if pictures[0].frame is None:
        return _audit_detail(pictures[0])
    return {"frames": [{"frame": each.frame, **_audit_detail(each)} for each in pictures]}


def _audit_detail(analysed: AnalysedPicture) -> dict[str, Any]:
    detail = findings_json(analysed.analysis, analysed.spacing_mm)
    refusal = analysed.refusal.as_json() if analysed.refusal else None
    return {**detail, "seconds": dict(analysed.analysis.seconds), "refusal": refusal}


def findings_json(analysis: Analysis, spacing_mm: tuple[float, float] | None) -> dict[str, Any]:
    """Return quality, lesions and bundles as JSON values; areas in mm2 only where `spacing_mm` is known."""
    quality = analysis.quality
    return {
        "quality": {
            "verdict": quality.verdict.value,
            "reasons": list(quality.reasons),
            "psnr_db": quality.psnr_db,
        },
        "lesions": [_lesion_json(each, spacing_mm, analysis.operating_point) for each in analysis.lesions],
        "operating_point": _operating_point_json(analysis.operating_point),
        "patient_facts": list(analysis.patient_facts),
        "bundles": {each.name: _identity_json(each) for each in analysis.bundles},
    }


def _identity_json(identity: BundleIdentity) -> dict[str, str]:
    return {"version": identity.version, "sha256": identity.sha256}


def _operating_point_json(point: OperatingPoint | None) -> dict[str, float | None] | None:
    if point is None:
        return None
    return {
        "malignancy_threshold": round(point.malignancy_threshold, DECIMALS),
        "sensitivity": point.sensitivity,
    }


def _lesion_json(
    lesion: Lesion, spacing_mm: tuple[float, float] | None, point: OperatingPoint | None
) -> dict[str, Any]:
    by_class = zip(LesionClass, lesion.probabilities, strict=True)
    return {
        "number": lesion.number,
        "bbox": lesion.bbox.as_list(),
        "score": round(lesion.score, DECIMALS),
        "area_px": lesion.area_px,
        "area_mm2": round(lesion.area_px * spacing_mm[0] * spacing_mm[1], DECIMALS) if spacing_mm else None,
        "finding": lesion.finding.value,
        "probabilities": {each.value: round(value, DECIMALS) for each, value in by_class},
        "malignancy": round(lesion.malignancy, DECIMALS),
        "flagged": None if point is None else point.flags(lesion),
        "prediction_set": [each.value for each in lesion.prediction_set],
        "ood_score": None if lesion.ood_score is None else round(lesion.ood_score, DECIMALS),
        "unfamiliar": None if point is None else point.is_unfamiliar(lesion),
        "tracking_uid": lesion.tracking_uid,
        "prior": None if lesion.prior is None else _prior_json(lesion.prior),
    }


def _prior_json(prior: Prior) -> dict[str, Any]:
    return {
        "observed": prior.observed.isoformat(),
        "study_instance_uid": prior.study_instance_uid,
        "malignancy": round(prior.malignancy, DECIMALS),
        "area_mm2": None if prior.area_mm2 is None else round(prior.area_mm2, DECIMALS),
        "likeness": round(prior.likeness, DECIMALS),
    }
