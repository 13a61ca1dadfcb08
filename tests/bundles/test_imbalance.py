"""Losses and last layers for classes of very different size do what their papers say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cds_bundles.classifier_losses import LossName, class_loss
from cds_bundles.comparison_figures import measures_of, softmax
from cds_bundles.smote_head import filled_up, repeated, retrained

COUNTS = np.array([90, 10, 0, 0, 0, 0, 0])
LOGITS = torch.tensor([[2.0, 0.0, 0, 0, 0, 0, 0], [1.0, 0.0, 0, 0, 0, 0, 0]])
LABELS = torch.tensor([0, 1])


def value(name: LossName) -> float:
    return float(class_loss(name, COUNTS, smoothing=0.0)(LOGITS, LABELS))


def test_losses_of_known_cases() -> None:
    probabilities = LOGITS.softmax(dim=1)
    right = probabilities[[0, 1], LABELS].double()
    plain = float(-right.log().mean())
    assert value("cross_entropy") == pytest.approx(plain, rel=1e-5)
    weights = torch.tensor([1 / 90, 1 / 10], dtype=torch.float64)
    weighted = float(-(weights * right.log()).sum() / weights.sum())
    assert value("weighted") == pytest.approx(weighted, rel=1e-5)
    focal = float(-((1 - right) ** 2 * right.log()).mean())
    assert value("focal") == pytest.approx(focal, rel=1e-5)
    assert focal < plain < weighted


def test_an_adjusted_logit_asks_more_of_the_rare_class() -> None:
    level = torch.zeros(1, 7)
    loss = class_loss("logit_adjusted", COUNTS, smoothing=0.0)
    of_frequent, of_rare = (float(loss(level, torch.tensor([label]))) for label in (0, 1))
    assert of_rare - of_frequent == pytest.approx(np.log(9), rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "weighted", "focal", "logit_adjusted"])
def test_every_loss_falls_where_the_answer_gets_better(name: LossName) -> None:
    loss = class_loss(name, np.array([50, 20, 10, 5, 5, 5, 5]))
    logits = torch.zeros(7, 7, requires_grad=True)
    labels = torch.arange(7)
    first = loss(logits, labels)
    (slope,) = torch.autograd.grad(first, logits)
    assert float(loss(logits - slope, labels).detach()) < float(first.detach())


def test_rare_embeddings_are_filled_up_between_their_neighbours() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(0, 1, (40, 3)), rng.normal(9, 1, (8, 3)), [[50.0, 50, 50]] * 2])
    labels = np.array([0] * 40 + [1] * 8 + [2] * 2)
    for fill in (filled_up, repeated):
        features, classes = fill(rows.astype(np.float32), labels, seed=2)
        assert np.bincount(classes).tolist() == [40, 40, 40]
        assert (features[classes == 2] == 50).all()
    made, classes = filled_up(rows.astype(np.float32), labels, seed=2)
    rare, own = made[classes == 1], rows[labels == 1]
    assert len(np.unique(rare, axis=0)) > 8
    assert (rare >= own.min(axis=0) - 1e-4).all() and (rare <= own.max(axis=0) + 1e-4).all()


def test_a_class_of_one_is_repeated() -> None:
    features, classes = filled_up(np.eye(5, dtype=np.float32), np.array([0, 0, 0, 0, 1]), seed=1)
    assert np.bincount(classes).tolist() == [4, 4]
    assert (features[classes == 1] == np.eye(5)[4]).all()


def test_a_last_layer_learns_its_embeddings_and_leaves_the_old_one() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 1000)
    features = (np.eye(8)[labels] * 40 + rng.normal(0, 4, (3000, 8))).astype(np.float32)
    old = nn.Linear(8, 3)
    nn.init.zeros_(old.weight)
    before = old.weight.detach().clone()
    own = retrained(old, features, labels, seed=1)
    hits = own(torch.from_numpy(features)).argmax(dim=1).numpy() == labels
    assert hits.mean() > 0.9
    assert torch.equal(old.weight, before)


def test_figures_of_a_perfect_and_a_blind_answer() -> None:
    labels = np.tile(np.arange(7), 6)
    perfect = np.eye(7)[labels] * 40
    every = np.ones((1, len(labels)))
    figures = {name: float(each.compute(every)[0]) for name, each in measures_of(perfect, labels).items()}
    for name in ("balanced_accuracy", "accuracy", "malignancy_auc", "specificity_at_95_sensitivity"):
        assert figures[name] == pytest.approx(1.0)
    assert figures["ece"] == pytest.approx(0.0, abs=1e-6)
    blind = measures_of(np.zeros((42, 7)), labels)
    assert float(blind["balanced_accuracy"].compute(every)[0]) == pytest.approx(1 / 7)
    assert float(blind["malignancy_auc"].compute(every)[0]) == pytest.approx(0.5)
    assert softmax(perfect).sum(axis=1) == pytest.approx(1.0)
