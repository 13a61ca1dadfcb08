"""The shape of a lesion: how deep inside each pixel lies, and the mask that is the truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cds_plugin.phantom.fields import Field, Random, fractal, soft_step
from cds_plugin.study import Mask


@dataclass(frozen=True, slots=True)
class Character:
    """How irregular: `lobes` for the large form, `fray` for the border, `softness` for how far it fades."""

    lobes: float
    fray: float
    softness: float


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Fields over the lesion's window: `radius` is 1 on the border, `cover` is 0-1, its presence."""

    radius: Field
    angle: Field
    cover: Field
    mask: Mask
    diameter: float


def draw_outline(rng: Random, diameter: float, character: Character) -> Outline:
    """Return a lesion of about `diameter` pixels in the middle of a window of 1.7 times that size."""
    size = int(diameter * 1.7)
    half = size / 2
    ys, xs = (np.mgrid[0:size, 0:size].astype(np.float32) - np.float32(half)) / np.float32(diameter / 2)
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.68, 1.0)
    x, y = xs * np.cos(turn) + ys * np.sin(turn), (-xs * np.sin(turn) + ys * np.cos(turn)) / flat
    angle = np.arctan2(y, x).astype(np.float32)
    radius = np.hypot(x, y).astype(np.float32) / _lobed(rng, angle, character.lobes)
    radius = radius + character.fray * fractal(rng, size, size, diameter * 0.25, 3)
    radius = radius + 0.35 * character.fray * fractal(rng, size, size, diameter * 0.06, 2)
    mask = _largest_part(radius < 1.0)
    fade = soft_step((1.0 - radius) / np.float32(character.softness))
    near = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(1.0, character.softness * diameter * 0.2))
    return Outline(
        radius.astype(np.float32),
        angle,
        (fade * np.clip(near * 2, 0, 1)).astype(np.float32),
        mask,
        diameter,
    )


def _lobed(rng: Random, angle: Field, lobes: float) -> Field:
    form = np.ones_like(angle)
    for harmonic in range(2, 8):
        form += np.float32(rng.normal(0, lobes / harmonic**0.8)) * np.cos(
            harmonic * angle + rng.uniform(0, 2 * np.pi)
        )
    return np.clip(form, 0.55, 1.4).astype(np.float32)


def _largest_part(inside: Mask) -> Mask:
    """Return the largest connected part of `inside`, its holes filled."""
    rings, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(inside.shape, np.uint8)
    cv2.drawContours(filled, [max(rings, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled.astype(np.bool_)
