"""One stored picture: decoded, analysed, and made into result objects; a refused one gets a report too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset

from cds_db.models import Instance, Study
from cds_db.studies import NewResult
from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused
from cds_plugin.photograph import read_header
from cds_plugin.results.build import BuiltResult
from cds_plugin.results.predecessors import Predecessor
from cds_plugin.study import Analysis, BundleIdentity, Lesion, LesionClass, OperatingPoint
from cds_worker.keeping import KeptFile
from cds_worker.pipeline import Pipeline
from cds_worker.stage import StageFailed
from cds_worker.warming import check_device

DECIMALS = 6


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedPicture:
    """What the pipeline says about one picture and the objects that go back for it.

    `refusal` says why its pixels were not analysed; spacing is (row, column) in millimetres where known.
    """

    analysis: Analysis
    results: tuple[BuiltResult, ...]
    spacing_mm: tuple[float, float] | None = None
    refusal: Refused | None = None


class Place(NamedTuple):
    """Where a picture's results stand: the number of their revision, and the reports that theirs follows."""

    revision: int
    predecessors: Sequence[Predecessor] = ()


def analyse_picture(
    pipeline: Pipeline, decoder: Decoder, path: Path, max_pixels: int, place: Place
) -> AnalysedPicture:
    """Return analysis and result objects of the DICOM file at `path`.

    Pixels that can't be had, or that a model can't do with, make a report that says so. Raises Refused where
    not even a report can refer to the picture, Unavailable where the file can't be opened, DeviceFailed
    where no picture can be analysed.
    """
    try:
        return _tried_twice(pipeline, decoder, path, max_pixels, place)
    except Refused as refusal:
        return refused_picture(pipeline, read_header(path), refusal, place)


def refused_picture(pipeline: Pipeline, header: Dataset, refusal: Refused, place: Place) -> AnalysedPicture:
    """Return the report "not analysed: reason" on a picture; raises Refused as `Pipeline.results` does."""
    results = pipeline.results(header, None, pipeline.not_analysed(header, refusal), *place)
    return AnalysedPicture(*results, refusal=refusal)


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


def _tried_twice(
    pipeline: Pipeline, decoder: Decoder, path: Path, max_pixels: int, place: Place
) -> AnalysedPicture:
    """Try again where a stage failed and the device is well: memory that was short may be there now."""
    try:
        return _analysed(pipeline, decoder, path, max_pixels, place)
    except StageFailed:
        check_device(pipeline, decoder)
        return _analysed(pipeline, decoder, path, max_pixels, place)


def _analysed(
    pipeline: Pipeline, decoder: Decoder, path: Path, max_pixels: int, place: Place
) -> AnalysedPicture:
    photograph = decoder.decode(path, max_pixels)
    analysis = pipeline.analyse(photograph)
    results = pipeline.results(photograph.header, photograph.rgb, analysis, *place)
    return AnalysedPicture(*results, photograph.pixel_spacing_mm)


def new_result(result: BuiltResult, file: KeptFile, source_sop_instance_uid: str, recipe: str) -> NewResult:
    """Return the row of one object whose bytes were kept."""
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
    )


def audit_detail(analysed: AnalysedPicture) -> dict[str, Any]:
    """Return what the audit keeps of one picture: models, answers, seconds, and why it was refused."""
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
    }
