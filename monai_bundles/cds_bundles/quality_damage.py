"""Ways in which a good picture becomes a useless one, for measuring whether the quality gate notices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Random = np.random.Generator

GAMMA = 2.2
"""sRGB values to light and back, near enough."""

GAUSSIAN_SIGMA_PX = (2.0, 6.0)
MILD_SIGMA_PX = (1.2, 2.0)
MOTION_LENGTH_PX = (15, 31)
DARK_LIGHT = (0.005, 0.03)
MILD_DARK_LIGHT = (0.03, 0.08)
BRIGHT_LIGHT = (4.0, 12.0)
"""Factors on the light that falls on the sensor."""


def blur(rgb: Rgb, random: Random) -> Rgb:
    """Out of focus: a Gaussian of `GAUSSIAN_SIGMA_PX` in the picture's own pixels."""
    return _bytes(cv2.GaussianBlur(rgb, (0, 0), random.uniform(*GAUSSIAN_SIGMA_PX)))


def blur_mildly(rgb: Rgb, random: Random) -> Rgb:
    """Not quite in focus: a Gaussian of `MILD_SIGMA_PX`."""
    return _bytes(cv2.GaussianBlur(rgb, (0, 0), random.uniform(*MILD_SIGMA_PX)))


def shake(rgb: Rgb, random: Random) -> Rgb:
    """Moved while exposing: a line of `MOTION_LENGTH_PX` pixels in any direction."""
    length = int(random.integers(*MOTION_LENGTH_PX))
    middle = (length - 1) / 2
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1.0
    turn = cv2.getRotationMatrix2D((middle, middle), random.uniform(0, 180), 1.0)
    turned = cv2.warpAffine(line, turn, (length, length))
    return _bytes(cv2.filter2D(rgb, -1, turned / turned.sum(), borderType=cv2.BORDER_REFLECT))


def darken(rgb: Rgb, random: Random) -> Rgb:
    """Far too little light: `DARK_LIGHT` times as much."""
    return expose(rgb, random.uniform(*DARK_LIGHT))


def darken_mildly(rgb: Rgb, random: Random) -> Rgb:
    """Too little light: `MILD_DARK_LIGHT` times as much."""
    return expose(rgb, random.uniform(*MILD_DARK_LIGHT))


def brighten(rgb: Rgb, random: Random) -> Rgb:
    """Far too much light: `BRIGHT_LIGHT` times as much, clipped."""
    return expose(rgb, random.uniform(*BRIGHT_LIGHT))


def expose(rgb: Rgb, light: float) -> Rgb:
    """`rgb` as `light` times the light would have made it, clipped at white."""
    return _bytes(255.0 * np.clip(light * (rgb / 255.0) ** GAMMA, 0.0, 1.0) ** (1 / GAMMA))


def one_colour(rgb: Rgb, random: Random) -> Rgb:
    """A picture of the same size in one colour by lot, with sensor noise of 0 to 3 grey levels."""
    colour = random.integers(0, 256, 3) + random.normal(0.0, random.uniform(0.0, 3.0), rgb.shape)
    return _bytes(np.clip(colour, 0, 255))


def static(rgb: Rgb, random: Random) -> Rgb:
    """Nothing but noise, of the same size."""
    return _bytes(np.clip(random.normal(random.uniform(60, 200), random.uniform(30, 90), rgb.shape), 0, 255))


DAMAGES: Mapping[str, Callable[[Rgb, Random], Rgb]] = {
    "gaussian_blur": blur,
    "mild_blur": blur_mildly,
    "motion_blur": shake,
    "dark": darken,
    "mildly_dark": darken_mildly,
    "over_exposed": brighten,
    "one_colour": one_colour,
    "noise": static,
}


def _bytes(values: NDArray[np.number]) -> Rgb:
    return np.asarray(values).astype(np.uint8)
