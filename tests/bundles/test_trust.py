"""Calibration, prediction sets, operating points and the out-of-distribution score do what they promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_bundles import trust_figures
from cds_bundles.calibration import (
    COVERAGE,
    SENSITIVITIES,
    VectorScaling,
    fit_mixture,
    fit_scaling,
    malignancy,
    operating_points,
    prediction_sets,
    set_thresholds,
)
from cds_bundles.classes import CLASSES
from cds_bundles.classifier_trust import dealt, fitted, measured
from cds_bundles.clinical_facts import FactsModel, KnownFacts, fit_facts
from cds_bundles.digest import shipped_bundles
from cds_bundles.familiarity import Familiarity
from cds_bundles.lesion_answers import Seen
from cds_bundles.metric_calibration import Confidences
from cds_bundles.trust import Trust

COUNT = 7


def overconfident(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times too large, and labels drawn from what they should have said."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, (count, COUNT))
    powers = np.exp(true)
    shares = powers / powers.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(COUNT, p=row) for row in shares])
    return 3 * true, labels


def calibration_error(rows: np.ndarray, labels: np.ndarray) -> float:
    confidences = Confidences(rows.max(axis=1), rows.argmax(axis=1) == labels, np.ones(len(rows), bool))
    return float(confidences.error(confidences.equal_width()).compute(np.ones((1, len(rows))))[0])


def test_scaling_finds_the_temperature() -> None:
    logits, labels = overconfident(4000, 1)
    scaling = fit_scaling(logits, labels)
    assert np.allclose(scaling.scales, 1 / 3, atol=0.05)
    assert np.abs(scaling.offsets).max() < 0.2


def test_scaling_lowers_the_calibration_error_of_new_cases() -> None:
    scaling = fit_scaling(*overconfident(3000, 2))
    logits, labels = overconfident(3000, 3)
    plain = VectorScaling((1.0,) * COUNT, (0.0,) * COUNT).probabilities(logits)
    assert calibration_error(plain, labels) > 0.1
    assert calibration_error(scaling.probabilities(logits), labels) < 0.04


def test_a_mixture_leans_on_the_network_that_knows() -> None:
    logits, labels = overconfident(2000, 8)
    noise = np.random.default_rng(9).normal(0, 3, logits.shape)
    weights, _ = fit_mixture(np.stack([logits, noise], axis=1), labels)
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] > 0.7
    same, _ = fit_mixture(np.stack([logits, logits], axis=1), labels)
    assert same == pytest.approx((0.5, 0.5))


@given(st.integers(0, 10_000), st.floats(0.1, 5))
@settings(max_examples=30, deadline=None)
def test_probabilities_sum_to_one_whatever_the_logits(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    scaling = VectorScaling(tuple(rng.uniform(0.1, 3, COUNT)), tuple(rng.normal(0, 2, COUNT)))
    rows = scaling.probabilities(rng.normal(0, 200 * size, (20, COUNT)))
    assert np.allclose(rows.sum(axis=1), 1) and (rows >= 0).all()


def test_sets_cover_each_class_as_promised() -> None:
    logits, labels = overconfident(6000, 4)
    rows = VectorScaling((1 / 3,) * COUNT, (0.0,) * COUNT).probabilities(logits)
    thresholds = set_thresholds(rows[:3000], labels[:3000])
    covered = prediction_sets(rows[3000:], thresholds)[np.arange(3000), labels[3000:]]
    for column in range(COUNT):
        assert covered[labels[3000:] == column].mean() > COVERAGE - 0.07


def test_a_class_with_too_few_cases_is_in_every_set() -> None:
    rows = np.full((12, COUNT), 1 / COUNT)
    labels = np.array([0] * 5 + [1] * 7)
    thresholds = set_thresholds(rows, labels)
    assert thresholds == (0.0,) * COUNT
    assert prediction_sets(rows, thresholds).all()


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_set_is_never_empty(seed: int) -> None:
    rows = np.random.default_rng(seed).dirichlet(np.ones(COUNT), 30)
    member = prediction_sets(rows, (1.1,) * COUNT)
    assert (member.sum(axis=1) == 1).all()
    assert member[np.arange(30), rows.argmax(axis=1)].all()
    some = prediction_sets(rows, (0.3,) * COUNT)
    assert (some == (rows >= 0.3))[(rows >= 0.3).any(axis=1)].all()


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_an_operating_point_reaches_its_sensitivity(seed: int, ill: int, well: int) -> None:
    rng = np.random.default_rng(seed)
    malignant = np.arange(ill + well) < ill
    scores = np.round(rng.random(ill + well), 1 if seed % 2 else 6)
    for wanted, point in zip(SENSITIVITIES, operating_points(scores, malignant), strict=True):
        assert point.sensitivity >= wanted - 1e-9
        assert point.specificity == pytest.approx(float((scores[~malignant] < point.threshold).mean()))


OLD, YOUNG = KnownFacts(80.0, "male", "face"), KnownFacts(25.0, "female", "back")


def facts_that_tell(labels: np.ndarray) -> FactsModel:
    """Learned where class 5 is of the young and all else of the old."""
    some = labels[:150]
    return fit_facts([YOUNG if label == 5 else OLD for label in some], some)


def seen(count: int = 900, networks: int = 1) -> Seen:
    """Answers for lesions of which every third has two pictures; of every second the facts are known."""
    logits, labels = overconfident(count, 5)
    groups = tuple(f"lesion {number - (number % 3 == 2)}" for number in range(count))
    facts = tuple(
        KnownFacts() if number % 2 else YOUNG if label == 5 else OLD for number, label in enumerate(labels)
    )
    return Seen(
        np.repeat(logits.astype(np.float32)[:, None], networks, axis=1),
        np.zeros((count, 4), np.float32),
        labels,
        groups,
        np.arange(count) % 2 == 0,
        facts,
    )


def test_pictures_of_a_lesion_stay_together() -> None:
    groups = seen().groups
    parts = dealt(groups)
    for group in set(groups):
        assert len({int(part) for part, name in zip(parts, groups, strict=True) if name == group}) == 1
    assert set(parts) == set(range(5))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from 50 draws: rough and quick."""
    monkeypatch.setattr(trust_figures, "ROUNDS", 50)


