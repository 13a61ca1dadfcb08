"""Drawn sources and analyses for the tests of the results: no third-party picture, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import cv2
import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from cds_plugin.results.build import BuiltResult, Wanted, build_results
from cds_plugin.results.context import ResultContext
from cds_plugin.results.report import build_report
from cds_plugin.results.segmentation import build_segmentation
from cds_plugin.results.source import read_source
from cds_plugin.results.uids import derive_uid
from cds_plugin.study import (
    USUAL_KINDS,
    Analysis,
    BoundingBox,
    BundleIdentity,
    Bundles,
    HeatMap,
    Lesion,
    LesionClass,
    OperatingPoint,
    Quality,
    ResultKind,
    Rgb,
    Sha256,
    Verdict,
)

CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MELANOMA = (0.01, 0.02, 0.03, 0.01, 0.85, 0.07, 0.01)
KERATOSIS = (0.5, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05)
BUNDLES = Bundles(
    BundleIdentity("dermoscopy_quality_gate", "0.1.0", Sha256("a" * 64)),
    BundleIdentity("dermoscopy_lesion_segmentation", "0.2.0", Sha256("b" * 64)),
    BundleIdentity("dermoscopy_lesion_classification", "0.3.0", Sha256("c" * 64)),
)
ROWS, COLUMNS = 61, 83


def photograph_header(
    sop_class: str, modality: str, rows: int = ROWS, columns: int = COLUMNS, **more: object
) -> Dataset:
    """Return the header of a source; `more` adds or replaces elements by keyword."""
    header = Dataset()
    header.SOPClassUID = sop_class
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(header, keyword, derive_uid("test", keyword))
    header.Modality = modality
    header.PatientName, header.PatientID = "Test^Patient", "P-1"
    header.PatientBirthDate, header.PatientSex = "19700101", "F"
    header.StudyDate, header.StudyTime, header.StudyID = "20260101", "101112", "S1"
    header.AccessionNumber, header.ReferringPhysicianName = "A1", "Doctor^Some"
    header.Rows, header.Columns = rows, columns
    for keyword, value in more.items():
        setattr(header, keyword, value)
    return header


def dermoscopic(**more: object) -> Dataset:
    """Return the header of a Dermoscopic Photography object without spacing or frame of reference."""
    return photograph_header(DermoscopicPhotographyImageStorage, "DMS", **more)


SOURCES: dict[str, Callable[[], Dataset]] = {
    "dermoscopic": dermoscopic,
    "dermoscopic with a frame of reference": lambda: dermoscopic(
        FrameOfReferenceUID=derive_uid("for"), PositionReferenceIndicator=""
    ),
    "dermoscopic with spacing": lambda: dermoscopic(
        FrameOfReferenceUID=derive_uid("for"), PositionReferenceIndicator="", PixelSpacing=[0.02, 0.03]
    ),
    "photographic": lambda: photograph_header(VLPhotographicImageStorage, "XC"),
    "photographic with spacing": lambda: photograph_header(
        VLPhotographicImageStorage, "XC", PixelSpacing=[0.02, 0.02]
    ),
    "secondary capture": lambda: photograph_header(SecondaryCaptureImageStorage, "OT"),
    "secondary capture with geometry": lambda: photograph_header(
        SecondaryCaptureImageStorage,
        "OT",
        FrameOfReferenceUID=derive_uid("for"),
        PositionReferenceIndicator="",
        PixelSpacing=[0.1, 0.1],
        ImagePositionPatient=[1, 2, 3],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    ),
    "multi-frame secondary capture": lambda: photograph_header(
        MultiFrameTrueColorSecondaryCaptureImageStorage, "XC", NumberOfFrames=1
    ),
    "multi-frame with geometry": lambda: photograph_header(
        MultiFrameTrueColorSecondaryCaptureImageStorage,
        "XC",
        NumberOfFrames=3,
        FrameOfReferenceUID=derive_uid("for"),
        PixelSpacing=[0.1, 0.1],
    ),
    "dermoscopic of several frames": lambda: dermoscopic(NumberOfFrames=2),
}


def skin(rows: int = ROWS, columns: int = COLUMNS) -> Rgb:
    """Return a plain skin-coloured picture."""
    return np.full((rows, columns, 3), (214, 170, 150), dtype=np.uint8)


def stored_picture(header: Dataset, pixels: Rgb) -> bytes:
    """Return the source as a file, its pixels (rows, columns, 3), or frames of them, uncompressed."""
    image = Dataset()
    image.update(header)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ellipse(
    number: int, x: int, y: int, width: int, height: int, probabilities: tuple[float, ...] = MELANOMA
) -> Lesion:
    """Return an elliptic lesion that fills its bounding box."""
    mask = np.zeros((height, width), dtype=np.uint8)
    axes = (width // 2 - 1, height // 2 - 1)
    cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 1, -1)
    box = BoundingBox(x, y, x + width, y + height)
    return Lesion(number, box, mask.astype(np.bool_), 0.91, probabilities)


def of_mask(number: int, mask: NDArray[np.bool_]) -> Lesion:
    """Return the lesion of a mask over the whole frame."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = BoundingBox(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Lesion(number, box, mask[box.y0 : box.y1, box.x0 : box.x1], 0.5, KERATOSIS)


