"""A picture for every viewer: the photograph with numbered outlines, a legend and the research notice."""

from __future__ import annotations

from highdicom import CoordinateSystemNames, PhotometricInterpretationValues
from highdicom.sc import ConversionTypeValues, SCImage
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from cds_plugin.results.context import ResultContext
from cds_plugin.results.drawing import draw_overlay
from cds_plugin.results.equipment import finish, object_arguments
from cds_plugin.results.source import Source
from cds_plugin.study import ResultKind, Rgb

DESCRIPTION = "AI overlay; research use, not for diagnosis"

_UNKNOWN_ORIENTATION = ("L", "F")
# highdicom demands one; it is emptied again, because a photograph does not tell (type 2C, PS3.3 C.7.6.1).


def build_overlay(context: ResultContext, rgb: Rgb) -> Dataset:
    """Return a Secondary Capture (PS3.3 A.8.1), JPEG Baseline, for `rgb` of (rows, columns, 3) in sRGB."""
    picture = draw_overlay(rgb, context.analysis, context.source.pixel_spacing_mm)
    arguments = object_arguments(context, ResultKind.OVERLAY)
    overlay = SCImage(
        pixel_array=picture,
        photometric_interpretation=PhotometricInterpretationValues.YBR_FULL_422,
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=_UNKNOWN_ORIENTATION,
        study_instance_uid=context.source.study_instance_uid,
        transfer_syntax_uid=JPEGBaseline8Bit,
        **arguments,
    )
    _describe(overlay, context.source, picture)
    finish(overlay, context, DESCRIPTION)
    return overlay


def _describe(overlay: Dataset, source: Source, picture: Rgb) -> None:
    overlay.ImageType = ["DERIVED", "SECONDARY", "OVERLAY"]
    overlay.ConversionType = ConversionTypeValues.WSD.value
    overlay.PatientOrientation = None
    overlay.Laterality = ""
    overlay.BurnedInAnnotation = "YES"
    overlay.DerivationDescription = "Photograph with outlines of lesions found by an algorithm, scaled"
    overlay.SourceImageSequence = [_reference(source)]
    overlay.LossyImageCompression = "01"
    overlay.LossyImageCompressionRatio = round(picture.nbytes / len(overlay.PixelData), 2)
    overlay.LossyImageCompressionMethod = "ISO_10918_1"


def _reference(source: Source) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.sop_class_uid
    reference.ReferencedSOPInstanceUID = source.sop_instance_uid
    if source.is_multiframe:
        reference.ReferencedFrameNumber = 1
    return reference
