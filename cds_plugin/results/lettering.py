"""Text in pictures: blocks of lines, wrapped where too long, and the numbered badges of lesions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cds_plugin.results.colours import RgbColour, ink_on
from cds_plugin.results.equipment import plain_text
from cds_plugin.study import Rgb

BANNER = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
BACKGROUND: RgbColour = (24, 24, 24)
INK: RgbColour = (245, 245, 245)
WARNING: RgbColour = (230, 159, 0)
DARK: RgbColour = (0, 0, 0)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Corner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; with a number it stands behind the badge of that lesion, filled with `colour`."""

    text: str
    number: int | None = None
    colour: RgbColour = INK


@lru_cache(maxsize=16)
def font(size: int) -> Font:
    """Return the font that comes with Pillow, `size` pixels high."""
    return ImageFont.load_default(size)


def banner(width: int, face: Font) -> Rgb:
    """Return the research notice as a strip of `width`."""
    return text_block([Line(BANNER)], width, face, ink=DARK, ground=WARNING)


def text_block(
    lines: Iterable[Line], width: int, face: Font, ink: RgbColour = INK, ground: RgbColour = BACKGROUND
) -> Rgb:
    """Return the lines on a ground of `width`, wrapped where they are too long; (rows, width, 3)."""
    height = round(line_height(face) * 1.8)
    wrapped = [part for line in lines for part in _wrapped(line, width - 3 * height, face)]
    image = Image.new("RGB", (width, height * len(wrapped) + height // 2 * bool(wrapped)), ground)
    pen = ImageDraw.Draw(image)
    for index, line in enumerate(wrapped):
        top = height // 4 + index * height
        if line.number is not None:
            draw_badge(pen, (height // 3, top + height // 12), line.number, line.colour, face)
        pen.text((5 * height // 2, top + height / 2), line.text, fill=ink, font=face, anchor="lm")
    return np.asarray(image)


def draw_badge(pen: ImageDraw.ImageDraw, corner: Corner, number: int, colour: RgbColour, face: Font) -> None:
    """Draw a lesion's number on a ground of its colour, framed in black and white to show on any skin."""
    width, height = badge_size(number, face)
    (x, y), radius = corner, height // 4
    pen.rounded_rectangle((x, y, x + width - 1, y + height - 1), radius, fill=INK)
    pen.rounded_rectangle((x + 1, y + 1, x + width - 2, y + height - 2), radius, fill=colour, outline=DARK)
    pen.text((x + width / 2, y + height / 2), str(number), fill=ink_on(colour), font=face, anchor="mm")


def badge_size(number: int, face: Font) -> tuple[int, int]:
    """Return width and height of the badge of lesion `number`."""
    height = round(line_height(face) * 1.6)
    return max(height, round(face.getlength(str(number))) + height // 2), height


def line_height(face: Font) -> int:
    """Return the pixels from the top of an A to the foot of a g."""
    box = face.getbbox("Ag")
    return round(box[3] - box[1])


def _wrapped(line: Line, width: float, face: Font) -> Iterator[Line]:
    text = plain_text(line.text)
    per_character = max(1.0, face.getlength(text) / max(1, len(text)))
    first, *rest = textwrap.wrap(text, max(8, int(width * 0.95 / per_character))) or [""]
    yield Line(first, line.number, line.colour)
    yield from map(Line, rest)
