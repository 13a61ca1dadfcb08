"""Pictures that show no skin: everyday photographs seen again, drawn shapes, hues that no skin has."""

from __future__ import annotations

import cv2
import numpy as np

from .scene_artefacts import Random, Rgb, change_light, through_camera
from .scenes import cover_with_skin


def seen_again(rng: Random, rgb: Rgb, height: int, width: int) -> Rgb:
    """A part of `rgb`, in another light and through another camera, as (height, width, 3)."""
    side = min(rgb.shape[:2])
    part = max(32, int(side * rng.uniform(0.35, 1.0)))
    top, left = (int(rng.integers(size - part + 1)) for size in rgb.shape[:2])
    crop = np.ascontiguousarray(rgb[top : top + part, left : left + part])
    return through_camera(rng, change_light(rng, cover_with_skin(rng, crop, height, width)))


def drawn_shapes(rng: Random, height: int, width: int) -> Rgb:
    """A gradient or cloud in any colour with lines, discs, boxes and letters on it."""
    ends = rng.integers(0, 256, (2, 3)).astype(np.float32)
    cells = int(rng.integers(2, 24))
    clouds = cv2.resize(
        rng.random((cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    canvas = np.clip(ends[0] + clouds[..., None] * (ends[1] - ends[0]), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 25))):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        first, second = ((int(rng.integers(width)), int(rng.integers(height))) for _ in range(2))
        thick = int(rng.integers(1, 7))
        match int(rng.integers(4)):
            case 0:
                cv2.line(canvas, first, second, colour, thick)
            case 1:
                cv2.rectangle(canvas, first, second, colour, -1 if thick > 4 else thick)
            case 2:
                cv2.circle(canvas, first, int(rng.integers(2, 50)), colour, -1 if thick > 3 else thick)
            case _:
                text = "".join(chr(int(code)) for code in rng.integers(48, 91, 6))
                cv2.putText(canvas, text, first, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 1.6), colour, 2)
    noise = rng.normal(0, rng.uniform(0, 40) if rng.random() < 0.4 else 2, canvas.shape)
    return np.asarray(np.clip(canvas + noise, 0, 255), np.uint8)


def foreign_colours(rng: Random, rgb: Rgb) -> Rgb:
    """The picture in hues that no skin has."""
    if rng.random() < 0.4:
        return np.asarray(255 - rgb, np.uint8)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(45, 135))) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