TWO_LESIONS = (ellipse(1, 5, 7, 31, 23), ellipse(2, 30, 20, 40, 38, KERATOSIS))


def analysis(
    *lesions: Lesion,
    verdict: Verdict = Verdict.DIAGNOSTIC,
    reasons: tuple[str, ...] = (),
    rows: int = ROWS,
    columns: int = COLUMNS,
    bundles: Bundles = BUNDLES,
) -> Analysis:
    """Return an analysis of a picture of that size."""
    return Analysis(rows, columns, Quality(verdict, reasons, 31.25), lesions, bundles)


def built(
    header: Dataset | None = None,
    said: Analysis | None = None,
    rgb: Rgb | None = None,
    revision: int = 1,
    frame: int | None = 1,
    kinds: frozenset[ResultKind] = USUAL_KINDS,
    strict: bool = False,
) -> dict[ResultKind, BuiltResult]:
    """Return the results by kind; two lesions on a dermoscopic picture by default."""
    header = dermoscopic() if header is None else header
    said = analysis(*TWO_LESIONS) if said is None else said
    rgb = skin(said.rows, said.columns) if rgb is None else rgb
    wanted = Wanted(kinds, strict)
    results = build_results(header, rgb, said, revision, CREATED, frame=frame, wanted=wanted)
    return {each.kind: each for each in results}


def with_answers(said: Analysis) -> Analysis:
    """Return the analysis with all that a classifier may say: sets, familiarity, facts used, maps."""
    lesions = tuple(
        replace(each, prediction_set=(LesionClass.MEL, LesionClass.NV), ood_score=0.4 * each.number)
        for each in said.lesions
    )
    evidence = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    maps = tuple(HeatMap(each.number, each.finding, skin(32, 32), evidence) for each in lesions)
    point, facts = OperatingPoint(0.25, 0.95, 0.7), ("age", "sex")
    return replace(said, lesions=lesions, operating_point=point, patient_facts=facts, heat_maps=maps)


def only(kind: ResultKind, header: Dataset, said: Analysis) -> BuiltResult:
    """Return one result without building the others; a report without its segmentation as evidence."""
    context = ResultContext(read_source(header), said, 1, CREATED)
    if kind is ResultKind.SEGMENTATION:
        return BuiltResult(kind, build_segmentation(context))
    return BuiltResult(kind, build_report(context))


def reread(result: BuiltResult) -> Dataset:
    """Return the object as a reader of its bytes sees it."""
    return dcmread(BytesIO(result.as_bytes()))


def masks_of(result: BuiltResult) -> list[NDArray[np.bool_]]:
    """Return every segment's mask as highdicom reads it from the bytes."""
    segmentation: Any = hd.seg.segread(BytesIO(result.as_bytes()))
    source = segmentation.get_source_image_uids()[0][2]
    pixels = segmentation.get_pixels_by_source_instance(
        [source], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    return [pixels[0, ..., index].astype(np.bool_) for index in range(pixels.shape[-1])]
