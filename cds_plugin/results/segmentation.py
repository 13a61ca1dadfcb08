"""The lesions of one picture as a DICOM Segmentation: BINARY, one segment per lesion."""

from __future__ import annotations

from itertools import combinations

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
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from cds_plugin.elements import element_value
from cds_plugin.results.codes import ABNORMAL_STRUCTURE, SKIN_LESION
from cds_plugin.results.colours import RgbColour, colours_of
from cds_plugin.results.context import ResultContext, reference_dataset, tracking_identifier
from cds_plugin.results.equipment import algorithm_identification, finish, object_arguments
from cds_plugin.results.source import Source, decimals
from cds_plugin.results.uids import derive_uid
from cds_plugin.study import Analysis, Lesion, ResultKind

DESCRIPTION = "AI lesion masks; research use, not for diagnosis"
UNCALIBRATED_DESCRIPTION = "AI; research use, not for diagnosis; GEOMETRY NOT CALIBRATED"
CONTENT = "Lesions found by an algorithm"
UNCALIBRATED_CONTENT = "Lesions found by an algorithm; GEOMETRY NOT CALIBRATED"

_STAND_IN_ROWS, _STAND_IN_COLUMNS = 1, 8
_AT_ORIGIN = ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
_ORIENTATION_TOLERANCE = 1e-4


def build_segmentation(context: ResultContext, kind: ResultKind = ResultKind.SEGMENTATION) -> Dataset:
    """Return the SEG of an analysis that has lesions; segment number = lesion number.

    By the `viewer` profile the SEG gets spacing and position where the picture has none, because viewers need
    them; spacing that was invented is named in Series Description and Content Description. By the `strict`
    profile it says of geometry what the picture says, or nothing.
    """
    strict = context.strict or kind is ResultKind.STRICT_SEGMENTATION
    shim = geometry_of_source(context.source) if strict else geometry_for_display(context.source)
    invented = not strict and context.source.pixel_spacing_mm is None
    segmentation = _described(context, kind, shim, UNCALIBRATED_CONTENT if invented else CONTENT)
    _fill(segmentation, context.analysis)
    _refer_to_source(segmentation, context.source)
    _name_dimensions(segmentation, context.uid("dimensions", kind))
    if "FrameOfReferenceUID" not in segmentation:
        # A photograph does not tell (type 2C without a place in space, PS3.3 C.7.6.1).
        segmentation.PatientOrientation = None
    finish(segmentation, context, UNCALIBRATED_DESCRIPTION if invented else DESCRIPTION)
    return segmentation


def geometry_for_display(source: Source) -> Dataset:
    """Return a stand-in for the source with complete geometry, invented where it has none.

    It never serves for measuring, and the source itself stays as it is.
    """
    shim = _stand_in(source)
    shim.FrameOfReferenceUID = element_value(source.header, "FrameOfReferenceUID") or derive_uid(
        "frame of reference", source.sop_instance_uid
    )
    shim.PositionReferenceIndicator = element_value(source.header, "PositionReferenceIndicator") or ""
    shim.PixelSpacing = [format_number_as_ds(each) for each in source.pixel_spacing_mm or (1.0, 1.0)]
    shim.ImagePositionPatient, shim.ImageOrientationPatient = _placement(source.header) or _AT_ORIGIN
    shim.SliceThickness = 1.0
    return shim


def geometry_of_source(source: Source) -> Dataset:
    """Return a stand-in for the source with geometry only where the source has all of it.

    A place needs a Frame of Reference, position, orientation and spacing (PS3.3 A.51.5.1); where one is
    missing the masks lie in the picture's pixels and nowhere else. Readers take no spacing alone.
    """
    has_place = element_value(source.header, "FrameOfReferenceUID") and _placement(source.header)
    return geometry_for_display(source) if has_place and source.pixel_spacing_mm else _stand_in(source)


def _stand_in(source: Source) -> Dataset:
    shim = reference_dataset(source)
    if source.frame is not None:
        # highdicom takes no single frame of a multi-frame picture without a place in space.
        shim.SOPClassUID = SecondaryCaptureImageStorage
    shim.Rows, shim.Columns = _STAND_IN_ROWS, _STAND_IN_COLUMNS
    return shim


