"""What is inside a lesion: optical density (height, width, 3) by the patterns that dermoscopy names."""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_plugin.phantom.fields import Field, Random, cell_net, fractal, single, soft_step
from cds_plugin.phantom.outline import Character, Outline

Density = NDArray[np.float32]

TAN = np.array([0.16, 0.44, 0.72], np.float32)
BROWN = np.array([0.42, 0.86, 1.12], np.float32)
BLACK = np.array([1.35, 1.55, 1.65], np.float32)
RED = np.array([0.10, 0.80, 0.62], np.float32)
PURPLE = np.array([0.42, 1.05, 0.62], np.float32)
BLUE_GREY = np.array([0.95, 0.80, 0.52], np.float32)


class Kind(StrEnum):
    """Lesions by their leading pattern."""

    RETICULAR = "reticular"
    GLOBULAR = "globular"
    MANY_COLOURED = "many_coloured"
    KERATOTIC = "keratotic"
    PINK = "pink"
    VASCULAR = "vascular"
    SCAR_LIKE = "scar_like"


CHARACTERS = {
    Kind.RETICULAR: Character(lobes=0.10, fray=0.08, softness=0.50),
    Kind.GLOBULAR: Character(lobes=0.07, fray=0.05, softness=0.40),
    Kind.MANY_COLOURED: Character(lobes=0.15, fray=0.11, softness=0.30),
    Kind.KERATOTIC: Character(lobes=0.11, fray=0.06, softness=0.16),
    Kind.PINK: Character(lobes=0.12, fray=0.08, softness=0.45),
    Kind.VASCULAR: Character(lobes=0.09, fray=0.05, softness=0.28),
    Kind.SCAR_LIKE: Character(lobes=0.06, fray=0.06, softness=0.60),
}


def draw_pigment(rng: Random, outline: Outline, kind: Kind) -> Density:
    """Return the optical density that a lesion of this kind adds to the skin below it."""
    match kind:
        case Kind.RETICULAR:
            density = _reticular(rng, outline)
        case Kind.GLOBULAR:
            density = _globular(rng, outline)
        case Kind.MANY_COLOURED:
            density = _many_coloured(rng, outline)
        case Kind.KERATOTIC:
            density = _keratotic(rng, outline)
        case Kind.PINK:
            density = _pink(rng, outline)
        case Kind.VASCULAR:
            density = _vascular(rng, outline)
        case Kind.SCAR_LIKE:
            density = _scar_like(rng, outline)
    spread = cv2.GaussianBlur(np.maximum(density, 0).astype(np.float32), (0, 0), 1.1)
    return np.asarray(spread * outline.cover[..., None], dtype=np.float32)


def _noise(rng: Random, outline: Outline, share: float, octaves: int = 4) -> Field:
    height, width = outline.radius.shape
    return fractal(rng, height, width, max(2.0, outline.diameter * share), octaves)


def _net(rng: Random, outline: Outline, cell: float, line: float) -> Field:
    height, width = outline.radius.shape
    return cell_net(rng, height, width, cell, line)


def _base(rng: Random, outline: Outline, colour: Density, amount: float, mottling: float) -> Density:
    level = amount * np.exp(
        mottling * _noise(rng, outline, 0.3) + 0.4 * mottling * _noise(rng, outline, 0.06)
    )
    return single(level[..., None] * colour)


def _centre(outline: Outline, reach: float) -> Field:
    return single(np.exp(-((outline.radius / reach) ** 2)))


def _spot(rng: Random, outline: Outline, share: float, threshold: float) -> Field:
    """Return blotches 0-1 of about `share` of the lesion's diameter."""
    return soft_step((_noise(rng, outline, share, 3) - np.float32(threshold)) * 0.6)


