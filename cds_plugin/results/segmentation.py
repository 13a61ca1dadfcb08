"""The lesions of one picture as a DICOM Segmentation: BINARY, one segment per lesion."""

from __future__ import annotations

from itertools import combinations
from math import gcd

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
    SegmentsOverlapValues,
)
from highdicom.seg import Segmentation as HighdicomSegmentation
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from cds_plugin.elements import element_value
from cds_plugin.results.codes import ABNORMAL_STRUCTURE, SKIN_LESION
from cds_plugin.results.colours import colour_of
from cds_plugin.results.context import ResultContext, reference_dataset, tracking_identifier
from cds_plugin.results.equipment import algorithm_identification, finish, object_arguments
from cds_plugin.results.source import Source, decimals
from cds_plugin.results.uids import derive_uid
from cds_plugin.study import Analysis, Lesion, ResultKind

DESCRIPTION = "AI lesion masks; research use, not for diagnosis"
UNCALIBRATED_DESCRIPTION = "AI; research use, not for diagnosis; GEOMETRY NOT CALIBRATED"
CONTENT_DESCRIPTION = "Lesions found by an algorithm"
UNCALIBRATED_CONTENT_DESCRIPTION = "Lesions found by an algorithm; GEOMETRY NOT CALIBRATED"

_STAND_IN_ROWS, _STAND_IN_COLUMNS = 1, 8
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_ORIENTATION_TOLERANCE = 1e-4


def build_segmentation(context: ResultContext) -> Dataset:
    """Return the SEG of an analysis that has lesions; segment number = lesion number.

    Where the picture has no spacing or no position the SEG gets some, because viewers need them; spacing
    that was invented is named in Series Description and Content Description.
    """
    segmentation = _described(context)
    _fill(segmentation, context.analysis)
    if context.source.is_multiframe:
        _refer_to_first_frame(segmentation, context.source)
    _name_dimensions(segmentation, context)
    calibrated = context.source.pixel_spacing_mm is not None
    finish(segmentation, context, DESCRIPTION if calibrated else UNCALIBRATED_DESCRIPTION)
    return segmentation


def geometry_for_display(source: Source) -> Dataset:
    """Return a stand-in for the source with complete geometry, invented where it has none.

    It never serves for measuring, and the source itself stays as it is.
    """
    shim = reference_dataset(source)
    if source.is_multiframe:
        shim.SOPClassUID = SecondaryCaptureImageStorage
    shim.Rows, shim.Columns = _STAND_IN_ROWS, _STAND_IN_COLUMNS
    shim.FrameOfReferenceUID = element_value(source.header, "FrameOfReferenceUID") or derive_uid(
        "frame of reference", source.sop_instance_uid
    )
    shim.PositionReferenceIndicator = element_value(source.header, "PositionReferenceIndicator") or ""
    shim.PixelSpacing = [format_number_as_ds(each) for each in source.pixel_spacing_mm or (1.0, 1.0)]
    shim.ImagePositionPatient, shim.ImageOrientationPatient = _placement(source.header)
    shim.SliceThickness = 1.0
    return shim


def _placement(header: Dataset) -> tuple[list[float], list[float]]:
    position = decimals(header, "ImagePositionPatient", 3)
    orientation = decimals(header, "ImageOrientationPatient", 6)
    if position is None or orientation is None or not _is_orthonormal(orientation):
        return [0.0, 0.0, 0.0], list(_AXIAL)
    return list(position), list(orientation)


def _is_orthonormal(orientation: tuple[float, ...]) -> bool:
    axes = np.array(orientation).reshape(2, 3)
    return bool(np.allclose(axes @ axes.T, np.eye(2), atol=_ORIENTATION_TOLERANCE))


