"""The outlines as a Colour Softcopy Presentation State: viewers that know it draw them over the picture."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from highdicom.color import CIELabColor
from highdicom.pr import (
    AnnotationUnitsValues,
    ColorSoftcopyPresentationState,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    TextJustificationValues,
    TextObject,
)
from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from cds_plugin.elements import element_value
from cds_plugin.results import codes
from cds_plugin.results.colours import RgbColour, colours_of
from cds_plugin.results.context import RESEARCH_NOTICE, ResultContext, reference_dataset, tracking_identifier
from cds_plugin.results.equipment import finish, object_arguments
from cds_plugin.results.shape import outline
from cds_plugin.study import Lesion, ResultKind, Rgb

DESCRIPTION = "AI outlines; research use, not for diagnosis"
NOTICE_LAYER = "NOTICE"
NOTICE_AREA = (0.0, 0.0, 1.0, 0.06)
"""Left, top, right, bottom, as shares of what the viewer displays."""

LABEL_WIDTH, LABEL_HEIGHT = 0.2, 0.04
"""Shares of the picture."""

_ICC_CLASS, _ICC_SIGNATURE, _ICC_DATE = slice(12, 16), slice(36, 40), slice(24, 36)
# Of a profile's header (ICC.1:2022, 7.2). The date is of the moment, and bytes must repeat.
_DISPLAY, _INPUT, _SPACE = b"mntr", b"scnr", b"spac"


def build_presentation(context: ResultContext, rgb: Rgb) -> Dataset:
    """Return the presentation state (PS3.3 A.33.2): a layer per lesion in its colour, the research notice.

    `rgb` is not needed: the state refers to the picture.
    """
    picture, lesions = _picture(context), context.analysis.lesions
    colours = colours_of(lesions)
    notice = GraphicLayer(NOTICE_LAYER, 1, RESEARCH_NOTICE)
    layers = [_layer(each, colours[each.number]) for each in lesions]
    annotations = [
        _annotation(context, picture, layer, each) for layer, each in zip(layers, lesions, strict=True)
    ]
    state = ColorSoftcopyPresentationState(
        referenced_images=[picture],
        content_label="AI_OUTLINES",
        content_description=RESEARCH_NOTICE,
        graphic_annotations=[_notice(picture, notice), *annotations],
        graphic_layers=[notice, *layers],
        icc_profile=_profile(element_value(context.source.header, "ICCProfile")),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **object_arguments(context, ResultKind.PRESENTATION),
    )
    state.Laterality = ""
    for item in _references(state):
        context.source.refer(item)
    finish(state, context, DESCRIPTION)
    return state


def _picture(context: ResultContext) -> Dataset:
    """Return a stand-in of one frame in colour; the references to it are corrected afterwards."""
    picture = reference_dataset(context.source)
    picture.SOPClassUID = SecondaryCaptureImageStorage
    picture.SamplesPerPixel = 3
    picture.Rows, picture.Columns = context.analysis.rows, context.analysis.columns
    return picture


def _references(state: Dataset) -> Iterator[Dataset]:
    for series in state.ReferencedSeriesSequence:
        yield from series.ReferencedImageSequence
    for annotation in state.GraphicAnnotationSequence:
        yield from annotation.get("ReferencedImageSequence", ())


def _layer(lesion: Lesion, colour: RgbColour) -> GraphicLayer:
    name, order = f"LESION_{lesion.number}", lesion.number + 1
    description = f"{tracking_identifier(lesion)}: {codes.FINDINGS[lesion.finding].meaning}"
    return GraphicLayer(name, order, description, CIELabColor.from_rgb(*colour))


def _notice(picture: Dataset, layer: GraphicLayer) -> GraphicAnnotation:
    notice = TextObject(
        RESEARCH_NOTICE,
        AnnotationUnitsValues.DISPLAY,
        bounding_box=NOTICE_AREA,
        text_justification=TextJustificationValues.CENTER,
    )
    return GraphicAnnotation([picture], layer, text_objects=[notice])


def _annotation(
    context: ResultContext, picture: Dataset, layer: GraphicLayer, lesion: Lesion
) -> GraphicAnnotation:
    """Return outline and text of a lesion, tied by tracking UID to SEG and SR (PS3.3 C.10.5)."""
    tracking: dict[str, Any] = {
        "tracking_id": tracking_identifier(lesion),
        "tracking_uid": context.tracking_uid(lesion),
    }
    line = GraphicObject(
        GraphicTypeValues.POLYLINE, np.asarray(outline(lesion)), AnnotationUnitsValues.PIXEL, **tracking
    )
    text = f"{lesion.number}: {lesion.finding} {max(lesion.probabilities):.2f}"
    label = TextObject(
        text,
        AnnotationUnitsValues.PIXEL,
        bounding_box=_label_box(lesion, context.analysis.rows, context.analysis.columns),
        anchor_point=(lesion.bbox.x0 + lesion.bbox.width / 2, float(lesion.bbox.y0)),
        anchor_point_visible=False,
        text_justification=TextJustificationValues.LEFT,
        **tracking,
    )
    return GraphicAnnotation([picture], layer, graphic_objects=[line], text_objects=[label])


def _label_box(lesion: Lesion, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the place for a label: over its lesion, within the picture.

    An anchor point alone would do by the standard; a viewer was seen to put such texts into the corner.
    """
    width, height = LABEL_WIDTH * columns, LABEL_HEIGHT * rows
    left = min(float(lesion.bbox.x0), columns - width)
    top = max(lesion.bbox.y0 - height, 0.0)
    return left, top, left + width, top + height


def _profile(of_picture: bytes | None) -> bytes:
    """Return the picture's own profile, else sRGB, as an input profile (PS3.3 C.11.15).

    Cameras and libraries embed display profiles; the same tags mean the same colours under either class.
    """
    given = of_picture or b""
    usable = given[_ICC_SIGNATURE] == b"acsp" and given[_ICC_CLASS] in (_DISPLAY, _INPUT, _SPACE)
    profile = bytearray(given if usable else _srgb())
    if profile[_ICC_CLASS] == _DISPLAY:
        profile[_ICC_CLASS] = _INPUT
    return bytes(profile)


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_ICC_DATE] = bytes(len(profile[_ICC_DATE]))
    return bytes(profile)