def _reticular(rng: Random, outline: Outline) -> Density:
    cell = float(np.clip(outline.diameter * 0.045, 9, 20)) * rng.uniform(0.85, 1.2)
    net = _net(rng, outline, cell, cell * 0.17) * np.clip(0.75 + 0.5 * _noise(rng, outline, 0.18), 0.1, 1.5)
    density = _base(rng, outline, TAN * 0.5 + BROWN * 0.5, rng.uniform(0.45, 0.8), 0.22)
    density += net[..., None] * BROWN * rng.uniform(0.8, 1.4)
    return density * (0.75 + rng.uniform(0.2, 0.9) * _centre(outline, rng.uniform(0.35, 0.7)))[..., None]


def _globular(rng: Random, outline: Outline) -> Density:
    density = _base(rng, outline, TAN * 0.4 + BROWN * 0.6, rng.uniform(0.5, 0.85), 0.2)
    dots = _dots(
        rng, outline, count=int(rng.integers(60, 160)), smallest=0.008, largest=0.022, rim=rng.random() < 0.5
    )
    density += dots[..., None] * BROWN * rng.uniform(0.6, 1.0)
    return density * (0.8 + 0.4 * _centre(outline, 0.6))[..., None]


def _many_coloured(rng: Random, outline: Outline) -> Density:
    density = _base(rng, outline, BROWN, rng.uniform(0.6, 0.95), 0.25)
    black = _spot(rng, outline, 0.35, rng.uniform(0.4, 0.9))[..., None]
    veil = _spot(rng, outline, 0.5, rng.uniform(0.7, 1.2))[..., None]
    red = _spot(rng, outline, 0.45, 0.9)[..., None]
    density = density * (1 - 0.6 * red) + red * RED * 0.7
    density = density * (1 - 0.85 * veil) + veil * BLUE_GREY * rng.uniform(0.65, 0.95)
    density = density + black * BLACK * rng.uniform(0.3, 0.65)
    cell = float(np.clip(outline.diameter * 0.05, 10, 24))
    net = _net(rng, outline, cell, cell * 0.18) * _spot(rng, outline, 0.4, 0.0)
    density += (net * 0.7 + _streaks(rng, outline) * 0.9)[..., None] * BROWN
    pale = _spot(rng, outline, 0.35, rng.uniform(0.9, 1.4))[..., None]
    return single(density * (1 - 0.65 * pale))


def _keratotic(rng: Random, outline: Outline) -> Density:
    colour = TAN * rng.uniform(0.3, 0.7) + BROWN * rng.uniform(0.3, 0.6)
    density = _base(rng, outline, colour, rng.uniform(0.7, 1.0), 0.3)
    cell = float(np.clip(outline.diameter * 0.06, 12, 30))
    ridges = _net(rng, outline, cell, cell * 0.2) * _spot(rng, outline, 0.25, 0.2)
    density += ridges[..., None] * BROWN * rng.uniform(0.15, 0.4)
    cysts = _dots(rng, outline, int(rng.integers(4, 22)), 0.006, 0.016, rim=False)
    openings = _dots(rng, outline, int(rng.integers(2, 14)), 0.010, 0.024, rim=False)
    return single(density * (1 - 0.8 * cysts)[..., None] + openings[..., None] * BROWN * 0.9)


def _pink(rng: Random, outline: Outline) -> Density:
    density = _base(rng, outline, RED * 0.8 + TAN * 0.2, rng.uniform(0.55, 0.85), 0.25)
    nests = _dots(rng, outline, int(rng.integers(3, 12)), 0.02, 0.06, rim=True)
    nests = single(cv2.GaussianBlur(nests, (0, 0), outline.diameter * 0.012))
    density += nests[..., None] * BLUE_GREY * rng.uniform(0.6, 0.9)
    return density + _vessels(rng, outline)[..., None] * RED * 1.1


def _vascular(rng: Random, outline: Outline) -> Density:
    density = _base(rng, outline, RED * 0.75 + PURPLE * 0.25, rng.uniform(0.7, 1.0), 0.2)
    cell = float(np.clip(outline.diameter * 0.13, 14, 60))
    lakes = 1 - _net(rng, outline, cell, cell * 0.25)
    filled = lakes * np.clip(0.8 + 0.4 * _noise(rng, outline, 0.2), 0, 1.4)
    return single(density * 0.75 + filled[..., None] * PURPLE * 0.8)


