"""The square crop around a lesion that the classifier sees: the same rule in training and in use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_bundles.resize import resize_rgb

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels; x1 and y1 exclusive."""

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Square:
    """A square of `side` pixels whose corner (x0, y0) may lie outside the frame."""

    x0: int
    y0: int
    side: int


def square_around(bbox: Box, width: int, height: int, context: float) -> Square:
    """The square around `bbox` with its longer side times `context`, kept inside a width x height frame.

    Context is given up before the frame is left: the square outgrows the frame's shorter side only when the
    box itself does, and is then centred on that side.
    """
    x0, y0, x1, y1 = bbox
    longer = max(x1 - x0, y1 - y0, 1)
    side = max(longer, min(round(longer * context), min(width, height)))
    return Square(_placed((x0 + x1) / 2, side, width), _placed((y0 + y1) / 2, side, height), side)


def _placed(centre: float, side: int, extent: int) -> int:
    if side > extent:
        return (extent - side) // 2
    return min(max(round(centre - side / 2), 0), extent - side)


def cut_square(rgb: Rgb, square: Square, size: int) -> Rgb:
    """`square` of `rgb` (H, W, 3) as (size, size, 3); what lies outside the frame is mirrored in.

    The part inside is resized before it is mirrored, so memory stays bounded for very long frames.
    """
    rows, columns = rgb.shape[:2]
    left, inner_width, before_x = _span(square.x0, square.side, columns, size)
    top, inner_height, before_y = _span(square.y0, square.side, rows, size)
    right, bottom = min(square.x0 + square.side, columns), min(square.y0 + square.side, rows)
    inner = resize_rgb(rgb[top:bottom, left:right], inner_width, inner_height)
    after_x, after_y = size - inner_width - before_x, size - inner_height - before_y
    if (inner_height, inner_width) == (size, size):
        return inner
    mirrored = cv2.copyMakeBorder(inner, before_y, after_y, before_x, after_x, cv2.BORDER_REFLECT_101)
    return mirrored.astype(np.uint8, copy=False)


def _span(start: int, side: int, extent: int, size: int) -> tuple[int, int, int]:
    """First source pixel, length in the result, and mirrored pixels before it, along one axis."""
    first, last = max(start, 0), min(start + side, extent)
    length = min(max(round((last - first) * size / side), 1), size)
    before = min(round((first - start) * size / side), size - length)
    return first, length, before


def mask_box(mask: NDArray[np.integer] | NDArray[np.bool_]) -> Box | None:
    """The tight box around the non-zero pixels of `mask` (H, W), or None when there are none."""
    x, y, width, height = cv2.boundingRect((mask != 0).astype(np.uint8))
    return (x, y, x + width, y + height) if width and height else None
