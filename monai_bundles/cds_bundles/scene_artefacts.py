"""What a dermatoscope adds to skin: hair, rulers, ink, gel, dark corners, vignettes, light and camera.

Every function takes a random generator and an sRGB uint8 picture (H, W, 3) and returns a new picture of that
shape; sizes are in pixels of a frame about 320 wide.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Random = np.random.Generator


def add_hair(rng: Random, rgb: Rgb) -> Rgb:
    """A few to many curved hairs, dark or fair, partly see-through."""
    height, width = rgb.shape[:2]
    layer = rgb.copy()
    fair = rng.random() < 0.2
    for _ in range(int(rng.integers(2, 12) if rng.random() < 0.6 else rng.integers(12, 45))):
        base = rng.uniform(150, 225) if fair else rng.uniform(10, 80)
        colour = np.clip(base * np.array([1.0, 0.85, 0.7]) + rng.normal(0, 6, 3), 0, 255)
        curve = _curve(rng, width, height, reach=rng.uniform(0.15, 1.0))
        cv2.polylines(layer, [curve], False, colour.tolist(), int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    weight = float(rng.uniform(0.5, 1.0))
    return cv2.addWeighted(layer, weight, rgb, 1.0 - weight, 0.0).astype(np.uint8)


def _curve(rng: Random, width: int, height: int, reach: float) -> NDArray[np.int32]:
    start = rng.uniform((0, 0), (width, height))
    angle = rng.uniform(0, 2 * np.pi)
    end = start + reach * width * np.array([np.cos(angle), np.sin(angle)])
    bend = (start + end) / 2 + rng.normal(0, 0.15 * reach * width, 2)
    t = np.linspace(0, 1, 20)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    return np.round(points * 16).astype(np.int32)


def add_ruler(rng: Random, rgb: Rgb) -> Rgb:
    """A straight scale with ticks, every fifth longer, near a side of the frame or across it."""
    height, width = rgb.shape[:2]
    layer = rgb.copy()
    colour = (rng.uniform(0, 60, 3) if rng.random() < 0.8 else rng.uniform(200, 255, 3)).tolist()
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.25) * (rng.random() < 0.6)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    if rng.random() < 0.5:
        across = -across
    side = rng.choice([rng.uniform(0.03, 0.2), rng.uniform(0.8, 0.97)])
    vertical = abs(along[1]) > abs(along[0])
    start = np.array(
        [side * width, rng.uniform(0, 0.3) * height]
        if vertical
        else [rng.uniform(0, 0.3) * width, side * height]
    )
    step, ticks = rng.uniform(3.0, 16.0), int(rng.integers(8, 60))
    if rng.random() < 0.8:
        _line(layer, start, start + along * step * ticks, colour)
    for tick in range(ticks):
        at = start + along * step * tick
        _line(layer, at, at + across * (10.0 if tick % 5 == 0 else 6.0), colour)
    return layer


def _line(rgb: Rgb, start: NDArray[np.float64], end: NDArray[np.float64], colour: list[float]) -> None:
    a, b = (tuple(round(float(v) * 16) for v in point) for point in (start, end))
    cv2.line(rgb, a, b, colour, 1, cv2.LINE_AA, 4)


def add_ink(rng: Random, rgb: Rgb) -> Rgb:
    """Violet, blue or green marker: a dotted patch or a broad stroke."""
    height, width = rgb.shape[:2]
    layer = rgb.copy()
    colour = ((90, 60, 140), (50, 60, 150), (40, 110, 100), (60, 40, 90))[int(rng.integers(4))]
    if rng.random() < 0.5:
        centre = rng.uniform((0, 0), (width, height))
        for point in rng.normal(centre, rng.uniform(4, 18, 2), (int(rng.integers(30, 220)), 2)):
            cv2.circle(layer, tuple(int(v) for v in point), int(rng.integers(0, 2)), colour, -1, cv2.LINE_AA)
    else:
        curve = _curve(rng, width, height, reach=rng.uniform(0.1, 0.5))
        cv2.polylines(layer, [curve], False, colour, int(rng.integers(2, 9)), cv2.LINE_AA, 4)
    weight = float(rng.uniform(0.35, 0.9))
    return cv2.addWeighted(layer, weight, rgb, 1.0 - weight, 0.0).astype(np.uint8)


def add_bubbles(rng: Random, rgb: Rgb) -> Rgb:
    """Gel bubbles: bright rims, a slightly lifted inside, a highlight."""
    height, width = rgb.shape[:2]
    light = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 12))):
        centre = tuple(int(v) for v in rng.uniform((0, 0), (width, height)))
        radius = int(rng.uniform(2, 26) if rng.random() < 0.25 else rng.uniform(1, 7))
        axes = (radius, max(1, int(radius * rng.uniform(0.5, 1.0))))
        angle = rng.uniform(0, 180)
        cv2.ellipse(light, centre, axes, angle, 0, 360, rng.uniform(0.02, 0.15), -1, cv2.LINE_AA)
        first = rng.uniform(0, 360)
        cv2.ellipse(
            light,
            centre,
            axes,
            angle,
            first,
            first + rng.uniform(90, 360),
            rng.uniform(0.3, 0.9),
            1,
            cv2.LINE_AA,
        )
    return _to_uint8(rgb + (255.0 - rgb) * light[..., None])


def add_vignette(rng: Random, rgb: Rgb) -> Rgb:
    """Light that falls off smoothly from a centre, or leans to one side."""
    height, width = rgb.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    cx, cy = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.65)
    squared = ((xs - cx) ** 2 + (ys - cy) ** 2) / (0.25 * (width**2 + height**2))
    fall = 1.0 - rng.uniform(0.1, 0.55) * squared ** rng.uniform(0.8, 2.0)
    lean = 1.0 + rng.normal(0, 0.12) * (xs / width - 0.5) + rng.normal(0, 0.12) * (ys / height - 0.5)
    return _to_uint8(rgb * np.clip(fall * lean, 0.1, 1.3)[..., None])


def dark_corners(rng: Random, height: int, width: int) -> NDArray[np.float32]:
    """(H, W) in 0..1: what a round aperture leaves visible."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    cx, cy = width * rng.uniform(0.45, 0.55), height * rng.uniform(0.45, 0.55)
    radius = rng.uniform(0.40, 0.60) * np.hypot(width, height) * rng.choice([1.0, 0.92])
    distance = np.hypot(xs - cx, ys - cy)
    visible = np.clip((radius - distance) / rng.uniform(1.0, 14.0) + 0.5, 0.0, 1.0)
    return np.asarray(visible, dtype=np.float32)


