"""Figures agree with scikit-learn's, as values and under weights, and with what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cds_bundles import metric_calibration, metric_ranking, metric_shares
from cds_bundles.metric_calibration import Confidences
from cds_bundles.metric_resampling import Bools, Floats, Measure, Places

CLASSES = 4
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=20, deadline=None)


def value(measure: Measure, weights: Floats | None = None) -> float:
    rows = len(measure.amounts)
    return float(measure.compute(np.ones((1, rows)) if weights is None else weights[None])[0])


def answers(seed: int, rows: int = 60) -> tuple[Places, Places, Floats]:
    """Labels, answers (some of them no class), and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=rows)
    said = np.where(rng.random(rows) < 0.6, labels, rng.integers(CLASSES + 1, size=rows))
    return labels, said, rng.integers(0, 4, size=rows).astype(float)


def scored(seed: int, rows: int = 60) -> tuple[Bools, Floats, Floats]:
    """Truth of both kinds, scores with ties, and weights that leave no kind out."""
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.4
    positive[:2] = True, False
    scores = np.round(rng.random(rows) * 0.6 + 0.3 * positive, 1)
    weights = rng.integers(0, 4, size=rows).astype(float)
    weights[:2] = 1.0
    return positive, scores, weights


@few
@given(SEEDS)
def test_confusion_figures_are_those_of_scikit_learn(seed: int) -> None:
    labels, said, weights = answers(seed)
    known = list(range(CLASSES))
    for average, measure in (
        ("macro", metric_shares.macro_f1(labels, said, CLASSES)),
        ("weighted", metric_shares.weighted_f1(labels, said, CLASSES)),
    ):
        assert value(measure) == pytest.approx(sk.f1_score(labels, said, labels=known, average=average))
        assert value(measure, weights) == pytest.approx(
            sk.f1_score(labels, said, labels=known, average=average, sample_weight=weights), abs=1e-9
        )
    balanced = metric_shares.balanced_accuracy(labels, said, CLASSES)
    recall = sk.recall_score(labels, said, labels=known, average="macro", sample_weight=weights)
    assert value(balanced, weights) == pytest.approx(recall)


@few
@given(SEEDS)
def test_the_confusion_matrix_is_that_of_scikit_learn(seed: int) -> None:
    labels, said, _ = answers(seed)
    expected = sk.confusion_matrix(labels, said, labels=list(range(CLASSES + 1)))
    assert (metric_shares.confusion(labels, said, CLASSES) == expected[:CLASSES]).all()


@few
@given(SEEDS)
def test_area_under_roc_is_that_of_scikit_learn(seed: int) -> None:
    positive, scores, weights = scored(seed)
    measure = metric_ranking.roc_auc(positive, scores)
    assert value(measure) == pytest.approx(sk.roc_auc_score(positive, scores))
    expected = sk.roc_auc_score(positive, scores, sample_weight=weights)
    assert value(measure, weights) == pytest.approx(expected)


