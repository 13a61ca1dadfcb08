"""The segmenter's second opinion: what it sees, how it is fitted, what its doubt costs a find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cds_bundles.scenes import Scene
from cds_bundles.second_opinion import DOUBT, SecondOpinion, doubted, widened
from cds_bundles.second_opinion_fit import a_window, beside, fitted, labelled
from cds_bundles.segmenter_data import to_tensor
from cds_bundles.segmenter_network import build_segmenter, pixels_last


def test_unfitted_it_takes_everything_for_a_lesion() -> None:
    opinion = SecondOpinion(4)
    rows = torch.randn(5, opinion.in_features)
    scores = torch.rand(5)
    assert torch.equal(doubted(scores, opinion(rows)), scores)


def test_doubt_halves_a_score() -> None:
    scores = torch.tensor([0.9, 0.9])
    assert doubted(scores, torch.tensor([DOUBT - 0.01, DOUBT])).tolist() == pytest.approx([0.45, 0.9])


def test_the_weights_take_rows_as_they_are() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(2.0, [1.0, 30.0, 0.01], (400, 3))
    label = rows @ [1.0, 0.05, 40.0] + rng.normal(0, 1.0, 400) > 82.3
    weight, bias = fitted(torch.from_numpy(rows).float(), torch.from_numpy(label), 10.0)
    scale = StandardScaler().fit(rows)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=2000).fit(scale.transform(rows), label)
    ours = (torch.from_numpy(rows).float() @ weight[0] + bias).sigmoid().numpy()
    assert ours == pytest.approx(theirs.predict_proba(scale.transform(rows))[:, 1], abs=5e-3)


def test_surroundings_end_at_the_border() -> None:
    boxes = torch.tensor([[0.0, 10.0, 20.0, 30.0], [40.0, 40.0, 60.0, 60.0]])
    assert widened(boxes, (100, 62)).tolist() == [[0.0, 3.0, 27.0, 37.0], [33.0, 33.0, 62.0, 67.0]]


def test_only_whole_lesions_and_bare_skin_say_something() -> None:
    torch.manual_seed(5)
    network = pixels_last(build_segmenter().eval())
    rgb = np.random.default_rng(5).integers(0, 256, (64, 96, 3), np.uint8)
    with torch.inference_mode():
        found = network.find(to_tensor(rgb))
    assert found["evidence"].shape == (len(found["scores"]), network.second_opinion.in_features)
    assert torch.isfinite(found["evidence"]).all()
    empty = list(labelled(network, Scene(rgb, ())))
    assert empty
    assert not any(lesion for _, lesion in empty)
    everywhere = (np.ones((64, 96), bool),)
    assert len(list(labelled(network, Scene(rgb, everywhere)))) < len(found["scores"])


def test_skin_beside_a_lesion_holds_none_of_it() -> None:
    rgb = np.full((200, 300, 3), 200, np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[60:140, 20:100] = True
    rgb[mask] = 0
    strip = beside(rgb, mask)
    assert strip.shape == (200, 186, 3)
    assert strip.min() == 200
    assert a_window(np.random.default_rng(1), strip, 90, 160).shape == (90, 160, 3)
