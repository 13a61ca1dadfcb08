"""Drawn pictures as Secondary Capture objects: what any viewer shows."""

from __future__ import annotations

from highdicom import CoordinateSystemNames, PhotometricInterpretationValues, SOPClass
from highdicom.sc import ConversionTypeValues, SCImage
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit

from cds_plugin.results.context import ResultContext
from cds_plugin.results.drawing import draw_overlay
from cds_plugin.results.equipment import finish, object_arguments
from cds_plugin.results.heatmap import draw_heat_maps
from cds_plugin.study import ResultKind, Rgb

OVERLAY_DESCRIPTION = "AI overlay; research use, not for diagnosis"
OVERLAY_DERIVATION = "Photograph with outlines of lesions found by an algorithm, scaled"
HEAT_MAP_DESCRIPTION = "AI activation maps; research use, not for diagnosis"
HEAT_MAP_DERIVATION = "Crops of the photograph with class activation maps of a classifier, scaled"

_UNKNOWN_ORIENTATION = ("L", "F")
# highdicom demands one; it is emptied again, because a photograph does not tell (type 2C, PS3.3 C.7.6.1).


def build_overlay(context: ResultContext, rgb: Rgb) -> Dataset:
    """Return the overlay of `rgb`, (rows, columns, 3) in sRGB."""
    source = context.source
    picture = draw_overlay(rgb, context.analysis, source.pixel_spacing_mm, source.frame)
    overlay = _capture(context, ResultKind.OVERLAY, picture)
    overlay.ImageType = ["DERIVED", "SECONDARY", "OVERLAY"]
    overlay.DerivationDescription = OVERLAY_DERIVATION
    finish(overlay, context, OVERLAY_DESCRIPTION)
    return overlay


def build_heat_map(context: ResultContext, rgb: Rgb) -> Dataset:
    """Return the activation maps of the analysis beside their crops; of `rgb` nothing else is needed."""
    picture = draw_heat_maps(context.analysis, context.source.frame)
    heat_map = _capture(context, ResultKind.HEAT_MAP, picture)
    heat_map.ImageType = ["DERIVED", "SECONDARY", "HEAT_MAP"]
    heat_map.DerivationDescription = HEAT_MAP_DERIVATION
    finish(heat_map, context, HEAT_MAP_DESCRIPTION)
    return heat_map


def _capture(context: ResultContext, kind: ResultKind, picture: Rgb) -> SOPClass:
    """Return a Secondary Capture (PS3.3 A.8.1), JPEG Baseline, of a drawn picture with words in it."""
    capture: SOPClass = SCImage(
        pixel_array=picture,
        photometric_interpretation=PhotometricInterpretationValues.YBR_FULL_422,
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=_UNKNOWN_ORIENTATION,
        study_instance_uid=context.source.study_instance_uid,
        transfer_syntax_uid=JPEGBaseline8Bit,
        **object_arguments(context, kind),
    )
    capture.ConversionType = ConversionTypeValues.WSD.value
    capture.PatientOrientation = None
    capture.Laterality = ""
    capture.BurnedInAnnotation = "YES"
    capture.SourceImageSequence = [context.source.refer(Dataset())]
    capture.LossyImageCompression = "01"
    capture.LossyImageCompressionRatio = round(picture.nbytes / len(capture.PixelData), 2)
    capture.LossyImageCompressionMethod = "ISO_10918_1"
    return capture
