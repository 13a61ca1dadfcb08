"""Drawn skin and drawn lesions: every skin tone and any outline, for a network to meet them too."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .scene_artefacts import Mask, Random, Rgb

FITZPATRICK_TONES = (
    (246, 218, 202),
    (236, 196, 172),
    (218, 170, 136),
    (186, 132, 96),
    (134, 88, 60),
    (84, 56, 42),
)
"""Typical sRGB of skin types I to VI under a dermatoscope."""


def smooth_noise(rng: Random, height: int, width: int, cell: float) -> NDArray[np.float32]:
    """(H, W) zero-mean noise of about unit spread whose grains are `cell` pixels wide."""
    rows, columns = max(2, round(height / cell) + 1), max(2, round(width / cell) + 1)
    coarse = rng.normal(0, 1, (rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def draw_skin(rng: Random, height: int, width: int, skin_type: int | None = None) -> Rgb:
    """Skin (H, W, 3) without a lesion: a tone between two types, gradients, mottling, grain and creases.

    The first of the two is `skin_type`, 1 to 6, or one by lot.
    """
    first = int(rng.integers(len(FITZPATRICK_TONES))) if skin_type is None else skin_type - 1
    second = min(first + 1, len(FITZPATRICK_TONES) - 1)
    mix = rng.random()
    tone = (1 - mix) * np.array(FITZPATRICK_TONES[first]) + mix * np.array(FITZPATRICK_TONES[second])
    tone = tone * np.exp(rng.normal(0, 0.05, 3))
    shade = np.zeros((height, width), np.float32)
    for cell, spread in ((150.0, 0.06), (40.0, 0.03), (12.0, 0.02), (3.0, 0.015)):
        shade += smooth_noise(rng, height, width, cell) * np.float32(rng.uniform(0, spread))
    redness = smooth_noise(rng, height, width, 30.0) * np.float32(rng.uniform(0, 0.03))
    skin = tone * np.exp(shade)[..., None] * np.exp(redness[..., None] * np.array([0.5, -1.0, -1.0]))
    if rng.random() < 0.4:
        creases = _lines(rng, height, width, rng.uniform(5, 18))
        skin = skin * (1.0 - creases * rng.uniform(0.02, 0.10))[..., None]
    grain = rng.normal(0, rng.uniform(0, 5), (height, width, 1))
    skin = skin + grain + rng.normal(0, rng.uniform(0, 2), skin.shape)
    return np.asarray(np.clip(skin, 0, 255), dtype=np.uint8)


def _lines(rng: Random, height: int, width: int, spacing: float) -> NDArray[np.float32]:
    """(H, W) in 0..1: a wavering net of two families of lines, as in skin creases and pigment network."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    net = np.zeros((height, width), np.float32)
    turn = rng.uniform(0, np.pi)
    for angle in (turn, turn + rng.uniform(0.9, 2.0)):
        phase = (np.cos(angle) * xs + np.sin(angle) * ys) / spacing
        phase = phase + smooth_noise(rng, height, width, spacing * 3) * 0.35
        net = np.maximum(net, np.abs(np.cos(np.pi * phase)) ** 6)
    return net.astype(np.float32)


def outline(rng: Random, height: int, width: int, centre: tuple[float, float], diameter: float) -> Mask:
    """(H, W) mask of an irregular ellipse of about `diameter` pixels round `centre` (x, y)."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = np.ones_like(angles)
    roughness = rng.uniform(0.02, 0.16)
    for harmonic in range(2, 9):
        wave = rng.normal(0, roughness / harmonic**0.6)
        radius += wave * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.35, 1.8) * diameter / 2
    stretch, turn = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    x, y = radius * np.cos(angles), stretch * radius * np.sin(angles)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round((points + centre) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask.astype(bool)


def draw_lesion(rng: Random, skin: Rgb, mask: Mask) -> Rgb:
    """`skin` with pigment inside `mask`: mottled, one or two colours, network, globules, a soft border."""
    height, width = mask.shape
    diameter = float(np.sqrt(mask.sum() * 4 / np.pi)) + 1.0
    pigment = _pigment(rng)
    mottling = smooth_noise(rng, height, width, diameter / 4) * rng.uniform(0, 0.3)
    absorb = pigment * np.exp(mottling)[..., None]
    if rng.random() < 0.5:
        part = np.clip(smooth_noise(rng, height, width, diameter / 2), 0, 1)[..., None]
        absorb = absorb * (1 - part) + _pigment(rng) * part
    if rng.random() < 0.5:
        net = _lines(rng, height, width, max(3.0, diameter * rng.uniform(0.05, 0.12)))
        absorb = absorb * (1.0 + rng.uniform(0.2, 1.2) * net[..., None])
    if rng.random() < 0.4:
        absorb = absorb * (1.0 + rng.uniform(0.3, 1.5) * _globules(rng, mask, diameter)[..., None])
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(rng.uniform(0.5, 0.05 * diameter + 0.8)))
    painted = skin * np.exp(-absorb * soft[..., None])
    return np.asarray(np.clip(painted, 0, 255), dtype=np.uint8)


def _pigment(rng: Random) -> NDArray[np.float64]:
    """Optical density of (R, G, B): brown mostly, now and then red, blue-grey or nearly black."""
    kind = rng.random()
    if kind < 0.65:
        return np.array([0.45, 0.85, 1.05]) * rng.uniform(0.4, 1.5)
    if kind < 0.8:
        return np.array([0.15, 0.75, 0.65]) * rng.uniform(0.5, 1.3)
    if kind < 0.9:
        return np.array([0.95, 0.75, 0.55]) * rng.uniform(0.4, 1.2)
    return np.array([1.3, 1.5, 1.6]) * rng.uniform(0.7, 1.4)


def _globules(rng: Random, mask: Mask, diameter: float) -> NDArray[np.float32]:
    dots = np.zeros(mask.shape, np.float32)
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return dots
    for index in rng.integers(0, rows.size, int(rng.integers(5, 50))):
        size = max(1, int(diameter * rng.uniform(0.01, 0.04)))
        cv2.circle(dots, (int(columns[index]), int(rows[index])), size, 1.0, -1, cv2.LINE_AA)
    return dots
