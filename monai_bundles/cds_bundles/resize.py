"""The one way pictures are resized before a network sees them: part of every model, pinned and tested."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SHRINK_KERNEL = cv2.INTER_AREA
ENLARGE_KERNEL = cv2.INTER_LINEAR


def resize_rgb(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`rgb` (H, W, 3) uint8 sRGB as (height, width, 3): area averaging to shrink, bilinear to enlarge.

    Each axis gets its own kernel, shrinking first, so a picture one pixel wide is handled too.
    """
    rows, columns = rgb.shape[:2]
    if (rows, columns) == (height, width):
        return np.ascontiguousarray(rgb)
    smaller = (min(columns, width), min(rows, height))
    if smaller != (columns, rows):
        rgb = cv2.resize(rgb, smaller, interpolation=SHRINK_KERNEL).astype(np.uint8, copy=False)
    if smaller != (width, height):
        rgb = cv2.resize(rgb, (width, height), interpolation=ENLARGE_KERNEL).astype(np.uint8, copy=False)
    return np.ascontiguousarray(rgb)


def fit_rgb(rgb: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """`rgb` (H, W, 3) shrunk so that its longer side is at most `long_side` pixels; never enlarged."""
    rows, columns = rgb.shape[:2]
    scale = min(1.0, long_side / max(rows, columns))
    return resize_rgb(rgb, max(1, round(columns * scale)), max(1, round(rows * scale)))
