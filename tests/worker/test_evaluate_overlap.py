"""Overlap of outlines and matching of finds to lesions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from cds_plugin.study import BoundingBox, Lesion, Mask
from cds_worker.evaluation.overlap import dice, iou, matches, union_of

masks = arrays(np.bool_, (6, 7))
EVEN = (1 / 7,) * 7


def square(x0: int, y0: int, side: int) -> Mask:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


@given(masks, masks)
def test_overlap_is_symmetric_and_dice_follows_from_iou(first: Mask, second: Mask) -> None:
    overlap = iou(first, second)
    assert overlap == iou(second, first)
    assert 0 <= overlap <= 1
    assert dice(first, second) == pytest.approx(2 * overlap / (1 + overlap))


@given(masks)
def test_a_mask_covers_itself(mask: Mask) -> None:
    assert iou(mask, mask) == dice(mask, mask) == 1.0


def test_each_lesion_is_matched_once() -> None:
    lesion, other = square(0, 0, 8), square(10, 10, 8)
    assert matches([square(0, 0, 8), square(1, 0, 8)], [lesion, other]) == 1
    assert matches([square(10, 11, 8), square(0, 0, 8)], [lesion, other]) == 2
    assert matches([], [lesion]) == matches([lesion], []) == 0


def test_the_union_holds_every_lesion_in_its_place() -> None:
    one = Lesion(1, BoundingBox(2, 3, 4, 5), np.ones((2, 2), np.bool_), 0.9, EVEN)
    two = Lesion(2, BoundingBox(3, 4, 6, 5), np.array([[True, False, True]]), 0.8, EVEN)
    union = union_of([one, two], 10, 10)
    expected = np.zeros((10, 10), np.bool_)
    expected[3:5, 2:4] = True
    expected[4, 5] = True
    assert (union == expected).all()
