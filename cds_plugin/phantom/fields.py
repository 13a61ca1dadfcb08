"""Scalar fields (height, width) float32 that everything is drawn from: noise, nets of cells, soft steps."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Random = np.random.Generator
Field = NDArray[np.float32]
NetDrawer = Callable[[int, int], Field]


def single(values: ArrayLike) -> Field:
    """Return `values` in single precision."""
    return np.asarray(values, dtype=np.float32)


def grain(rng: Random, height: int, width: int, cell: float) -> Field:
    """Return smooth noise of about unit spread whose grains are `cell` pixels wide."""
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    coarse = rng.normal(0, 1, (rows, columns)).astype(np.float32)
    large = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.uniform(0, cell)) for _ in range(2))
    return single(large[top : top + height, left : left + width])


def fractal(rng: Random, height: int, width: int, cell: float, octaves: int = 4) -> Field:
    """Return noise of about unit spread with detail from `cell` pixels down, each octave half as strong."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        total += grain(rng, height, width, max(1.0, cell / 2**octave)) * np.float32(0.5**octave)
    return total / np.float32(1.15)


def soft_step(values: Field) -> Field:
    """Return 0 below -0.5, 1 above 0.5, and a smooth rise between."""
    t = np.clip(values + np.float32(0.5), 0, 1)
    return single(t * t * (3 - 2 * t))


def bend(field: Field, shift_x: Field, shift_y: Field) -> Field:
    """Return `field` with every pixel taken from (shift_x, shift_y) pixels away."""
    height, width = field.shape
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    moved = cv2.remap(field, xs + shift_x, ys + shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return single(moved)


def cell_net(rng: Random, height: int, width: int, cell: float, line: float) -> Field:
    """Return lines (1 on the line, falling to 0 within about `line` pixels) round cells of `cell` pixels."""
    seeds = np.full((height, width), 255, np.uint8)
    rows, columns = int(height / cell) + 2, int(width / cell) + 2
    ys, xs = np.mgrid[0:rows, 0:columns].astype(np.float32)
    ys = (ys + rng.uniform(-0.42, 0.42, ys.shape)) * cell
    xs = (xs + 0.5 * (np.arange(rows) % 2)[:, None] + rng.uniform(-0.42, 0.42, xs.shape)) * cell
    seeds[np.clip(ys, 0, height - 1).astype(int), np.clip(xs, 0, width - 1).astype(int)] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    border = np.zeros((height, width), bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    away = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 3)
    lines = np.exp(-((away / line) ** 2)).astype(np.float32)
    wave = cell * 0.18
    return bend(
        lines, grain(rng, height, width, cell * 1.5) * wave, grain(rng, height, width, cell * 1.5) * wave
    )


def along(field_size: tuple[int, int], angle: float, stretch: float, draw: NetDrawer) -> Field:
    """Return what `draw(height, width)` draws, stretched by `stretch` along `angle` (radians)."""
    height, width = field_size
    reach = int(np.hypot(height, width)) + 2
    flat = draw(reach, int(reach / stretch) + 2)
    turn = cv2.getRotationMatrix2D((reach / 2, reach / 2), float(np.degrees(angle)), 1.0)
    long = cv2.resize(flat, (reach, reach), interpolation=cv2.INTER_LINEAR)
    turned = cv2.warpAffine(long, turn, (reach, reach), borderMode=cv2.BORDER_REFLECT)
    top, left = (reach - height) // 2, (reach - width) // 2
    return single(turned[top : top + height, left : left + width])
