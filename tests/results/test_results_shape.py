"""Outlines and sizes of masks whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from result_cases import MELANOMA, ellipse, of_mask

from cds_plugin.results.shape import measure, outline
from cds_plugin.study import BoundingBox, Lesion


def rectangle(width: int, height: int) -> Lesion:
    """Return a full rectangle with its corner at (10, 20)."""
    box = BoundingBox(10, 20, 10 + width, 20 + height)
    return Lesion(1, box, np.ones((height, width), dtype=np.bool_), 0.9, MELANOMA)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (40, 30), (300, 2)])
def test_a_rectangle_measures_from_edge_to_edge(width: int, height: int) -> None:
    size = measure(rectangle(width, height), None)
    assert size.area == width * height
    assert size.long_axis == pytest.approx(math.hypot(width, height))
    assert size.short_axis == pytest.approx(2 * width * height / math.hypot(width, height))
    assert size.diameter == pytest.approx(2 * math.sqrt(width * height / math.pi))
    assert not size.calibrated


def test_spacing_scales_each_direction_by_its_own() -> None:
    size = measure(rectangle(40, 30), (0.1, 0.05))
    assert size.area == pytest.approx(40 * 0.05 * 30 * 0.1)
    assert size.long_axis == pytest.approx(math.hypot(40 * 0.05, 30 * 0.1))
    assert size.calibrated


def test_a_disc_has_equal_axes() -> None:
    size = measure(ellipse(1, 0, 0, 201, 201), None)
    assert size.long_axis == pytest.approx(199, abs=2)
    assert size.short_axis == pytest.approx(size.long_axis, rel=0.02)
    assert size.diameter == pytest.approx(size.long_axis, rel=0.02)


def test_axes_belong_to_the_largest_part_and_the_area_to_all() -> None:
    mask = np.zeros((50, 400), dtype=np.bool_)
    mask[10:40, 10:50] = True
    mask[0:2, 390:392] = True
    lesion = of_mask(1, mask)
    size = measure(lesion, None)
    assert size.area == 30 * 40 + 4
    assert size.long_axis == pytest.approx(50.0)
    assert outline(lesion)[:, 0].max() < 60


def test_one_pixel_is_outlined_by_its_edges() -> None:
    assert outline(rectangle(1, 1)).tolist() == [[10, 20], [11, 20], [11, 21], [10, 21], [10, 20]]


def test_a_ring_runs_through_the_middles_of_its_pixels() -> None:
    points = outline(rectangle(4, 3))
    assert points.min(axis=0).tolist() == [10.5, 20.5]
    assert points.max(axis=0).tolist() == [13.5, 22.5]


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(lambda mask: mask.any()))
def test_any_mask_has_a_closed_outline_within_its_box_and_sane_sizes(mask: NDArray[np.bool_]) -> None:
    lesion = of_mask(1, mask)
    points = outline(lesion)
    assert len(points) >= 4
    assert np.array_equal(points[0], points[-1])
    box = lesion.bbox
    assert (points >= (box.x0, box.y0)).all() and (points <= (box.x1, box.y1)).all()
    size = measure(lesion, None)
    assert 0 < size.short_axis <= size.long_axis * (1 + 1e-9)
    assert size.long_axis <= math.hypot(box.width, box.height) + 1e-9