def _scar_like(rng: Random, outline: Outline) -> Density:
    cell = float(np.clip(outline.diameter * 0.04, 8, 16))
    net = _net(rng, outline, cell, cell * 0.3)
    density = _base(rng, outline, TAN * 0.6 + BROWN * 0.4, rng.uniform(0.7, 0.95), 0.15)
    density += net[..., None] * BROWN * 0.35 + _centre(outline, 0.8)[..., None] * RED * 0.2
    scar = _centre(outline, rng.uniform(0.3, 0.42)) * np.clip(0.8 + 0.3 * _noise(rng, outline, 0.08), 0, 1.2)
    return single(density * (1 - np.clip(scar, 0, 0.92))[..., None])


def _dots(rng: Random, outline: Outline, count: int, smallest: float, largest: float, rim: bool) -> Field:
    """Return `count` soft dots 0-1, their radii shares of the diameter; on the rim or anywhere inside."""
    where = outline.mask & (outline.radius > 0.62) if rim else outline.mask & (outline.radius < 0.92)
    rows, columns = np.nonzero(where)
    dots = np.zeros(outline.mask.shape, np.float32)
    if rows.size == 0:
        return dots
    for index in rng.integers(0, rows.size, count):
        size = max(1.2, outline.diameter * rng.uniform(smallest, largest))
        axes = (max(1, int(size * 16)), max(1, int(size * rng.uniform(0.7, 1.0) * 16)))
        centre = (int(columns[index]) * 16, int(rows[index]) * 16)
        strength = float(rng.uniform(0.5, 1.0))
        cv2.ellipse(dots, centre, axes, float(rng.uniform(0, 180)), 0, 360, strength, -1, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(dots, (0, 0), max(0.8, outline.diameter * 0.004)), dtype=np.float32)


def _streaks(rng: Random, outline: Outline) -> Field:
    """Return radial lines near the border, on part of the circumference."""
    number = int(rng.integers(26, 60))
    wobble = 0.35 * _noise(rng, outline, 0.15)
    rays = np.clip(np.cos(number * (outline.angle + 0.12 * wobble)) * 1.6 - 0.8, 0, 1)
    rim = np.exp(-(((outline.radius - 0.88) / 0.16) ** 2))
    part = soft_step(np.cos(outline.angle - np.float32(rng.uniform(0, 2 * np.pi))) * 1.5)
    return single(rays * rim * part)


def _vessels(rng: Random, outline: Outline) -> Field:
    """Return thin branching lines."""
    drawn = np.zeros(outline.mask.shape, np.float32)
    size, reach = outline.mask.shape[0], outline.diameter * 0.4
    for _ in range(int(rng.integers(3, 8))):
        start = np.array([size / 2, size / 2]) + rng.normal(0, reach * 0.6, 2)
        _branch(rng, drawn, start, float(rng.uniform(0, 2 * np.pi)), reach, 3)
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), 0.9), dtype=np.float32)


def _branch(
    rng: Random, drawn: Field, start: NDArray[np.float64], angle: float, length: float, depth: int
) -> None:
    points = [start]
    for _ in range(8):
        angle += float(rng.normal(0, 0.22))
        points.append(points[-1] + length / 8 * np.array([np.cos(angle), np.sin(angle)]))
    curve = np.round(np.array(points) * 16).astype(np.int32)
    cv2.polylines(drawn, [curve], False, 0.45 + 0.18 * depth, max(1, depth - 1), cv2.LINE_AA, 4)
    if depth > 1:
        for at in (4, 8):
            _branch(
                rng,
                drawn,
                points[at],
                angle + float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)),
                length * 0.6,
                depth - 1,
            )
