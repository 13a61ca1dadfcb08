"""The figures of `evaluate`: known values, and intervals that respect lesions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cds_worker.evaluation.figures import area_under_roc, mean, mean_sensitivity, measured, ratio, sensitivity

EVERY = np.arange(4)


def test_an_answer_that_is_no_class_is_wrong() -> None:
    truth, answer = ["nv", "nv", "mel", "mel"], ["nv", "none", "mel", "mel"]
    assert mean_sensitivity(truth, answer)(EVERY) == pytest.approx(0.75)
    assert sensitivity(truth, answer, "nv")(EVERY) == 0.5
    assert np.isnan(sensitivity(truth, answer, "df")(EVERY))


def test_area_under_roc_counts_ties_half() -> None:
    assert area_under_roc([True, False, True, False], [0.9, 0.9, 0.8, 0.1])(EVERY) == pytest.approx(0.625)


def test_mean_leaves_out_what_is_unknown_and_ratio_divides_sums() -> None:
    assert mean([1.0, float("nan"), 3.0])(np.arange(3)) == 2.0
    assert ratio([1, 1], [2, 4])(np.arange(2)) == pytest.approx(1 / 3)
    assert np.isnan(ratio([0], [0])(np.arange(1)))


def test_a_figure_without_cases_is_null_in_json() -> None:
    figure = measured(sensitivity(["nv"], ["nv"], "df"), ["lesion"])
    assert json.loads(json.dumps(figure, allow_nan=False))["value"] is None


def test_many_pictures_of_one_lesion_do_not_narrow_the_interval() -> None:
    values = [0.0, 1.0] * 100
    apart = measured(mean(values), [str(index) for index in range(200)])
    grouped = measured(mean(values), [str(index % 20) for index in range(200)])
    assert apart["value"] == grouped["value"] == 0.5
    assert (apart["lesions"], grouped["lesions"]) == (200, 20)
    assert width(grouped) > 2 * width(apart)


def width(figure: dict[str, object]) -> float:
    low, high = figure["interval_95"]  # type: ignore[misc]
    return float(high - low)
