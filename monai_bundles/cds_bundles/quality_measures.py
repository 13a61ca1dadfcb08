"""What can be measured of a photograph without knowing what it shows: sharpness, light, colour. No torch.

Most is measured on the central part of the picture, its shorter side shrunk to `SCALE` pixels (or as it is if
smaller), and inside the field of view: dark corners of a dermoscope do not count.
Luma is Rec. 709 luma of the sRGB values, 0 to 1; colours are CIELAB (D65).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_bundles.resize import resize_rgb

SCALE = 256
"""Pixels of the shorter side on which pictures are measured."""

LONGEST_ASPECT = 2
"""Longer over shorter side of what is looked at; what lies beyond, at both ends, is not."""

NATIVE_SIDE = 1024
"""Largest side, in pixels, of the central part that is looked at without shrinking."""

VIGNETTE_LUMA = 0.15
"""Darker regions that reach a corner of the picture are the dermoscope's rim."""

SMALLEST_FIELD = 0.2
"""Below this share of the frame the dark region is not a rim: the whole picture is the field of view."""

FINE_PX, COARSE_PX = 2, 8
"""Reach of the two second differences that sharpness compares."""

HAIR_PX = 9
"""Dark structures thinner than this are taken for hair."""

BLACK_LIGHTNESS = 30.0
"""Below this CIELAB lightness the hue says nothing."""

DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))

Gray = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """One picture as it is measured; arrays of (H, W, 3) or (H, W)."""

    rgb: Gray
    luma: Gray
    lab: Gray
    field: Mask


def measure(rgb: NDArray[np.uint8]) -> dict[str, float]:
    """Every measure of `rgb`, uint8 (H, W, 3) sRGB of any size, by the names that the limits use.

    Shares of the field of view in 0 to 1 (`*_share`), luma in 0 to 1 (`luma_mean`, `luma_high`, `contrast`,
    `noise`), CIELAB units (`chroma`, `redness`, `yellowness`), ratios (`sharpness`, `native_sharpness`), and
    `short_side_px`. Raises `ValueError` for another shape or an empty picture.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ValueError(f"expected a picture of shape (H, W, 3), got {rgb.shape}")
    view = _look(shrink(rgb))
    return {
        "short_side_px": float(min(rgb.shape[:2])),
        "field_share": float(view.field.mean()),
        "sharpness": sharpness(view.luma, view.field),
        "native_sharpness": native_sharpness(rgb),
        "noise": noise(view.luma, view.field),
        **_light(view),
        **_colour(view),
        "edge_share": edge_share(view.luma, view.field),
    }


def central(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The central part of `rgb` (H, W, 3) whose longer side is at most `LONGEST_ASPECT` times the shorter."""
    rows, columns = rgb.shape[:2]
    limit = LONGEST_ASPECT * min(rows, columns)
    top, left = max(0, rows - limit) // 2, max(0, columns - limit) // 2
    return rgb[top : top + limit, left : left + limit]


