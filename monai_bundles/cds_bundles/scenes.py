"""Scenes of several lesions, composed from fragments of real pictures on lesion-free skin (or drawn).

Real dermoscopy pictures nearly always show one outlined lesion, so a network that has to tell lesions apart
learns it from compositions. A fragment is cut with a margin, tone-matched to the skin under it, and blended
in with a feathered border; the mask stays the annotator's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import scene_artefacts as artefacts
from .resize import resize_rgb
from .scene_artefacts import Mask, Random, Rgb
from .scene_drawing import draw_lesion, draw_skin, outline

SMALLEST_VISIBLE_PART = 0.45
"""A lesion cut by the frame's border counts as long as this share of it stays in view."""
SMALLEST_LESION_SIDE = 8
"""Pixels; what is left of a lesion after an aperture must be at least this wide and high."""
PLACEMENT_TRIES = 12
LEAST_CONTRAST = 14.0
"""Levels of 255 by which a fragment differs from its skin in some channel; below, nobody could count it."""
EVENNESS = 0.82
"""The darkest spots of lesion-free skin have at least this share of its median, in every channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture (H, W, 3) uint8 sRGB and one boolean mask (H, W) per lesion, in no order."""

    rgb: Rgb
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fragment:
    """A lesion with some skin round it: rgb (h, w, 3), mask (h, w), and the mean sRGB of that skin (3,)."""

    rgb: Rgb
    mask: Mask
    skin: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layout:
    """How lesions lie on a scene; sizes are shares of the frame's shorter side."""

    smallest: float = 0.09
    largest: float | None = None
    """None: the fewer lesions there are, the larger they may be."""
    cut_off: float = 0.15
    """How often a lesion may be cut by the frame's border."""
    beside: float = 0.0
    """How often a lesion lies close beside one that is there already."""


USUAL = Layout()
CROWDED = Layout(smallest=0.07, largest=0.3, cut_off=0.4, beside=0.35)
"""Small lesions, neighbours and lesions at the border: what a network misses, merges or splits first."""
CLOSEST_PIXELS = (2.0, 14.0)
"""Between the circles round two neighbours in a crowded layout."""

FragmentSource = Callable[[Random], Fragment]
SkinSource = Callable[[Random], Rgb]


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) tight round the true pixels, x1 and y1 exclusive; all zero for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cut_fragment(rgb: Rgb, mask: Mask, margin: float = 0.3) -> Fragment | None:
    """The lesion under `mask` with a `margin` (share of its longer side).

    None where the frame cuts the lesion off, the mask has several parts, or hardly any contrast is left.
    """
    x0, y0, x1, y1 = bounding_box(mask)
    height, width = mask.shape
    if min(x1 - x0, y1 - y0) < SMALLEST_LESION_SIDE or x0 < 2 or y0 < 2 or x1 > width - 2 or y1 > height - 2:
        return None
    pad = int(margin * max(x1 - x0, y1 - y0)) + 2
    window = np.s_[max(0, y0 - pad) : y1 + pad, max(0, x0 - pad) : x1 + pad]
    part, inside = rgb[window], mask[window]
    ring = ~cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    if ring.sum() < 20 or cv2.connectedComponents(inside.astype(np.uint8))[0] > 2:
        return None
    skin = np.median(part[ring], axis=0).astype(np.float32)
    if np.abs(np.median(part[inside], axis=0) - skin).max() < LEAST_CONTRAST:
        return None
    return Fragment(part, inside, skin + 1.0)


def lesion_free_part(rgb: Rgb, mask: Mask, smallest_side: int = 56, gap: int = 14) -> Rgb | None:
    """The largest strip of `rgb` beside the lesion, `gap` pixels away; None when too narrow or uneven."""
    x0, y0, x1, y1 = bounding_box(mask)
    strips = (rgb[: max(0, y0 - gap)], rgb[y1 + gap :], rgb[:, : max(0, x0 - gap)], rgb[:, x1 + gap :])
    best = max(strips, key=lambda strip: min(strip.shape[:2]) * 10_000 + strip.size)
    return best if min(best.shape[:2]) >= smallest_side and is_even(best) else None


def is_even(skin: Rgb) -> bool:
    """False where `skin` shows something dark or red wider than a hair: a satellite, a dark corner."""
    smooth = cv2.blur(skin, (9, 9)).reshape(-1, 3)
    return bool((np.percentile(smooth, 1, axis=0) >= EVENNESS * np.median(smooth, axis=0)).all())


