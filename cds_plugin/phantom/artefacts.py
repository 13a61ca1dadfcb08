"""What lies between skin and sensor: hair, gel, ruler, light, aperture, camera."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_plugin.phantom.fields import Field, Random, fractal, single
from cds_plugin.phantom.skin import Colours
from cds_plugin.study import Mask, Rgb

CLEAR_OF_APERTURE = 0.04
"""Of half the diagonal, between a lesion and the dark."""
FINE = 2
"""Hair is drawn this much larger, then reduced."""


def add_hair(rng: Random, picture: Colours, number: int) -> Colours:
    """Return the picture under `number` hairs, tapering, with a shine and a shadow."""
    height, width = picture.shape[:2]
    body = np.zeros((height * FINE, width * FINE), np.uint8)
    shine = np.zeros_like(body)
    coarse = rng.uniform(0.8, 1.6) * width / 1200
    lie = rng.uniform(0, 2 * np.pi)
    for _ in range(number):
        curve = _curve(rng, height, width, lie + rng.normal(0, 0.6)) * FINE
        _taper(body, curve, coarse * rng.uniform(2.2, 4.2) * FINE / 2)
        _taper(shine, curve - FINE * coarse * 0.5, coarse * 0.9 * FINE / 2)
    cover = _reduced(body, width, height)
    glint = _reduced(shine, width, height) * 0.28
    shadow = cv2.GaussianBlur(np.roll(cover, (2, 2), (0, 1)), (0, 0), 2.5)
    tone = np.array([46, 34, 28], np.float32) * rng.uniform(0.6, 2.4)
    shaded = picture * (1 - 0.22 * shadow)[..., None]
    haired = shaded * (1 - 0.92 * cover)[..., None] + tone * (0.92 * cover)[..., None]
    return single(haired + (210 - haired) * (glint * cover)[..., None])


def _reduced(layer: NDArray[np.uint8], width: int, height: int) -> Field:
    small = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def _curve(rng: Random, height: int, width: int, angle: float) -> NDArray[np.float64]:
    """Return (40, 2) points (x, y) of a bent hair."""
    length = width * rng.uniform(0.12, 0.75)
    point = rng.uniform((-0.05 * width, -0.05 * height), (1.05 * width, 1.05 * height))
    bend, points = rng.normal(0, 0.022), []
    for _ in range(40):
        points.append(point)
        angle += bend + rng.normal(0, 0.012)
        point = point + length / 40 * np.array([np.cos(angle), np.sin(angle)])
    return np.array(points)


def _taper(layer: NDArray[np.uint8], curve: NDArray[np.float64], thickness: float) -> None:
    last = len(curve) - 1
    for index in range(last):
        pair = np.round(curve[index : index + 2] * 16).astype(np.int32)
        size = max(1, round(thickness * (1 - 0.75 * index / last)))
        cv2.polylines(layer, [pair], False, 255, size, cv2.LINE_AA, 4)


def add_gel(rng: Random, picture: Colours, number: int) -> Colours:
    """Return the picture under `number` bubbles: a faint lens, a darker rim, highlights."""
    height, width = picture.shape[:2]
    change = np.zeros((height, width), np.float32)
    for _ in range(number):
        centre = tuple(int(v) for v in rng.uniform((0, 0), (width, height)))
        radius = int(width * rng.uniform(0.002, 0.011))
        axes, turn = (radius, max(1, int(radius * rng.uniform(0.65, 1)))), float(rng.uniform(0, 180))
        cv2.ellipse(change, centre, axes, turn, 0, 360, 0.06, -1, cv2.LINE_AA)
        cv2.ellipse(change, centre, axes, turn, 0, 360, -0.18, 1, cv2.LINE_AA)
        cv2.ellipse(change, centre, axes, turn, 200, float(rng.uniform(250, 320)), 0.85, 2, cv2.LINE_AA)
    soft = single(cv2.GaussianBlur(change, (0, 0), 0.8))[..., None]
    return single(np.where(soft > 0, picture + (250 - picture) * soft, picture * (1 + soft)))


def add_ruler(rng: Random, picture: Colours, pixels_per_mm: float) -> Colours:
    """Return the picture with a millimetre scale along its lower or left side."""
    height, width = picture.shape[:2]
    ink = np.zeros((height, width), np.float32)
    upright = rng.random() < 0.4
    start = rng.uniform(0.03, 0.06) * width
    base = rng.uniform(0.02, 0.05) * width if upright else height * rng.uniform(0.95, 0.98)
    length = (height if upright else width) - 2 * start
    for tick in range(int(length / pixels_per_mm) + 1):
        long = pixels_per_mm * (1.6 if tick % 10 == 0 else 1.15 if tick % 5 == 0 else 0.7)
        at = start + tick * pixels_per_mm
        ends = ((base, at), (base + long, at)) if upright else ((at, base), (at, base - long))
        points = np.round(np.array(ends) * 16).astype(np.int32)
        cv2.polylines(ink, [points], False, 1.0, max(1, round(width / 600)), cv2.LINE_AA, 4)
    soft = single(cv2.GaussianBlur(ink, (0, 0), 0.9))[..., None]
    return single(picture * (1 - 0.85 * soft) + 22 * 0.85 * soft)


def add_light(rng: Random, picture: Colours, lesions: Mask, aperture: bool) -> Colours:
    """Return the picture under a lamp brightest near the middle; an aperture never cuts `lesions`."""
    height, width = picture.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    centre_x, centre_y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.58)
    away = np.hypot(xs - centre_x, ys - centre_y) / np.hypot(width / 2, height / 2)
    light = rng.uniform(0.94, 1.02) * (1 - rng.uniform(0.05, 0.24) * away**2)
    light = light * (1 + 0.015 * fractal(rng, height, width, width / 3, 1))
    if aperture:
        edge = max(rng.uniform(0.84, 0.96), float(away[lesions].max(initial=0)) + CLEAR_OF_APERTURE)
        light = light * np.clip((edge - away) * 28 + 0.5, 0.03, 1)
    return single(picture * light[..., None])


def through_camera(rng: Random, picture: Colours) -> Rgb:
    """Return what the camera stores: a lens, a white balance, sensor noise, 8 bits."""
    tint = np.exp(rng.normal(0, 0.025, 3)).astype(np.float32)
    sharp = cv2.GaussianBlur((picture * tint).astype(np.float32), (0, 0), float(rng.uniform(0.55, 0.8)))
    noise = rng.normal(0, 1, picture.shape).astype(np.float32) * np.float32(rng.uniform(1.0, 2.0))
    return np.clip(sharp + noise + 0.5, 0, 255).astype(np.uint8)