def _described(context: ResultContext) -> HighdicomSegmentation:
    """Return the SEG with everything but its pixels.

    highdicom would hold all masks as bytes in one array and sum over it: 6 s and 0.6 GB for 20 lesions
    on 12 megapixels. It sees tiny frames instead, and `_fill` packs the true ones.
    """
    lesions = context.analysis.lesions
    calibrated = context.source.pixel_spacing_mm is not None
    return HighdicomSegmentation(
        source_images=[geometry_for_display(context.source)],
        pixel_array=np.ones((1, _STAND_IN_ROWS, _STAND_IN_COLUMNS, len(lesions)), dtype=np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(context, lesion) for lesion in lesions],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="LESIONS",
        content_description=CONTENT_DESCRIPTION if calibrated else UNCALIBRATED_CONTENT_DESCRIPTION,
        **object_arguments(context, ResultKind.SEGMENTATION),
    )


def _segment(context: ResultContext, lesion: Lesion) -> SegmentDescription:
    return SegmentDescription(
        segment_number=lesion.number,
        segment_label=tracking_identifier(lesion),
        segmented_property_category=ABNORMAL_STRUCTURE,
        segmented_property_type=SKIN_LESION,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_identification(context.analysis.bundles.segmentation),
        tracking_uid=context.tracking_uid(lesion),
        tracking_id=tracking_identifier(lesion),
        display_color=CIELabColor.from_rgb(*colour_of(lesion.number)),
    )


def _fill(segmentation: Dataset, analysis: Analysis) -> None:
    segmentation.Rows, segmentation.Columns = analysis.rows, analysis.columns
    segmentation.PixelData = _packed_frames(analysis)
    overlap = SegmentsOverlapValues.YES if _any_overlap(analysis.lesions) else SegmentsOverlapValues.NO
    segmentation.SegmentsOverlap = overlap.value


def _packed_frames(analysis: Analysis) -> bytes:
    """Return a frame per lesion in bits, the first the least significant, no padding between (PS3.5 8.1.1).

    Frames are packed in the smallest groups that end on a byte, so that memory stays small.
    """
    group = 8 // gcd(8, analysis.rows * analysis.columns)
    packed = bytearray()
    for start in range(0, len(analysis.lesions), group):
        frames = [
            lesion.full_mask(analysis.rows, analysis.columns).reshape(-1).view(np.uint8)
            for lesion in analysis.lesions[start : start + group]
        ]
        packed += pack_bits(np.concatenate(frames), pad=False)
    return bytes(packed) + b"\0" * (len(packed) % 2)


def _any_overlap(lesions: tuple[Lesion, ...]) -> bool:
    return any(_overlap(one, other) for one, other in combinations(lesions, 2))


def _overlap(one: Lesion, other: Lesion) -> bool:
    x0, x1 = max(one.bbox.x0, other.bbox.x0), min(one.bbox.x1, other.bbox.x1)
    y0, y1 = max(one.bbox.y0, other.bbox.y0), min(one.bbox.y1, other.bbox.y1)
    if x0 >= x1 or y0 >= y1:
        return False
    shared = [
        lesion.mask[y0 - lesion.bbox.y0 : y1 - lesion.bbox.y0, x0 - lesion.bbox.x0 : x1 - lesion.bbox.x0]
        for lesion in (one, other)
    ]
    return bool(np.logical_and(*shared).any())


def _refer_to_first_frame(segmentation: Dataset, source: Source) -> None:
    """Replace the single-frame class that the stand-in posed as by the truth."""
    references = [
        item for series in segmentation.ReferencedSeriesSequence for item in series.ReferencedInstanceSequence
    ]
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            references += derivation.SourceImageSequence
            for image in derivation.SourceImageSequence:
                image.ReferencedFrameNumber = 1
    for reference in references:
        reference.ReferencedSOPClassUID = source.sop_class_uid


def _name_dimensions(segmentation: Dataset, context: ResultContext) -> None:
    """Replace highdicom's random Dimension Organization UID by a derived one."""
    uid = context.uid("dimensions")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
