"""A lesion's outline and size, measured on its mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_plugin.study import Lesion

Points = NDArray[np.float64]
"""(N, 2) of (column, row)."""

MAX_OUTLINE_POINTS = 1000
# GraphicData is FL: an explicit VR element of that kind holds 65534 bytes, 8191 points (PS3.5 7.1.2).


@dataclass(frozen=True, slots=True)
class Size:
    """Area and lengths of a lesion, in mm2 and mm when `calibrated`, else in pixels.

    `diameter` is that of the circle of equal area. `long_axis` is the greatest distance across the
    largest part, `short_axis` its extent perpendicular to that; both reach to the outer pixel edges.
    """

    area: float
    diameter: float
    long_axis: float
    short_axis: float
    calibrated: bool


def measure(lesion: Lesion, spacing_mm: tuple[float, float] | None) -> Size:
    """Measure a lesion; `spacing_mm` is (between rows, between columns) or None for pixels."""
    row_spacing, column_spacing = spacing_mm or (1.0, 1.0)
    area = lesion.area_px * row_spacing * column_spacing
    long_axis, short_axis = _axes(_hull(lesion) * (column_spacing, row_spacing))
    return Size(
        area=area,
        diameter=2.0 * math.sqrt(area / math.pi),
        long_axis=long_axis,
        short_axis=short_axis,
        calibrated=spacing_mm is not None,
    )


def area_change(lesion: Lesion, spacing_mm: tuple[float, float] | None) -> float | None:
    """Return by how many mm2 the lesion is larger than its prior; None where either is not known in mm2."""
    if lesion.prior is None or lesion.prior.area_mm2 is None or spacing_mm is None:
        return None
    return measure(lesion, spacing_mm).area - lesion.prior.area_mm2


def outline(lesion: Lesion) -> Points:
    """Return the closed outer ring of the largest part, as SCOORD wants it.

    The origin is the outer corner of the first pixel, so the middle of a pixel lies at +0.5
    (PS3.3 C.18.6.1.2). A part too thin to enclose anything gives the rectangle around its pixels.
    """
    ring = _largest_ring(lesion)
    if len(ring) < 3:
        return _closed(_rectangle(ring) + _origin(lesion))
    return _closed(_simplified(ring) + 0.5 + _origin(lesion))


def all_rings(lesion: Lesion) -> list[Points]:
    """Return every ring of the mask, holes too, in the coordinates of `outline`, not closed."""
    return [ring + 0.5 + _origin(lesion) for ring in _rings(lesion, cv2.RETR_CCOMP)]


def _largest_ring(lesion: Lesion) -> NDArray[np.int32]:
    """Return (N, 2) pixel indices within the bounding box."""
    rings = _rings(lesion, cv2.RETR_EXTERNAL)
    return max(rings, key=lambda ring: (cv2.contourArea(ring), len(ring)))


def _rings(lesion: Lesion, mode: int) -> list[NDArray[np.int32]]:
    mask = np.ascontiguousarray(lesion.mask).view(np.uint8)
    rings, _ = cv2.findContours(mask, mode, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(ring[:, 0], dtype=np.int32) for ring in rings]


def _origin(lesion: Lesion) -> Points:
    return np.array([lesion.bbox.x0, lesion.bbox.y0], dtype=np.float64)


def _rectangle(ring: NDArray[np.int32]) -> Points:
    (x0, y0), (x1, y1) = ring.min(axis=0), ring.max(axis=0) + 1
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def _simplified(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    tolerance, simpler = 0.5, ring
    while len(simpler) > MAX_OUTLINE_POINTS:
        simpler = np.asarray(cv2.approxPolyDP(ring, tolerance, True)[:, 0], dtype=np.int32)
        tolerance *= 2
    return simpler if len(simpler) >= 3 else ring[:: len(ring) // 3]


def _closed(points: Points) -> Points:
    return np.vstack([points, points[:1]])


def _hull(lesion: Lesion) -> Points:
    """Return the convex hull of the largest part's pixel corners."""
    ring = _largest_ring(lesion)
    corners = np.vstack([ring + offset for offset in ((0, 0), (1, 0), (0, 1), (1, 1))])
    return np.asarray(cv2.convexHull(corners)[:, 0], dtype=np.float64)


def _axes(hull: Points) -> tuple[float, float]:
    between = hull[:, None] - hull[None]
    distances = np.hypot(between[..., 0], between[..., 1])
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    along = (hull[second] - hull[first]) / distances[first, second]
    across = hull @ np.array([-along[1], along[0]])
    return float(distances[first, second]), float(across.max() - across.min())
