"""Age, sex and site change an answer as far as they are known, and not at all where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_bundles.classes import CLASSES
from cds_bundles.clinical_facts import (
    REGION_OF,
    SEXES,
    FactsModel,
    KnownFacts,
    features,
    fit_facts,
    fit_weight,
    informed,
    left_out,
    names_known,
    only,
)
from cds_bundles.digest import shipped_bundles
from cds_bundles.lesion_answers import facts_of
from cds_bundles.trust import Trust

NV, AKIEC = CLASSES.index("nv"), CLASSES.index("akiec")
ANY_FACTS = st.builds(
    KnownFacts,
    st.none() | st.floats(0, 120),
    st.sampled_from((*SEXES, "", "other")),
    st.sampled_from((*REGION_OF, "", "nowhere")),
)


@pytest.fixture(scope="module")
def shipped() -> FactsModel:
    """The model of the shipped bundle."""
    folder = shipped_bundles()["dermoscopy_lesion_classification"]
    return Trust.load(folder / "models" / "trust.json").facts


@pytest.fixture(scope="module")
def learned() -> FactsModel:
    """Learned where the young have nevi and the old keratoses of the face."""
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(120) < 0.5, NV, AKIEC)
    rows = [
        KnownFacts(max(0.0, rng.normal(30, 8)), "female", "back")
        if label == NV
        else KnownFacts(float(rng.normal(75, 8)), "male", "face")
        for label in labels
    ]
    return fit_facts(rows, labels)


def test_facts_point_where_they_pointed_in_training(learned: FactsModel) -> None:
    for facts in (KnownFacts(80.0), KnownFacts(sex="male"), KnownFacts(site="face")):
        evidence = learned.evidence(facts)
        assert evidence[AKIEC] > 0 > evidence[NV]
    whole = learned.evidence(KnownFacts(80.0, "male", "face"))
    assert whole[AKIEC] - whole[NV] > 3
    region = learned.evidence(KnownFacts(site="head and neck"))
    assert region[AKIEC] > 0 > region[NV]


def test_nothing_known_changes_nothing(learned: FactsModel) -> None:
    assert np.array_equal(learned.evidence(KnownFacts()), np.zeros(7))
    assert np.array_equal(learned.evidence(KnownFacts(None, "other", "nowhere")), np.zeros(7))
    assert np.array_equal(FactsModel.silent().evidence(KnownFacts(80.0)), np.zeros(7))
    rows = np.random.default_rng(2).dirichlet(np.ones(7), 5)
    assert np.allclose(informed(rows, np.zeros(7), 0.7), rows)


@given(ANY_FACTS)
@settings(max_examples=60, deadline=None)
def test_probabilities_sum_to_one_whatever_is_known(shipped: FactsModel, facts: KnownFacts) -> None:
    assert np.exp(shipped.log_probabilities(facts)).sum() == pytest.approx(1.0)
    rows = informed(np.random.default_rng(3).dirichlet(np.ones(7), 4), shipped.evidence(facts), 0.5)
    assert np.allclose(rows.sum(axis=1), 1.0) and (rows >= 0).all()
    assert set(names_known(facts)) <= {"age", "sex", "site"}


def test_the_shipped_model_knows_who_has_nevi(shipped: FactsModel) -> None:
    young, old = (shipped.evidence(KnownFacts(age)) for age in (20.0, 85.0))
    assert young[NV] > 0 > old[NV] and old[AKIEC] > 0 > young[AKIEC]


def test_age_bends_only_at_its_knots() -> None:
    rows = np.stack([features(KnownFacts(age)) for age in (50.0, 55.0, 60.0)])
    assert np.allclose(rows[1], (rows[0] + rows[2]) / 2)
    assert np.array_equal(features(KnownFacts(119.0)), features(KnownFacts(90.0)))


def test_every_subset_of_the_facts_is_learned_from() -> None:
    parts = list(left_out(KnownFacts(50.0, "male", "ear")))
    assert len(parts) == len(set(parts)) == 12
    assert KnownFacts() in parts and KnownFacts(None, "", "head and neck") in parts
    assert [only(KnownFacts(50.0, "male", "ear"), name) for name in ("age", "sex", "site")] == [
        KnownFacts(50.0),
        KnownFacts(sex="male"),
        KnownFacts(site="ear"),
    ]


def test_the_weight_is_that_of_least_surprise() -> None:
    rng = np.random.default_rng(4)
    evidence = rng.normal(0, 1, (3000, 7))
    rows = rng.dirichlet(np.ones(7), 3000)
    truth = informed(rows, evidence, 0.6)
    labels = np.array([rng.choice(7, p=row) for row in truth])
    assert fit_weight(rows, evidence, labels) == pytest.approx(0.6, abs=0.1)
    assert fit_weight(rows, np.zeros((3000, 7)), labels) == 0.0


def test_facts_are_read_from_tables(tmp_path: Path) -> None:
    (tmp_path / "ham10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "H1,I1,nv,histo,55.0,male,back\nH2,I2,nv,histo,,unknown,unknown\n"
    )
    (tmp_path / "index.csv").write_text("path,isic_id,age,sex,site\na.jpg,I3,40,Female,Face\n")
    assert facts_of(tmp_path) == {
        "I1": KnownFacts(55.0, "male", "back"),
        "I3": KnownFacts(40.0, "female", "face"),
    }
