"""Colours that stay apart for colour-blind eyes and on skin: Okabe and Ito's set without black."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cds_plugin.study import BoundingBox, Lesion

RgbColour = tuple[int, int, int]

PALETTE: tuple[RgbColour, ...] = (
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (213, 94, 0),
)
"""sRGB, 0-255 (Okabe and Ito, Color Universal Design, 2008); the farthest from skin come first.

Of the usual sets of seven it has the greatest least distance between two colours under simulated protanopia,
deuteranopia and tritanopia (Machado 2009): 16 in CIELAB, where 2 is just seen.
"""

BLACK: RgbColour = (0, 0, 0)
WHITE: RgbColour = (255, 255, 255)
_WEIGHTS = (0.2126, 0.7152, 0.0722)
_LUMINANCE_OF_EQUAL_CONTRAST = 0.179
# Where black and white text have the same contrast (WCAG 2.2, relative luminance).


def colours_of(lesions: Iterable[Lesion]) -> Mapping[int, RgbColour]:
    """Return the colour of each lesion by its number: the palette in turn, but never that of a neighbour.

    With more lesions than colours some share one; those that touch do so only where all seven are taken.
    """
    given: dict[int, int] = {}
    before: list[Lesion] = []
    for lesion in lesions:
        turn = [(lesion.number - 1 + step) % len(PALETTE) for step in range(len(PALETTE))]
        near = [given[each.number] for each in before if _touch(each.bbox, lesion.bbox)]
        given[lesion.number] = min(turn, key=lambda place: (near.count(place), turn.index(place)))
        before.append(lesion)
    return {number: PALETTE[place] for number, place in given.items()}


def ink_on(ground: RgbColour) -> RgbColour:
    """Return black or white, whichever reads better on `ground`."""
    linear = [_linear(value / 255) for value in ground]
    luminance = sum(weight * value for weight, value in zip(_WEIGHTS, linear, strict=True))
    return BLACK if luminance > _LUMINANCE_OF_EQUAL_CONTRAST else WHITE


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _touch(one: BoundingBox, other: BoundingBox) -> bool:
    return one.x0 <= other.x1 and other.x0 <= one.x1 and one.y0 <= other.y1 and other.y0 <= one.y1