def cover_with_skin(rng: Random, skin: Rgb, height: int, width: int) -> Rgb:
    """(height, width, 3) of skin: a random, turned part of `skin`, enlarged a little, mirrored at need."""
    skin = np.rot90(skin, int(rng.integers(4)))
    skin = skin[:, ::-1] if rng.random() < 0.5 else skin
    cover = max(height / skin.shape[0], width / skin.shape[1])
    scale = min(cover, 2.0) * rng.uniform(0.9, 1.3)
    skin = resize_rgb(np.ascontiguousarray(skin), round(skin.shape[1] * scale), round(skin.shape[0] * scale))
    missing = (max(0, height - skin.shape[0]), max(0, width - skin.shape[1]))
    before = (int(rng.integers(missing[0] + 1)), int(rng.integers(missing[1] + 1)))
    skin = np.pad(
        skin,
        ((before[0], missing[0] - before[0]), (before[1], missing[1] - before[1]), (0, 0)),
        mode="symmetric",
    )
    top, left = (int(rng.integers(skin.shape[axis] - size + 1)) for axis, size in ((0, height), (1, width)))
    return np.ascontiguousarray(skin[top : top + height, left : left + width])


def compose(
    rng: Random, skin: Rgb, count: int, fragment: FragmentSource | None, layout: Layout = USUAL
) -> Scene:
    """`skin` (H, W, 3) with up to `count` lesions apart from each other; `fragment` None draws them instead.

    A lesion that finds no free place is left out, so the masks tell the true number.
    """
    height, width = skin.shape[:2]
    rgb, taken = skin, np.zeros((height, width), np.uint8)
    masks: list[Mask] = []
    smallest, largest = (size * min(height, width) for size in _sizes(layout, count))
    for _ in range(count):
        cut = fragment(rng) if fragment is not None else None
        for attempt in range(PLACEMENT_TRIES):
            shrink = 1.0 - attempt / (PLACEMENT_TRIES + 2)
            diameter = max(smallest, np.exp(rng.uniform(np.log(smallest * 1.2), np.log(largest))) * shrink)
            placed = _place(rng, rgb, cut, diameter, _centre(rng, layout, diameter, masks, (height, width)))
            if placed is None or (placed.masks[0] & (taken > 0)).any():
                continue
            rgb, mask = placed.rgb, placed.masks[0]
            masks.append(mask)
            gap = int(rng.integers(1, 8)) * 2 + 1
            taken |= cv2.dilate(mask.astype(np.uint8), np.ones((gap, gap), np.uint8)).astype(np.uint8)
            break
    return Scene(rgb, tuple(masks))


def _sizes(layout: Layout, count: int) -> tuple[float, float]:
    share = 0.95 if count == 1 else 0.62 if count == 2 else 1.0 / np.sqrt(count + 0.5)
    return layout.smallest, layout.largest or share


def _centre(
    rng: Random, layout: Layout, diameter: float, masks: list[Mask], size: tuple[int, int]
) -> tuple[float, float]:
    """(x, y) of the next lesion: beside one that is there, or anywhere; now and then cut by the border."""
    if masks and layout.beside and rng.random() < layout.beside:
        x0, y0, x1, y1 = bounding_box(masks[int(rng.integers(len(masks)))])
        away = 0.5 * (max(x1 - x0, y1 - y0) + diameter) + rng.uniform(*CLOSEST_PIXELS)
        turn = rng.uniform(0, 2 * np.pi)
        return (x0 + x1) / 2 + away * np.cos(turn), (y0 + y1) / 2 + away * np.sin(turn)
    inset = 0.5 * diameter * (1.05 if rng.random() < 1.0 - layout.cut_off else 0.3)
    return _between(rng, inset, size[1]), _between(rng, inset, size[0])


def _place(
    rng: Random, rgb: Rgb, cut: Fragment | None, diameter: float, centre: tuple[float, float]
) -> Scene | None:
    if cut is None:
        height, width = rgb.shape[:2]
        mask = outline(rng, height, width, centre, diameter)
        return None if _lost(mask) else Scene(draw_lesion(rng, rgb, mask), (mask,))
    return paste(rng, rgb, cut, centre, diameter)


def _between(rng: Random, inset: float, size: int) -> float:
    return float(rng.uniform(inset, size - inset)) if 2 * inset < size else size / 2


def _lost(mask: Mask) -> bool:
    x0, y0, x1, y1 = bounding_box(mask)
    return min(x1 - x0, y1 - y0) < SMALLEST_LESION_SIDE