def _placement(header: Dataset) -> tuple[list[float], list[float]] | None:
    """Return position and orientation of the header, None unless both are usable."""
    position = decimals(header, "ImagePositionPatient", 3)
    orientation = decimals(header, "ImageOrientationPatient", 6)
    if position is None or orientation is None or not _orthonormal(orientation):
        return None
    return list(position), list(orientation)


def _orthonormal(orientation: tuple[float, ...]) -> bool:
    axes = np.array(orientation).reshape(2, 3)
    return bool(np.allclose(axes @ axes.T, np.eye(2), atol=_ORIENTATION_TOLERANCE))


def _described(
    context: ResultContext, kind: ResultKind, shim: Dataset, content: str
) -> HighdicomSegmentation:
    """Return the SEG with everything but its pixels.

    highdicom would hold all masks as bytes in one array and sum over it: 6 s and 0.6 GB for 20 lesions
    on 12 megapixels. It sees tiny frames instead, and `_fill` packs the true ones.
    """
    lesions = context.analysis.lesions
    colours = colours_of(lesions)
    return HighdicomSegmentation(
        source_images=[shim],
        pixel_array=np.ones((1, _STAND_IN_ROWS, _STAND_IN_COLUMNS, len(lesions)), dtype=np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(context, lesion, colours[lesion.number]) for lesion in lesions],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="LESIONS",
        content_description=content,
        **object_arguments(context, kind),
    )


def _segment(context: ResultContext, lesion: Lesion, colour: RgbColour) -> SegmentDescription:
    return SegmentDescription(
        segment_number=lesion.number,
        segment_label=tracking_identifier(lesion),
        segmented_property_category=ABNORMAL_STRUCTURE,
        segmented_property_type=SKIN_LESION,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_identification(context.analysis.bundles.segmentation),
        tracking_uid=context.tracking_uid(lesion),
        tracking_id=tracking_identifier(lesion),
        display_color=CIELabColor.from_rgb(*colour),
    )


def _fill(segmentation: Dataset, analysis: Analysis) -> None:
    segmentation.Rows, segmentation.Columns = analysis.rows, analysis.columns
    segmentation.PixelData = _packed_frames(analysis)
    overlap = SegmentsOverlapValues.YES if _any_overlap(analysis.lesions) else SegmentsOverlapValues.NO
    segmentation.SegmentsOverlap = overlap.value


def _packed_frames(analysis: Analysis) -> bytes:
    """Return a frame per lesion in bits, the first the least significant, no padding between (PS3.5 8.1.1).

    Only the rows that a lesion touches are packed; all else is zero already.
    """
    bits = len(analysis.lesions) * analysis.rows * analysis.columns
    packed = np.zeros((bits + 15) // 16 * 2, dtype=np.uint8)
    for index, lesion in enumerate(analysis.lesions):
        start = (index * analysis.rows + lesion.bbox.y0) * analysis.columns
        band = np.zeros(start % 8 + lesion.bbox.height * analysis.columns, dtype=np.uint8)
        rows = band[start % 8 :].reshape(lesion.bbox.height, analysis.columns)
        rows[:, lesion.bbox.x0 : lesion.bbox.x1] = lesion.mask
        in_bits = np.packbits(band, bitorder="little")
        packed[start // 8 : start // 8 + in_bits.size] |= in_bits
    return packed.tobytes()


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


def _refer_to_source(segmentation: Dataset, source: Source) -> None:
    """Replace the class that the stand-in posed as by the truth, and name the frame of several."""
    for series in segmentation.ReferencedSeriesSequence:
        for item in series.ReferencedInstanceSequence:
            item.ReferencedSOPClassUID = source.sop_class_uid
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                source.refer(item)


def _name_dimensions(segmentation: Dataset, uid: UID) -> None:
    """Replace highdicom's random Dimension Organization UID by a derived one."""
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