def shrink(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The central part of `rgb` (H, W, 3), its shorter side `SCALE` pixels or what it has if that is less."""
    part = central(rgb)
    scale = min(1.0, SCALE / min(part.shape[:2]))
    return resize_rgb(part, max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))


def luma_of(rgb: NDArray[np.uint8]) -> Gray:
    """Rec. 709 luma, 0 to 1, of `rgb` (H, W, 3) uint8 sRGB."""
    weights = np.array((0.2126, 0.7152, 0.0722), np.float32) / np.float32(255.0)
    return np.asarray(rgb.astype(np.float32) @ weights, np.float32)


def field_of_view(luma: Gray) -> Mask:
    """True where the picture is not the dermoscope's rim (dark, reaching a corner), with a margin of 8 px."""
    dark = (luma < VIGNETTE_LUMA).astype(np.uint8)
    _, regions = cv2.connectedComponents(dark)
    corners = {int(regions[row, column]) for row in (0, -1) for column in (0, -1)} - {0}
    rim = np.isin(regions, tuple(corners)).astype(np.uint8)
    margin = np.ones((2 * COARSE_PX + 1, 2 * COARSE_PX + 1), np.uint8)
    field = np.asarray(cv2.dilate(rim, margin) == 0)
    return field if field.mean() > SMALLEST_FIELD else np.ones_like(field)


def sharpness(luma: Gray, field: Mask) -> float:
    """Fine over coarse structure in the most blurred of four directions: 0.06 (smooth) to 1 (white noise).

    The ratio of the root mean square second differences at `FINE_PX` and `COARSE_PX`. It does not depend on
    contrast or skin tone, and motion blur lowers it in its own direction. A small constant keeps bare
    surfaces from dividing noise by noise.
    """
    return min(
        _bend(luma, field, FINE_PX, towards) / (_bend(luma, field, COARSE_PX, towards) + 1e-3)
        for towards in DIRECTIONS
    )


def _bend(luma: Gray, field: Mask, reach: int, towards: tuple[int, int]) -> float:
    """Root mean square second difference of `luma` over `reach` pixels `towards` (x, y)."""
    dx, dy = reach * towards[0], reach * towards[1]
    kernel = np.zeros((2 * abs(dy) + 1, 2 * abs(dx) + 1), np.float32)
    row, column = abs(dy), abs(dx)
    kernel[row, column] = -2.0
    kernel[row + dy, column + dx] += 1.0
    kernel[row - dy, column - dx] += 1.0
    second = cv2.filter2D(luma, cv2.CV_32F, kernel)[field]
    return float(np.sqrt(np.mean(np.square(second))))


def native_sharpness(rgb: NDArray[np.uint8]) -> float:
    """Sharpness of the unshrunk centre (`NATIVE_SIDE` pixels at most): low where a picture was enlarged."""
    rows, columns = rgb.shape[:2]
    top, left = max(0, rows - NATIVE_SIDE) // 2, max(0, columns - NATIVE_SIDE) // 2
    luma = luma_of(rgb[top : top + NATIVE_SIDE, left : left + NATIVE_SIDE])
    return sharpness(luma, field_of_view(luma))


def noise(luma: Gray, field: Mask) -> float:
    """Standard deviation of fine noise in luma (Immerkaer, Comput Vis Image Underst 64:300, 1996)."""
    laplacians = np.array(((1, -2, 1), (-2, 4, -2), (1, -2, 1)), np.float32)
    residue = np.abs(cv2.filter2D(luma, cv2.CV_32F, laplacians)[field])
    return float(np.sqrt(np.pi / 2) / 6 * residue.mean())


def edge_share(luma: Gray, field: Mask) -> float:
    """Share of the field with a slope over 0.06 luma a pixel: hard edges, rare in skin.

    Hair is closed first (dark structures thinner than `HAIR_PX`), or shaggy skin would look like a thicket.
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (HAIR_PX, HAIR_PX))
    smooth = cv2.GaussianBlur(cv2.morphologyEx(luma, cv2.MORPH_CLOSE, disc), (0, 0), 1.0)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    return float(np.mean(slope[field] > 0.06))


def _look(rgb: NDArray[np.uint8]) -> _View:
    scaled = rgb.astype(np.float32) / np.float32(255.0)
    luma = luma_of(rgb)
    lab = np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB), np.float32)
    return _View(rgb=scaled, luma=luma, lab=lab, field=field_of_view(luma))


def _light(view: _View) -> dict[str, float]:
    """Exposure and contrast; `luma_high` is the 95th percentile, lower without light than with dark skin."""
    luma, rgb = view.luma[view.field], view.rgb[view.field]
    smooth = cv2.GaussianBlur(view.luma, (0, 0), 1.5)[view.field]
    chroma = np.hypot(view.lab[..., 1], view.lab[..., 2])[view.field]
    darkest, brightest = np.percentile(smooth, (1, 99))
    return {
        "luma_mean": float(luma.mean()),
        "luma_high": float(np.percentile(luma, 95)),
        "contrast": float(brightest - darkest),
        "dark_share": float(np.mean(luma < 0.04)),
        "clipped_share": float(np.mean(rgb.max(axis=1) > 0.995)),
        "burnt_share": float(np.mean(rgb.min(axis=1) > 0.96)),
        "glare_share": float(np.mean((luma > 0.9) & (chroma < 10))),
    }


def _colour(view: _View) -> dict[str, float]:
    """Colour cast, sameness, and how much has a hue that skin, blood or pigment can have."""
    lab = view.lab[view.field]
    distance = np.linalg.norm(lab - np.median(lab, axis=0), axis=1)
    return {
        "chroma": float(np.hypot(lab[:, 1], lab[:, 2]).mean()),
        "redness": float(lab[:, 1].mean()),
        "yellowness": float(lab[:, 2].mean()),
        "skin_share": _skin_share(lab),
        "uniform_share": float(np.mean(distance < 2.0)),
    }


def _skin_share(lab: Gray) -> float:
    """Share of the pixels of `lab` (N, 3) with a hue from purple-red to yellow; black ones are left out."""
    light = lab[lab[:, 0] >= BLACK_LIGHTNESS]
    seen = light if len(light) > 0.05 * len(lab) else lab
    hue = np.degrees(np.arctan2(seen[:, 2], seen[:, 1]))
    return float(np.mean((hue > -50) & (hue < 105) & (np.hypot(seen[:, 1], seen[:, 2]) > 3)))