def paste(rng: Random, rgb: Rgb, cut: Fragment, centre: tuple[float, float], diameter: float) -> Scene | None:
    """`rgb` with `cut` turned, scaled to `diameter` pixels and blended in at `centre` (x, y), and its mask.

    None when too little of the lesion would be in view.
    """
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = bounding_box(cut.mask)
    scale = diameter / max(x1 - x0, y1 - y0)
    size = (max(1, round(cut.rgb.shape[1] * scale)), max(1, round(cut.rgb.shape[0] * scale)))
    small = resize_rgb(cut.rgb, *size)
    soft = np.asarray(cv2.resize(cut.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)
    expected = float(soft.sum())
    matrix = _turn(rng, ((x0 + x1) / 2 * scale, (y0 + y1) / 2 * scale), centre)
    mask = cv2.warpAffine(soft, matrix, (width, height)) > 0.5
    if mask.sum() < SMALLEST_VISIBLE_PART * expected or _lost(mask):
        return None
    alpha = _feathered(rng, soft, matrix, (width, height), diameter)
    colours = cv2.warpAffine(small, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    light = cv2.blur(rgb, (25, 25)).astype(np.float32) / cut.skin
    matched = colours * np.clip(light, 0.15, 2.5)
    blended = rgb + alpha[..., None] * (matched - rgb)
    return Scene(np.clip(blended, 0, 255).astype(np.uint8), (mask,))


def _turn(rng: Random, start: tuple[float, float], centre: tuple[float, float]) -> NDArray[np.float64]:
    angle, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    linear = np.array([[np.cos(angle), -np.sin(angle) * flip], [np.sin(angle), np.cos(angle) * flip]])
    return np.column_stack([linear, np.array(centre) - linear @ np.array(start)])


def _feathered(
    rng: Random,
    soft: NDArray[np.float32],
    matrix: NDArray[np.float64],
    size: tuple[int, int],
    diameter: float,
) -> NDArray[np.float32]:
    """(H, W) in 0..1, solid over the lesion and fading on the margin that the fragment brought along."""
    grow = int(rng.uniform(0, 0.08) * diameter) * 2 + 1
    wide = cv2.dilate(soft, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow)))
    wide[[0, -1]] = 0.0
    wide[:, [0, -1]] = 0.0
    sigma = float(rng.uniform(0.4, 0.8 + 0.03 * diameter))
    alpha = cv2.GaussianBlur(cv2.warpAffine(wide, matrix, size), (0, 0), sigma)
    return np.asarray(np.clip(alpha * rng.uniform(1.0, 1.6), 0.0, 1.0), dtype=np.float32)


def add_distractors(rng: Random, rgb: Rgb) -> Rgb:
    """A few specks, smaller than any lesion that counts: freckles, red dots, pores."""
    layer = rgb.copy()
    height, width = rgb.shape[:2]
    for _ in range(int(rng.integers(1, 14))):
        centre = tuple(int(v) for v in rng.uniform((0, 0), (width, height)))
        under = rgb[min(centre[1], height - 1), min(centre[0], width - 1)]
        colour = (under * np.exp(-rng.uniform(0.05, 0.5) * np.array([0.5, 1.0, 1.1]))).tolist()
        cv2.ellipse(
            layer,
            centre,
            (int(rng.integers(1, 4)), int(rng.integers(1, 4))),
            0,
            0,
            360,
            colour,
            -1,
            cv2.LINE_AA,
        )
    return cv2.GaussianBlur(layer, (0, 0), 0.7).astype(np.uint8)


def through_dermatoscope(rng: Random, scene: Scene, strength: float = 1.0) -> Scene:
    """`scene` as a device would show it; `strength` scales how often hair, rulers, ink and so on appear."""
    rgb, masks = scene.rgb, scene.masks
    for probability, change in (
        (0.30, artefacts.add_hair),
        (0.12, artefacts.add_ruler),
        (0.08, artefacts.add_ink),
        (0.12, artefacts.add_bubbles),
        (0.25, artefacts.add_vignette),
    ):
        if rng.random() < probability * strength:
            rgb = change(rng, rgb)
    if rng.random() < 0.12 * strength:
        visible = artefacts.dark_corners(rng, *rgb.shape[:2])
        masks = tuple(mask & (visible > 0.5) for mask in masks)
        rgb = artefacts.behind_aperture(rng, rgb, visible)
    if rng.random() < 0.7:
        rgb = artefacts.change_light(rng, rgb)
    return Scene(artefacts.through_camera(rng, rgb), tuple(mask for mask in masks if not _lost(mask)))


def drawn_skin(rng: Random, height: int, width: int) -> Rgb:
    """(height, width, 3) of drawn skin of any type, now and then with specks."""
    skin = draw_skin(rng, height, width)
    return add_distractors(rng, skin) if rng.random() < 0.3 else skin
