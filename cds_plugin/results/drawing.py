"""Draws the overlay: a banner, the photograph with numbered outlines, and a legend, none hiding the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from cds_plugin.results import codes
from cds_plugin.results.colours import RgbColour, colours_of
from cds_plugin.results.equipment import plain_text
from cds_plugin.results.lettering import (
    BACKGROUND,
    DARK,
    INK,
    Line,
    badge_size,
    banner,
    draw_badge,
    font,
    text_block,
)
from cds_plugin.results.placing import Place, free_corner
from cds_plugin.results.report import statements
from cds_plugin.results.shape import Points, all_rings, measure
from cds_plugin.study import Analysis, Lesion, LesionClass, OperatingPoint, Rgb

MAX_LONG_SIDE = 2000
# Of the photograph: enough for a screen, and the full resolution is in the source.
MIN_WIDTH = 800
# Of the drawing, so that the legend can be read beside a thumbnail.
MAX_LEGEND_ENTRIES = 20
# Beyond that the legend would be longer than the photograph; the report has them all.
KEY_TO_CLASSES = "; ".join(
    f"{key} = {code.meaning[0].lower()}{code.meaning[1:]}" for key, code in codes.FINDINGS.items()
)

_SUBPIXEL_BITS = 4
_Spacing = tuple[float, float] | None


def draw_overlay(rgb: Rgb, analysis: Analysis, spacing_mm: _Spacing, frame: int | None = None) -> Rgb:
    """Return the drawing of `rgb`, (rows, columns, 3) in sRGB.

    `spacing_mm` is (between rows, between columns) for sizes in mm; None gives pixels. `frame` is named
    where the photograph is one of several in an object.
    """
    photograph = outlined(rgb, analysis.lesions)
    width = max(photograph.shape[1], MIN_WIDTH)
    large, small = font(width // 44), font(width // 60)
    heading = [*([f"Frame {frame}"] if frame is not None else []), *statements(analysis, spacing_mm)]
    parts = (
        banner(width, large),
        text_block(map(Line, heading), width, large),
        photograph,
        text_block(_legend(analysis, spacing_mm), width, small),
    )
    return np.vstack([centred(part, width) for part in parts])


def outlined(rgb: Rgb, lesions: tuple[Lesion, ...]) -> Rgb:
    """Return a copy of the photograph, scaled to a size between two bounds, with numbered outlines."""
    photograph = _scaled(rgb)
    scale = np.array([photograph.shape[1] / rgb.shape[1], photograph.shape[0] / rgb.shape[0]])
    colours = colours_of(lesions)
    for lesion in lesions:
        _draw_outline(photograph, [ring * scale for ring in all_rings(lesion)], colours[lesion.number])
    return _with_badges(photograph, lesions, colours, scale)


def centred(part: Rgb, width: int) -> Rgb:
    """Return `part` in the middle of a dark strip of `width`."""
    canvas = np.full((part.shape[0], width, 3), BACKGROUND, dtype=np.uint8)
    left = (width - part.shape[1]) // 2
    canvas[:, left : left + part.shape[1]] = part
    return canvas


@dataclass(frozen=True, slots=True)
class Finding:
    """What pictures and pages say of a lesion in words."""

    likeliest: str
    not_excluded: str
    malignancy: str
    remark: str
    """Empty where there is none."""


def finding_in_words(lesion: Lesion, point: OperatingPoint | None) -> Finding:
    """Return class, prediction set, malignancy against the operating point, and whether it is unfamiliar."""
    probability = max(lesion.probabilities)
    every = len(lesion.prediction_set) == len(LesionClass)
    flagged = point is not None and point.flags(lesion)
    unfamiliar = point is not None and point.is_unfamiliar(lesion)
    return Finding(
        f"{codes.FINDINGS[lesion.finding].meaning} {probability:.2f}",
        "any class" if every else ", ".join(lesion.prediction_set),
        f"{lesion.malignancy:.2f}{' FLAGGED' if flagged else ''}",
        "UNLIKE THE LESIONS LEARNED FROM" if unfamiliar else "",
    )


def area_in_words(lesion: Lesion, spacing_mm: _Spacing) -> str:
    """Return area and long axis where the picture says how large a pixel is, else the area in pixels."""
    size = measure(lesion, spacing_mm)
    return f"{size.area:.1f} mm2, {size.long_axis:.1f} mm long" if size.calibrated else f"{lesion.area_px} px"


def _scaled(rgb: Rgb) -> Rgb:
    """Return a copy whose long side fits the drawing."""
    rows, columns = rgb.shape[:2]
    factor = min(max(1.0, MIN_WIDTH / max(rows, columns)), MAX_LONG_SIDE / max(rows, columns))
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    kernel = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, size, interpolation=kernel), dtype=np.uint8).copy()


def _draw_outline(picture: Rgb, rings: Iterable[Points], colour: RgbColour) -> None:
    """Draw the rings in `colour` between white and black, so that they show on any skin."""
    fixed = [np.round((ring - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32) for ring in rings]
    thickness = max(2, max(picture.shape[:2]) // 500)
    for shade, wide in ((INK, thickness + 4), (DARK, thickness + 2), (colour, thickness)):
        cv2.polylines(picture, fixed, True, shade, wide, cv2.LINE_AA, _SUBPIXEL_BITS)


def _with_badges(
    picture: Rgb, lesions: Iterable[Lesion], colours: Mapping[int, RgbColour], scale: Points
) -> Rgb:
    """Number every lesion beside its outline, no number over another."""
    image = Image.fromarray(picture)
    pen, face = ImageDraw.Draw(image), font(max(16, max(image.size) // 50))
    placed: list[Place] = []
    for lesion in lesions:
        size = badge_size(lesion.number, face)
        x0, y0, x1, y1 = (np.array(lesion.bbox.as_list()) * np.tile(scale, 2)).tolist()
        corner = free_corner((x0, y0, x1, y1), size, image.size, placed)
        placed.append((*corner, corner[0] + size[0], corner[1] + size[1]))
        draw_badge(pen, corner, lesion.number, colours[lesion.number], face)
    return np.asarray(image)


def _legend(analysis: Analysis, spacing_mm: _Spacing) -> Iterator[Line]:
    colours, point = colours_of(analysis.lesions), analysis.operating_point
    for lesion in analysis.lesions[:MAX_LEGEND_ENTRIES]:
        words = finding_in_words(lesion, point)
        parts = (
            words.likeliest,
            f"not excluded: {words.not_excluded}",
            f"malignant or premalignant {words.malignancy}",
            area_in_words(lesion, spacing_mm),
            *([words.remark] if words.remark else []),
        )
        yield Line("; ".join(parts), lesion.number, colours[lesion.number])
    left_out = len(analysis.lesions) - MAX_LEGEND_ENTRIES
    if left_out > 0:
        yield Line(f"and {left_out} more: see the report")
    if analysis.lesions:
        yield Line(KEY_TO_CLASSES)
    for bundle in analysis.bundles:
        yield Line(plain_text(f"{bundle.name} {bundle.version} ({bundle.sha256[:12]})"))
