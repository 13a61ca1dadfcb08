"""How light the skin beside a lesion is: its individual typology angle (ITA), estimated. No torch.

The pictures are uncalibrated: light, camera and gel shift the angle. It sorts pictures into groups; it says
nothing certain about one person.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colours = NDArray[np.float32]
"""(H, W, 3): CIELAB (D65) L*, a*, b*."""

SOURCE = (
    "Chardon et al., Int J Cosmet Sci 13:191 (1991); Del Bino and Bernerd, Br J Dermatol 169 s3:33 (2013)"
)


class Tone(NamedTuple):
    """A bin of skin tone and the ITA in degrees above which it lies."""

    name: str
    above: float


TONES = (
    Tone("very light", 55.0),
    Tone("light", 41.0),
    Tone("intermediate", 28.0),
    Tone("tan", 10.0),
    Tone("brown", -30.0),
    Tone("dark", -90.0),
)

BLUISH_CAST = "bluish cast"
"""The skin's median b* is 0 or less: no skin is blue, so light or camera is, and the angle has no meaning."""
TOO_LITTLE_SKIN = "too little skin"


class SkinTone(NamedTuple):
    """The name of a bin, and the ITA in degrees, -90 to 90; None where the name says why there is none."""

    name: str
    ita_degrees: float | None


SIDE = 384
"""Longest side, in pixels, at which the skin is looked at."""
MARGIN = 0.25
"""Width of the band around the lesion that is left out, as a share of the lesion's radius: its edge fades."""
CORNER_LIGHTNESS = 18.0
"""L* below which what touches the picture's edge is the dermoscope's rim; the darkest skin is about 25."""
CORNER_GROWTH = 0.03
"""The rim's shadow, as a share of the picture's side."""
LOCAL = 0.08
"""Side of the neighbourhood that a hair or bubble is compared with, as a share of the picture's side."""
DARKER, BRIGHTER = 6.0, 8.0
"""L* by which a hair is darker, and a bubble or reflection brighter, than its neighbourhood's median."""
LEAST_SKIN = 0.02
"""Share of the picture that must be left, else there is too little skin to say anything."""


def skin_tone(rgb: Rgb, lesions: Mask) -> SkinTone:
    """Return the tone of the skin of `rgb` (H, W, 3) sRGB outside `lesions` (H, W)."""
    small, outlines = _reduced(rgb, lesions)
    lab = cv2.cvtColor(small.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB).astype(np.float32)
    skin = ~_grown(outlines) & ~_rim(lab[..., 0]) & ~_hair_or_shine(lab[..., 0])
    if skin.mean() < LEAST_SKIN:
        return SkinTone(TOO_LITTLE_SKIN, None)
    lightness, _, yellowness = (float(each) for each in np.median(lab[skin], axis=0))
    if yellowness <= 0:
        return SkinTone(BLUISH_CAST, None)
    angle = math.degrees(math.atan((lightness - 50.0) / yellowness))
    return SkinTone(tone_of(angle), angle)


def tone_of(angle: float) -> str:
    """Return the name of the bin."""
    return next((tone.name for tone in TONES if angle > tone.above), TONES[-1].name)


def _reduced(rgb: Rgb, lesions: Mask) -> tuple[Rgb, Mask]:
    height, width = lesions.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    outlines = cv2.resize(lesions.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), np.asarray(outlines, np.uint8) > 0


def _grown(lesions: Mask) -> Mask:
    """Return `lesions` with a margin that follows their size."""
    radius = math.sqrt(np.count_nonzero(lesions) / math.pi)
    return _dilated(lesions, round(MARGIN * radius))


def _rim(lightness: NDArray[np.float32]) -> Mask:
    """Return the dark regions that touch the picture's edge, a little grown."""
    dark = (lightness < CORNER_LIGHTNESS).astype(np.uint8)
    labels = np.asarray(cv2.connectedComponents(dark)[1])
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touching = np.isin(labels, np.unique(edge[edge > 0]))
    return _dilated(touching, round(CORNER_GROWTH * max(lightness.shape)))


def _hair_or_shine(lightness: NDArray[np.float32]) -> Mask:
    """Return what is much darker or brighter than the median around it: hair, ruler marks; bubbles, glare."""
    side = max(3, round(LOCAL * max(lightness.shape))) | 1
    levels = np.clip(lightness * 2.55, 0, 255).astype(np.uint8)
    around = np.asarray(cv2.medianBlur(levels, side), np.float32) / np.float32(2.55)
    difference = lightness - around
    return np.asarray((difference < -DARKER) | (difference > BRIGHTER), np.bool_)


def _dilated(mask: Mask, radius: int) -> Mask:
    if radius < 1 or not mask.any():
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc), np.uint8) > 0