@pytest.mark.usefixtures("few_draws")
def test_cross_fitted_figures_are_calibrated_and_cover() -> None:
    cases = seen()
    figures = measured(cases, facts_that_tell(cases.labels), ["light"] * 900)
    every = figures["all_pictures"]
    assert every["ece"]["value"] < 0.06 < every["ece_uncalibrated"]["value"]
    assert figures["histology_confirmed"]["accuracy"]["n"] == 450
    assert figures["prediction_sets"]["coverage"]["value"] == pytest.approx(COVERAGE, abs=0.04)
    assert figures["operating_points"]["0.95"]["sensitivity"]["value"] == pytest.approx(0.95, abs=0.04)
    assert figures["subgroups"]["skin_tone"]["light"]["accuracy"]["n"] == 900
    told = figures["with_facts"]
    assert told["all_facts"]["accuracy"]["n"] == 450
    assert told["all_facts"]["accuracy"]["value"] > told["picture_alone"]["accuracy"]["value"] + 0.05
    assert told["all_facts"]["coverage"]["value"] == pytest.approx(COVERAGE, abs=0.05)
    assert "variants" not in figures


@pytest.mark.usefixtures("few_draws")
def test_two_networks_are_measured_alone_too() -> None:
    figures = measured(seen(networks=2), FactsModel.silent())
    assert set(figures["variants"]) == {"network 1 alone", "network 2 alone"}
    one, both = figures["variants"]["network 2 alone"], figures["all_pictures"]
    assert one["accuracy"]["value"] == pytest.approx(both["accuracy"]["value"], abs=0.01)


def test_trust_comes_back_from_its_file(tmp_path: Path) -> None:
    cases = seen(networks=2)
    trust = fitted(cases, facts_that_tell(cases.labels))
    trust.save(tmp_path / "trust.json")
    again = Trust.load(tmp_path / "trust.json")
    assert np.allclose(again.probabilities(cases.logits), trust.probabilities(cases.logits), atol=1e-5)
    assert np.allclose(again.facts.evidence(OLD), trust.facts.evidence(OLD))
    assert again.facts_weight == trust.facts_weight > 0
    for ours, theirs in ((trust.picture_alone, again.picture_alone), (trust.with_facts, again.with_facts)):
        assert np.allclose(theirs.set_thresholds, ours.set_thresholds, atol=1e-6)
        assert theirs.operating_points.keys() == ours.operating_points.keys()


def test_the_shipped_trust_offers_every_operating_point() -> None:
    trust = Trust.load(shipped_bundles()["dermoscopy_lesion_classification"] / "models" / "trust.json")
    for reading in (trust.picture_alone, trust.with_facts):
        assert tuple(sorted(reading.operating_points)) == SENSITIVITIES
        thresholds = [reading.operating_points[wanted].threshold for wanted in SENSITIVITIES]
        assert thresholds == sorted(thresholds, reverse=True)
    assert all(value > 0 for value in trust.scaling.scales)


def test_trust_of_other_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    fitted(seen(), FactsModel.silent()).save(path)
    path.write_text(path.read_text().replace('"mel"', '"melanoma"'))
    with pytest.raises(ValueError, match="melanoma"):
        Trust.load(path)


def features(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(99).normal(size=(5, 40))
    return (rng.normal(size=(count, 5)) @ plane + 0.1 * rng.normal(size=(count, 40)) + shift).astype(
        np.float32
    )


def test_what_lies_off_the_plane_is_unfamiliar(tmp_path: Path) -> None:
    learned = Familiarity.of(features(400, 1), features(200, 2), directions=5)
    learned.save(tmp_path / "familiarity.safetensors")
    known = Familiarity.load(tmp_path / "familiarity.safetensors")
    assert known.ood_scores(features(300, 3)).mean() == pytest.approx(0.5, abs=0.1)
    assert (known.ood_scores(features(50, 4, shift=3.0)) == 1.0).all()


def test_malignancy_adds_three_classes() -> None:
    rows = np.eye(COUNT)
    assert [CLASSES[place] for place in np.flatnonzero(malignancy(rows))] == ["akiec", "bcc", "mel"]
