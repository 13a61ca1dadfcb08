"""Intervals come from lesions; figures keep their bounds and forget the order of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.metric_calibration import Confidences
from cds_bundles.metric_resampling import Measure, estimates, lesion_weights

CLASSES = 3
BOUND_BY = {"share": 20, "auc": 10, "specificity": 10}
"""Of 30 lesions, ten of each class: those counted, or those of the rarer kind."""
SEEDS = st.integers(0, 2**32 - 1)
Build = Callable[[np.ndarray, np.ndarray, np.ndarray], Measure]
FIGURES: dict[str, Build] = {
    "balanced": lambda truth, said, score: metric_shares.balanced_accuracy(truth, said, CLASSES),
    "macro": lambda truth, said, score: metric_shares.macro_f1(truth, said, CLASSES),
    "weighted": lambda truth, said, score: metric_shares.weighted_f1(truth, said, CLASSES),
    "share": lambda truth, said, score: metric_shares.share(truth == said, truth < 2),
    "auc": lambda truth, said, score: metric_ranking.roc_auc(truth == 0, score),
    "specificity": lambda truth, said, score: metric_ranking.specificity_at_sensitivity(
        truth == 0, score, 0.9
    ),
    "ece": lambda truth, said, score: _error(truth == said, score),
}


def _error(right: np.ndarray, score: np.ndarray) -> Measure:
    rows = Confidences(score, right, np.ones(len(score), np.bool_))
    return rows.error(rows.equal_width())


def drawn(seed: int, rows: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(CLASSES, size=rows), rng.integers(CLASSES + 1, size=rows), rng.random(rows)


def figure(measure: Measure, lesion_ids: list[str], rounds: int = 200) -> dict[str, object]:
    return estimates({"it": measure}, lesion_ids, "fold 0", rounds)["it"].as_json()


@pytest.mark.parametrize("name", FIGURES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_figures_are_bounded_and_forget_the_order(name: str, seed: int) -> None:
    rows = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(rows[0]))
    one = FIGURES[name](*rows).compute(np.ones((1, 40)))[0]
    other = FIGURES[name](*(each[order] for each in rows)).compute(np.ones((1, 40)))[0]
    assert np.isnan(one) == np.isnan(other)
    if not np.isnan(one):
        assert other == pytest.approx(one)
        assert 0 <= one <= 1


@pytest.mark.parametrize("name", FIGURES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_a_row_drawn_twice_counts_as_two_rows(name: str, seed: int) -> None:
    rows = drawn(seed)
    times = np.random.default_rng(seed).integers(0, 3, size=40)
    weighted = FIGURES[name](*rows).compute(times[None].astype(float))[0]
    repeated = FIGURES[name](*(np.repeat(each, times) for each in rows)).compute(np.ones((1, times.sum())))[0]
    assert weighted == pytest.approx(repeated, nan_ok=True)


@pytest.mark.parametrize("name", ["balanced", "macro", "weighted", "share", "auc", "specificity"])
def test_a_perfect_answer_is_one_whatever_is_drawn(name: str) -> None:
    truth = np.arange(30) % CLASSES
    perfect = figure(FIGURES[name](truth, truth, (truth == 0).astype(float)), [str(i) for i in range(30)])
    assert perfect["value"] == 1.0
    if name in ("share", "auc", "specificity"):
        assert perfect["interval_95"] == [pytest.approx(0.025 ** (1 / BOUND_BY[name]), abs=1e-4), 1.0]
    else:
        assert perfect["interval_95"] is None, "no width is no certainty"


def test_a_constant_answer_is_worth_a_guess() -> None:
    truth, constant = np.arange(30) % CLASSES, np.zeros(30, np.intp)
    ids = [str(i) for i in range(30)]
    assert figure(FIGURES["balanced"](truth, constant, constant), ids)["value"] == pytest.approx(
        1 / 3, abs=1e-4
    )
    assert figure(FIGURES["auc"](truth, constant, np.ones(30)), ids)["value"] == 0.5


def test_nothing_to_measure_is_null_not_zero() -> None:
    truth = np.full(5, 2)
    for name in ("share", "auc"):
        empty = figure(FIGURES[name](truth, truth, np.ones(5)), list("abcde"))
        assert empty["value"] is None
        assert empty["interval_95"] is None
    assert figure(FIGURES["share"](truth, truth, np.ones(5)), list("abcde"))["n"] == 0


def test_n_and_lesions_are_those_that_the_figure_rests_on() -> None:
    truth = np.array([0, 0, 1, 2, 2, 2])
    said = figure(metric_shares.share(truth == 0, truth < 2), ["a", "a", "b", "c", "d", "e"])
    assert (said["n"], said["lesion_ids"], said["unit"], said["split"]) == (3, 2, "pictures", "fold 0")


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 9))
def test_weights_draw_as_many_lesions_as_there_are(seed: int, lesions: int) -> None:
    rows = np.random.default_rng(seed).integers(lesions, size=25)
    lesion_of = np.unique(rows, return_inverse=True)[1]
    for weights in lesion_weights(lesion_of, rounds=20, seed=seed):
        for lesion in range(lesion_of.max() + 1):
            of_lesion = weights[:, lesion_of == lesion]
            assert (of_lesion == of_lesion[:, :1]).all(), "pictures of a lesion stay together"
        firsts = [np.flatnonzero(lesion_of == lesion)[0] for lesion in range(lesion_of.max() + 1)]
        assert (weights[:, firsts].sum(axis=1) == lesion_of.max() + 1).all()


def test_many_pictures_of_one_lesion_do_not_narrow_the_interval() -> None:
    hits = np.repeat([True, False], 100)
    apart = figure(metric_shares.share(hits), [str(i) for i in range(200)], rounds=2000)
    together = figure(metric_shares.share(hits), [str(i // 10) for i in range(200)], rounds=2000)
    assert apart["value"] == together["value"] == 0.5
    assert width(together) == pytest.approx(10**0.5 * width(apart), rel=0.2)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        hits = np.repeat(rng.random(60) < 0.7, 2)
        ids = [str(i // 2) for i in range(120)]
        low, high = figure(metric_shares.share(hits), ids, rounds=400)["interval_95"]  # type: ignore[misc]
        held += low <= 0.7 <= high
    assert 0.89 <= held / 200 <= 0.985


def test_all_right_in_few_lesions_is_no_certainty() -> None:
    all_right = figure(metric_shares.share(np.ones(29, np.bool_)), [str(i) for i in range(29)])
    assert all_right["interval_95"] == [pytest.approx(0.8806, abs=1e-4), 1.0]
    none_right = figure(metric_shares.share(np.zeros(29, np.bool_)), [str(i) for i in range(29)])
    assert none_right["interval_95"] == [0.0, pytest.approx(0.1194, abs=1e-4)]


def test_a_perfect_order_of_few_lesions_is_no_certainty() -> None:
    positive = np.arange(30) < 3
    ids = [str(i) for i in range(30)]
    perfect = figure(metric_ranking.roc_auc(positive, positive.astype(float)), ids)
    assert perfect["interval_95"] == [pytest.approx(0.025 ** (1 / 3), abs=1e-4), 1.0]
    assert (perfect["n"], perfect["lesion_ids"]) == (30, 30)


def test_one_lesion_with_both_answers_has_no_interval() -> None:
    assert figure(metric_shares.share(np.array([True, False])), ["a", "a"])["interval_95"] is None


def test_the_interval_of_a_calibration_error_is_not_pushed_up_by_drawing_again() -> None:
    rng = np.random.default_rng(11)
    confidence = rng.uniform(0.2, 1.0, 400)
    measure = _error(rng.random(400) < confidence, confidence)
    ids = [str(i) for i in range(400)]
    low, high = figure(measure, ids)["interval_95"]  # type: ignore[misc]
    raised, _ = figure(replace(measure, centred=False), ids)["interval_95"]  # type: ignore[misc]
    assert 0 <= low < raised
    assert low <= figure(measure, ids)["value"] <= high  # type: ignore[operator]


def test_the_same_rows_give_the_same_interval() -> None:
    rows = drawn(1)
    ids = [str(i % 13) for i in range(40)]
    assert figure(FIGURES["auc"](*rows), ids) == figure(FIGURES["auc"](*rows), ids)


def width(said: dict[str, object]) -> float:
    low, high = said["interval_95"]  # type: ignore[misc]
    return float(high - low)
