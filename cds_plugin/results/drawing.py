"""Draws the overlay: a banner, the photograph with numbered outlines, and a legend, none hiding the other."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cds_plugin.results import codes
from cds_plugin.results.colours import RgbColour, colour_of
from cds_plugin.results.equipment import plain_text
from cds_plugin.results.report import statements
from cds_plugin.results.shape import Points, all_rings, measure
from cds_plugin.study import Analysis, Lesion, LesionClass, Rgb

BANNER = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
MAX_LONG_SIDE = 2000
# Of the photograph: enough for a screen, and the full resolution is in the source.
MIN_WIDTH = 800
# Of the drawing, so that the legend can be read beside a thumbnail.
MAX_LEGEND_ENTRIES = 20
# Beyond that the legend would be longer than the photograph; the report has them all.

_BACKGROUND: RgbColour = (24, 24, 24)
_INK: RgbColour = (245, 245, 245)
_WARNING: RgbColour = (230, 159, 0)
_DARK: RgbColour = (0, 0, 0)
_SUBPIXEL_BITS = 4

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text, behind the badge of lesion `number` if there is one."""

    text: str
    number: int | None = None


def draw_overlay(rgb: Rgb, analysis: Analysis, spacing_mm: tuple[float, float] | None) -> Rgb:
    """Return the drawing of `rgb`, (rows, columns, 3) in sRGB.

    `spacing_mm` is (between rows, between columns) for areas in mm2; None gives pixels.
    """
    photograph = _scaled(rgb)
    scale = np.array([photograph.shape[1] / rgb.shape[1], photograph.shape[0] / rgb.shape[0]])
    width = max(photograph.shape[1], MIN_WIDTH)
    large, small = _font(width // 44), _font(width // 58)
    for lesion in analysis.lesions:
        _draw_outline(photograph, [ring * scale for ring in all_rings(lesion)], colour_of(lesion.number))
    parts = (
        _text_block([_Line(BANNER)], width, large, ink=_DARK, ground=_WARNING),
        _text_block(map(_Line, statements(analysis)), width, large),
        _with_badges(photograph, analysis.lesions, scale, large),
        _text_block(_legend(analysis, spacing_mm), width, small),
    )
    return np.vstack([_centred(np.asarray(part), width) for part in parts])


def _scaled(rgb: Rgb) -> Rgb:
    """Return a copy whose long side fits the drawing."""
    rows, columns = rgb.shape[:2]
    factor = min(max(1.0, MIN_WIDTH / max(rows, columns)), MAX_LONG_SIDE / max(rows, columns))
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    kernel = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, size, interpolation=kernel), dtype=np.uint8).copy()


def _draw_outline(picture: Rgb, rings: Iterable[Points], colour: RgbColour) -> None:
    """Draw the rings in `colour` on a dark line, so that they show on any skin."""
    fixed = [np.round((ring - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32) for ring in rings]
    thickness = max(2, max(picture.shape[:2]) // 500)
    for shade, wide in ((_DARK, thickness + 2), (colour, thickness)):
        cv2.polylines(picture, fixed, True, shade, wide, cv2.LINE_AA, _SUBPIXEL_BITS)


def _with_badges(picture: Rgb, lesions: Iterable[Lesion], scale: Points, font: Font) -> Image.Image:
    """Number every lesion at its highest point, within the picture."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for lesion in lesions:
        width, height = _badge_size(str(lesion.number), font)
        x, y = _highest_point(lesion) * scale
        corner = (_clamped(x - width / 2, image.width - width), _clamped(y - height, image.height - height))
        _draw_badge(pen, corner, lesion.number, font)
    return image


def _highest_point(lesion: Lesion) -> Points:
    row = int(np.flatnonzero(lesion.mask.any(axis=1))[0])
    column = float(np.median(np.flatnonzero(lesion.mask[row])))
    return np.array([lesion.bbox.x0 + column + 0.5, lesion.bbox.y0 + row])


def _clamped(value: float, upper: float) -> int:
    return round(max(0.0, min(value, upper)))


def _draw_badge(pen: ImageDraw.ImageDraw, corner: tuple[int, int], number: int, font: Font) -> None:
    width, height = _badge_size(str(number), font)
    x, y = corner
    box = (x, y, x + width - 1, y + height - 1)
    pen.rounded_rectangle(box, radius=height // 4, fill=colour_of(number), outline=_DARK, width=2)
    pen.text((x + width / 2, y + height / 2), str(number), fill=_DARK, font=font, anchor="mm")


def _badge_size(text: str, font: Font) -> tuple[int, int]:
    height = round(_line_height(font) * 1.5)
    return max(height, round(font.getlength(text)) + height // 2), height


def _legend(analysis: Analysis, spacing_mm: tuple[float, float] | None) -> Iterator[_Line]:
    for lesion in analysis.lesions[:MAX_LEGEND_ENTRIES]:
        yield _Line(_legend_text(lesion, spacing_mm), lesion.number)
    left_out = len(analysis.lesions) - MAX_LEGEND_ENTRIES
    if left_out > 0:
        yield _Line(f"and {left_out} more: see the report")
    for bundle in analysis.bundles:
        yield _Line(plain_text(f"{bundle.name} {bundle.version} ({bundle.sha256[:12]})"))


def _legend_text(lesion: Lesion, spacing_mm: tuple[float, float] | None) -> str:
    """Return the likeliest class in words, the second as its key, the malignancy and the area."""
    ranked = sorted(zip(LesionClass, lesion.probabilities, strict=True), key=lambda pair: -pair[1])
    (first, probability), (second, runner_up) = ranked[:2]
    likeliest = f"{codes.FINDINGS[first].meaning} {probability:.2f} ({second} {runner_up:.2f})"
    size = measure(lesion, spacing_mm)
    area = f"{size.area:.1f} mm2" if size.calibrated else f"{lesion.area_px} px"
    return f"{likeliest}; malignant or premalignant {lesion.malignancy:.2f}; {area}"


def _text_block(
    lines: Iterable[_Line], width: int, font: Font, ink: RgbColour = _INK, ground: RgbColour = _BACKGROUND
) -> Image.Image:
    """Return the lines on a ground of `width`, wrapped where they are too long."""
    height = round(_line_height(font) * 1.8)
    wrapped = [part for line in lines for part in _wrapped(line, width - 2 * height, font)]
    image = Image.new("RGB", (width, height * len(wrapped) + height // 2 * bool(wrapped)), ground)
    pen = ImageDraw.Draw(image)
    for index, line in enumerate(wrapped):
        top = height // 4 + index * height
        if line.number is not None:
            _draw_badge(pen, (height // 3, top + height // 12), line.number, font)
        pen.text((2 * height, top + height / 2), line.text, fill=ink, font=font, anchor="lm")
    return image


def _wrapped(line: _Line, width: float, font: Font) -> Iterator[_Line]:
    per_character = max(1.0, font.getlength(line.text) / max(1, len(line.text)))
    first, *rest = textwrap.wrap(plain_text(line.text), max(8, int(width * 0.9 / per_character))) or [""]
    yield _Line(first, line.number)
    yield from map(_Line, rest)


def _centred(part: Rgb, width: int) -> Rgb:
    canvas = np.full((part.shape[0], width, 3), _BACKGROUND, dtype=np.uint8)
    left = (width - part.shape[1]) // 2
    canvas[:, left : left + part.shape[1]] = part
    return canvas


def _line_height(font: Font) -> int:
    box = font.getbbox("Ag")
    return round(box[3] - box[1])


@lru_cache(maxsize=8)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