def behind_aperture(rng: Random, rgb: Rgb, visible: NDArray[np.float32]) -> Rgb:
    """`rgb` with everything that is not `visible` gone nearly black."""
    return _to_uint8(rgb * visible[..., None] + (1.0 - visible[..., None]) * rng.uniform(0, 30))


def change_light(rng: Random, rgb: Rgb) -> Rgb:
    """Another white balance, exposure, gamma, contrast and saturation."""
    values = (rgb.astype(np.float32) / 255.0) ** np.float32(np.exp(rng.normal(0, 0.18)))
    values *= np.exp(rng.normal(0, 0.06, 3) + rng.normal(0, 0.12)).astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * np.float32(rng.uniform(0.6, 1.4))
    mean = values.mean()
    return _to_uint8(255.0 * (mean + (values - mean) * np.float32(rng.uniform(0.75, 1.25))))


def through_camera(rng: Random, rgb: Rgb) -> Rgb:
    """Blur or sharpening, sensor noise and JPEG of quality 40 to 98, each sometimes."""
    if rng.random() < 0.3:
        blurred = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.4, 1.6)))
        amount = 1.0 if rng.random() < 0.7 else -float(rng.uniform(0.2, 0.8))
        rgb = cv2.addWeighted(blurred, amount, rgb, 1.0 - amount, 0.0).astype(np.uint8)
    if rng.random() < 0.3:
        rgb = _to_uint8(rgb + rng.normal(0, rng.uniform(1, 9), rgb.shape).astype(np.float32))
    if rng.random() < 0.5:
        done, data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 99))])
        rgb = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR) if done else rgb, dtype=np.uint8)
    return rgb


def _to_uint8(values: NDArray[Any]) -> Rgb:
    return np.asarray(np.clip(values + 0.5, 0, 255), dtype=np.uint8)
