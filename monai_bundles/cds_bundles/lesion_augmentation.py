"""Training crops: as in use, but varied in box, kernel, sharpness, compression, light and turn."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cds_bundles.lesion_crops import Box, Rgb, cut_square, square_around

CONTEXT_RANGE = (1.1, 2.0)
"""Side of the crop over the box's longer side."""

SHIFT_RANGE = 0.12
"""Largest move of the box's centre, as a share of its longer side."""

JPEG_QUALITY = (35, 96)
SHRINK_KERNELS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def training_crop(rgb: Rgb, bbox: Box, size: int, rng: Generator) -> Rgb:
    """One random view of the lesion in `bbox` of `rgb` (H, W, 3), as (size, size, 3) uint8 sRGB."""
    height, width = rgb.shape[:2]
    square = square_around(shifted(bbox, width, height, rng), width, height, rng.uniform(*CONTEXT_RANGE))
    crop = cut_square(rgb, square, size)
    if rng.random() < 0.5:
        crop = blurred_by_resizing(crop, rng)
    if rng.random() < 0.4:
        crop = recompressed(crop, rng)
    return turned(recoloured(crop, rng), rng)


def shifted(bbox: Box, width: int, height: int, rng: Generator) -> Box:
    """`bbox` moved by up to SHIFT_RANGE of its longer side, its centre kept inside the frame."""
    x0, y0, x1, y1 = bbox
    reach = SHIFT_RANGE * max(x1 - x0, y1 - y0)
    dx, dy = (round(float(move)) for move in rng.uniform(-reach, reach, 2))
    return (x0 + dx, y0 + dy, x1 + dx, y1 + dy)


def blurred_by_resizing(crop: Rgb, rng: Generator) -> Rgb:
    """`crop` shrunk to 40-100 % by a random kernel and enlarged again."""
    size = crop.shape[0]
    smaller = max(8, round(size * rng.uniform(0.4, 1.0)))
    shrunk = cv2.resize(crop, (smaller, smaller), interpolation=int(rng.choice(SHRINK_KERNELS)))
    enlarged = cv2.resize(shrunk, (size, size), interpolation=int(rng.choice(SHRINK_KERNELS[1:3])))
    return enlarged.astype(np.uint8, copy=False)


def recompressed(crop: Rgb, rng: Generator) -> Rgb:
    """`crop` after JPEG compression of a random quality."""
    quality = int(rng.integers(*JPEG_QUALITY))
    _, encoded = cv2.imencode(".jpg", crop[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    if decoded is None:
        raise RuntimeError("a picture that was just encoded as JPEG can't be decoded")
    return decoded.astype(np.uint8, copy=False)


def recoloured(crop: Rgb, rng: Generator) -> Rgb:
    """`crop` under another light: channel gains, saturation, contrast and brightness varied mildly."""
    picture = crop.astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + (picture - grey) * np.float32(rng.uniform(0.8, 1.2))
    level = np.float32(picture.mean())
    picture = level + (picture - level) * np.float32(rng.uniform(0.8, 1.25))
    gains = np.exp(rng.normal(0.0, 0.04, 3)) * rng.uniform(0.85, 1.15)
    picture = picture * gains.astype(np.float32)
    clipped: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return clipped


def turned(crop: Rgb, rng: Generator) -> Rgb:
    """`crop` in one of its eight orientations."""
    rotated = np.rot90(crop, int(rng.integers(4)))
    return np.ascontiguousarray(rotated[:, ::-1] if rng.random() < 0.5 else rotated)
