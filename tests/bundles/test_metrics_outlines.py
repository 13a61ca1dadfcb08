"""Outlines: overlap and border; lesions: matching and average precision, with numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score

from cds_bundles.metric_instances import Finds, average_precision, matched
from cds_bundles.metric_overlap import (
    border_tolerance,
    boundary_f1,
    dice,
    iou,
    thresholded_jaccard,
)

few = settings(max_examples=40, deadline=None)
masks = arrays(np.bool_, (12, 14))


def square(x0: int, y0: int, side: int) -> np.ndarray:
    mask = np.zeros((200, 200), np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


@few
@given(masks, masks)
def test_overlap_is_symmetric_and_that_of_scikit_learn(first: np.ndarray, second: np.ndarray) -> None:
    assert iou(first, second) == iou(second, first)
    assert dice(first, second) == pytest.approx(2 * iou(first, second) / (1 + iou(first, second)))
    if first.any() or second.any():
        assert iou(first, second) == pytest.approx(jaccard_score(first.ravel(), second.ravel()))
        assert dice(first, second) == pytest.approx(f1_score(first.ravel(), second.ravel()))


@few
@given(masks)
def test_an_outline_agrees_with_itself(mask: np.ndarray) -> None:
    assert iou(mask, mask) == dice(mask, mask) == boundary_f1(mask, mask) == 1.0


@few
@given(masks, masks)
def test_borders_agree_symmetrically_within_bounds(first: np.ndarray, second: np.ndarray) -> None:
    assert 0 <= boundary_f1(first, second) <= 1
    assert boundary_f1(first, second) == pytest.approx(boundary_f1(second, first))


def test_a_border_may_be_off_by_the_tolerance_and_no_more() -> None:
    tolerance = border_tolerance(200, 200)
    assert tolerance == pytest.approx(2.1213, abs=1e-3)
    assert boundary_f1(square(52, 50, 60), square(50, 50, 60)) == 1.0
    assert boundary_f1(square(50, 50, 60), square(60, 60, 40)) == 0.0
    assert dice(square(50, 50, 60), square(60, 60, 40)) > 0.6, "the overlap alone would be fair"


def test_a_missed_lesion_has_no_border() -> None:
    nothing = np.zeros((200, 200), np.bool_)
    assert boundary_f1(nothing, square(50, 50, 60)) == boundary_f1(square(50, 50, 60), nothing) == 0.0


def test_an_overlap_below_the_threshold_counts_as_failed() -> None:
    assert [thresholded_jaccard(each) for each in (0.649, 0.65, 0.9)] == [0.0, 0.65, 0.9]


def test_every_lesion_is_taken_once_by_the_surest_find() -> None:
    assert matched(np.array([[0.6, 0.7], [0.8, 0.9]]), 0.5) == (1, 0)
    assert matched(np.array([[0.9], [0.95]]), 0.5) == (0, None)
    assert matched(np.array([[0.49]]), 0.5) == (None,)
    assert matched(np.zeros((2, 0)), 0.5) == (None, None)
    assert matched(np.zeros((0, 2)), 0.5) == ()


def precision(pictures: list[Finds], weights: list[float] | None = None) -> float:
    measure = average_precision(pictures)
    rows = np.ones((1, len(pictures))) if weights is None else np.array([weights])
    return float(measure.compute(rows)[0])


def test_average_precision_counted_by_hand() -> None:
    perfect = Finds((0.9, 0.8), (True, True), 2)
    assert precision([perfect, Finds((), (), 0)]) == 1.0
    assert precision([Finds((), (), 1)]) == 0.0
    assert np.isnan(precision([Finds((0.5,), (False,), 0)]))
    half = precision([Finds((0.9,), (True,), 1), Finds((0.8,), (False,), 1)])
    assert half == pytest.approx(51 / 101), "recall 0.00 to 0.50 at full precision, nothing beyond"
    late = precision([Finds((0.9, 0.8), (False, True), 1)])
    assert late == pytest.approx(0.5), "the false find comes first: precision never exceeds one half"


@few
@given(st.integers(0, 2**32 - 1))
def test_average_precision_is_the_area_under_its_own_curve(seed: int) -> None:
    """Against a plain reading of the definition, picture by picture, with weights as repeats."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(8):
        hits = tuple(bool(each) for each in rng.random(rng.integers(0, 4)) < 0.6)
        pictures.append(
            Finds(tuple(rng.random(len(hits)).tolist()), hits, sum(hits) + int(rng.integers(0, 2)))
        )
    times = rng.integers(0, 3, size=8)
    drawn = [each for each, count in zip(pictures, times, strict=True) for _ in range(count)]
    lesions = sum(each.lesions for each in drawn)
    found = sorted(
        ((score, hit) for each in drawn for score, hit in zip(each.scores, each.hits, strict=True)),
        reverse=True,
    )
    curve, right = [], 0
    for number, (_, hit) in enumerate(found, start=1):
        right += hit
        curve.append((right, right / number))
    levels = [
        max((value for count, value in curve if count * 100 >= level * lesions), default=0.0)
        for level in range(101)
    ]
    measured = precision(pictures, times.astype(float).tolist())
    if lesions:
        assert measured == pytest.approx(np.mean(levels), abs=0.02)
        assert 0 <= measured <= 1
    else:
        assert np.isnan(measured)
