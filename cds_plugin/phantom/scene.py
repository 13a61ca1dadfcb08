"""One phantom: skin, lesions apart from each other, and what lies above them; the masks are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cds_plugin.phantom.artefacts import add_gel, add_hair, add_light, add_ruler, through_camera
from cds_plugin.phantom.fields import Random
from cds_plugin.phantom.outline import Outline, draw_outline
from cds_plugin.phantom.pigment import CHARACTERS, Kind, draw_pigment
from cds_plugin.phantom.skin import Colours, draw_skin
from cds_plugin.study import Mask, Rgb

MOST_LESIONS = 5
PLACES_TRIED = 60
HAIRS = ((0, 1), (2, 9), (9, 26))
SKIN_TYPE_SHARES = (0.18, 0.24, 0.24, 0.16, 0.10, 0.08)
"""Fitzpatrick types I to VI."""
STRENGTHS = (1.0, 1.0, 1.0, 1.05, 1.2, 1.35)
"""Density of lesions by skin type, so that they stand out from dark skin as they do from light."""
PIXELS_PER_MM = 60.0
"""Of a picture 1200 pixels wide: a field of 20 mm."""


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """`rgb` is uint8 (height, width, 3) sRGB; `masks` (height, width), one per lesion, never overlap."""

    rgb: Rgb
    masks: tuple[Mask, ...]
    kinds: tuple[Kind, ...]
    skin_type: int
    """Fitzpatrick, 1 to 6."""
    pixel_spacing_mm: float


@dataclass(frozen=True, slots=True)
class _Place:
    x: float
    y: float
    diameter: float


def draw_phantom(
    seed: int, lesions: int | None = None, skin_type: int | None = None, width: int = 1200, height: int = 900
) -> Phantom:
    """Return the picture that this seed always gives; lesions (1 to 5) and skin type by lot if None.

    `width` and `height` are in pixels, 300 or more each. A lesion that finds no free place is left out.
    """
    rng = np.random.default_rng(seed)
    drawn_type = int(rng.choice(np.arange(1, 7), p=SKIN_TYPE_SHARES))
    drawn_count = int(rng.choice(np.arange(1, MOST_LESIONS + 1), p=(0.45, 0.25, 0.16, 0.09, 0.05)))
    picked_type = skin_type or drawn_type
    picture = draw_skin(rng, height, width, picked_type)
    masks, kinds = [], []
    for place in _places(rng, lesions or drawn_count, width, height):
        kind = _kind(rng, picked_type)
        picture, mask = _add_lesion(rng, picture, place, kind, STRENGTHS[picked_type - 1])
        masks.append(mask)
        kinds.append(kind)
    pixels_per_mm = PIXELS_PER_MM * width / 1200
    rgb = through_camera(rng, _add_artefacts(rng, picture, masks, pixels_per_mm))
    return Phantom(rgb, tuple(masks), tuple(kinds), picked_type, 1 / pixels_per_mm)


def _kind(rng: Random, skin_type: int) -> Kind:
    """Return a kind by lot; on dark skin only those that stand out from it."""
    dark = skin_type >= 5
    weights = {
        Kind.RETICULAR: 0.28,
        Kind.GLOBULAR: 0.18,
        Kind.MANY_COLOURED: 0.40 if dark else 0.18,
        Kind.KERATOTIC: 0.14,
        Kind.PINK: 0.0 if dark else 0.08,
        Kind.VASCULAR: 0.0 if dark else 0.07,
        Kind.SCAR_LIKE: 0.0 if dark else 0.07,
    }
    total = sum(weights.values())
    return list(weights)[int(rng.choice(len(weights), p=[each / total for each in weights.values()]))]


def _places(rng: Random, count: int, width: int, height: int) -> list[_Place]:
    """Return up to `count` places whose windows keep clear of each other and of the frame."""
    largest = {1: 0.62, 2: 0.40, 3: 0.32}.get(count, 0.25)
    places: list[_Place] = []
    for _ in range(count):
        for _ in range(PLACES_TRIED):
            diameter = height * rng.uniform(max(0.13, largest * 0.45), largest)
            reach = diameter * 0.66
            share = (rng.uniform(0, 1, 2) if count > 1 else rng.normal(0.5, 0.12, 2)).clip(0, 1)
            x, y = reach + share * (np.array([width, height]) - 2 * reach)
            place = _Place(float(x), float(y), diameter)
            if all(_apart(place, other) for other in places):
                places.append(place)
                break
    return places


def _apart(one: _Place, other: _Place) -> bool:
    return bool(np.hypot(one.x - other.x, one.y - other.y) > 0.72 * (one.diameter + other.diameter))


def _add_lesion(
    rng: Random, picture: Colours, place: _Place, kind: Kind, strength: float
) -> tuple[Colours, Mask]:
    """Return the picture with the lesion drawn over it, and the lesion's mask on the whole frame."""
    outline = draw_outline(rng, place.diameter, CHARACTERS[kind])
    density = draw_pigment(rng, outline, kind)
    frame, window = _windows(place, outline, picture.shape)
    picture = picture.copy()
    picture[frame] *= np.exp(-density[window] * np.float32(strength))
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[frame] = outline.mask[window]
    return picture, mask


def _windows(
    place: _Place, outline: Outline, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the lesion's window on the frame, and the part of the window that lies within it."""
    size = outline.mask.shape[0]
    top, left = int(place.y - size / 2), int(place.x - size / 2)
    first_row, first_column = max(0, top), max(0, left)
    last_row, last_column = min(shape[0], top + size), min(shape[1], left + size)
    frame = slice(first_row, last_row), slice(first_column, last_column)
    return frame, (
        slice(first_row - top, last_row - top),
        slice(first_column - left, last_column - left),
    )


def _add_artefacts(rng: Random, picture: Colours, masks: Sequence[Mask], pixels_per_mm: float) -> Colours:
    hairs = int(rng.integers(*HAIRS[int(rng.choice(len(HAIRS), p=(0.35, 0.45, 0.20)))]))
    bubbles = int(rng.integers(3, 20)) if rng.random() < 0.3 else 0
    if rng.random() < 0.35:
        picture = add_ruler(rng, picture, pixels_per_mm)
    picture = add_hair(rng, picture, hairs) if hairs else picture
    picture = add_gel(rng, picture, bubbles) if bubbles else picture
    return add_light(rng, picture, np.logical_or.reduce(masks), aperture=bool(rng.random() < 0.2))