@few
@given(SEEDS, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_specificity_at_a_sensitivity_is_the_best_of_the_curve(seed: int, wanted: float) -> None:
    positive, scores, weights = scored(seed)
    false, true, _ = sk.roc_curve(positive, scores, sample_weight=weights, drop_intermediate=False)
    expected = 1 - false[true >= wanted - 1e-12].min()
    measure = metric_ranking.specificity_at_sensitivity(positive, scores, wanted)
    assert value(measure, weights) == pytest.approx(expected)
    flagged = scores >= metric_ranking.threshold_reaching(positive, scores, wanted)
    assert flagged[positive].mean() >= wanted - 1e-12
    assert (~flagged[~positive]).mean() == pytest.approx(value(measure))


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_the_threshold_table_is_what_thresholding_gives(seed: int) -> None:
    positive, scores, _ = scored(seed)
    table = metric_ranking.threshold_table(positive, scores)
    assert [row["threshold"] for row in table] == sorted(set(scores))
    for row in table:
        flagged = scores >= row["threshold"]
        assert row["sensitivity"] == pytest.approx(sk.recall_score(positive, flagged))
        assert row["specificity"] == pytest.approx(sk.recall_score(~positive, ~flagged))
        assert row["precision"] == pytest.approx(sk.precision_score(positive, flagged))
        for beta, name in ((1, "f1"), (2, "f2")):
            assert row[name] == pytest.approx(sk.fbeta_score(positive, flagged, beta=beta))


@few
@given(SEEDS)
def test_f_scores_under_weights_are_those_of_scikit_learn(seed: int) -> None:
    positive, scores, weights = scored(seed)
    flagged = scores >= 0.5
    measure = metric_shares.f_score(flagged & positive, flagged, positive, beta=2.0)
    expected = sk.fbeta_score(positive, flagged, beta=2, sample_weight=weights)
    assert value(measure, weights) == pytest.approx(expected)


@few
@given(SEEDS, st.floats(0.05, 0.95))
def test_net_benefit_follows_its_definition(seed: int, threshold: float) -> None:
    positive, scores, weights = scored(seed)
    flagged = scores >= threshold
    right, wrong = weights[flagged & positive].sum(), weights[flagged & ~positive].sum()
    expected = (right - wrong * threshold / (1 - threshold)) / weights.sum()
    assert value(metric_ranking.net_benefit(positive, scores, threshold), weights) == pytest.approx(expected)


def test_flagging_all_gains_the_prevalence_at_no_risk_and_nothing_at_the_prevalence() -> None:
    positive = np.array([True, False, False, False])
    gains = metric_ranking.benefit_of_flagging_all(positive, [1e-9, 0.25])
    assert gains == pytest.approx([0.25, 0.0], abs=1e-8)


@few
@given(SEEDS)
def test_the_brier_score_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(30) < 0.5
    risk = rng.random(30)
    rows = np.stack([1 - risk, risk], axis=1)
    measure = metric_calibration.brier_score(rows, positive.astype(np.intp), np.ones(30, np.bool_))
    assert value(measure) == pytest.approx(2 * sk.brier_score_loss(positive, risk))


@few
@given(SEEDS, st.booleans())
def test_calibration_error_is_the_mean_gap_of_the_bins(seed: int, by_mass: bool) -> None:
    rng = np.random.default_rng(seed)
    confidence, right, among = rng.random(90), rng.random(90) < 0.7, rng.random(90) < 0.8
    rows = Confidences(confidence, right, among)
    bin_of = rows.equal_mass() if by_mass else rows.equal_width()
    gaps = [
        (among & (bin_of == place)).sum()
        / among.sum()
        * abs(right[chosen].mean() - confidence[chosen].mean())
        for place in range(metric_calibration.BINS)
        if (chosen := among & (bin_of == place)).any()
    ]
    assert value(rows.error(bin_of)) == pytest.approx(sum(gaps))
    diagram = rows.diagram(bin_of)
    assert sum(row["n"] for row in diagram) == among.sum()


def test_the_error_of_perfect_calibration_is_what_honest_probabilities_show() -> None:
    inside = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        confidence, every = rng.uniform(0.2, 1.0, 300), np.ones(300, np.bool_)
        honest = Confidences(confidence, rng.random(300) < confidence, every)
        expected, low, high = honest.error_by_chance(honest.equal_width())
        assert low < expected < high
        inside += low <= value(honest.error(honest.equal_width())) <= high
        boastful = Confidences(confidence, rng.random(300) < confidence - 0.2, every)
        assert value(boastful.error(boastful.equal_width())) > high
    assert inside >= 17


def test_bins_of_equal_mass_hold_as_many_each() -> None:
    rng = np.random.default_rng(3)
    rows = Confidences(rng.random(1500) ** 3, np.ones(1500, np.bool_), np.ones(1500, np.bool_))
    assert set(np.bincount(rows.equal_mass(), minlength=metric_calibration.BINS)) == {100}


def test_probabilities_that_mean_what_they_say_have_hardly_any_calibration_error() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.2, 1.0, 20_000)
    honest = Confidences(confidence, rng.random(20_000) < confidence, np.ones(20_000, np.bool_))
    boastful = Confidences(confidence, rng.random(20_000) < confidence - 0.1, honest.among)
    for rows, low, high in ((honest, 0.0, 0.02), (boastful, 0.09, 0.11)):
        for bin_of in (rows.equal_width(), rows.equal_mass()):
            assert low <= value(rows.error(bin_of)) <= high
